"""Decides how certificates are replaced over time: single ones near their end, or the CA itself in three steps. Pure.

A CA is replaced without a moment in which two parties distrust each other:

1. ``trust-both``: a new CA is made; everybody trusts the old and the new one, the old one still issues.
2. ``reissue``: the new CA takes over and issues every bundle again; everybody still trusts both.
3. ``drop-old``: nobody trusts the old CA any more.

Invariants:

1. No bundle is issued by the new CA before every bundle here trusts it.
2. The old CA is not dropped while a bundle here is issued by it.
3. Every command may be carried out twice, and a decision lists only what is still to be done: whoever was interrupted
   decides again and carries on.
4. CA certificates somebody added by hand to a bundle stay.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from cryptography import x509
from cryptography.x509.oid import NameOID

from muster.kernel.errors import Conflict
from muster.pki.bundles import BundlePaths, BundleRequest
from muster.pki.profile import COMMON_NAME

Step = Literal["trust-both", "reissue", "drop-old"]
Issuer = Literal["old", "new", "other", "unreadable"]
Chain: TypeAlias = tuple[x509.Certificate, ...]

STEPS: tuple[Step, ...] = get_args(Step)

# A member looks for new files every second; a balancer too, but it reloads HAProxy at most once in five.
SETTLE = timedelta(seconds=10)


@dataclass(frozen=True)
class Held:
    """A bundle as it lies there.

    Attributes:
        issuer: which CA issued its certificate; ``other`` is a CA that is not ours.
        trusts: the CA certificates beside it; empty when they cannot be read.
        not_after: None when the certificate cannot be read.
        request: what a reissue must carry.
    """

    at: BundlePaths
    issuer: Issuer
    trusts: Chain
    not_after: datetime | None
    request: BundleRequest

    @property
    def label(self) -> str:
        return self.at.kind if self.at.kind == "balancer" else f"{self.at.kind} {self.at.name}"


@dataclass(frozen=True)
class View:
    """The directory of certificates at one moment.

    Attributes:
        begun: whether a replacement of the CA is under way.
        old: the CA that is replaced, with its issuers; the CA when nothing is under way.
        new: the CA that replaces it, empty until it is made.
        top: what the directory's own ``ca.pem`` holds.
        signing: whose key ``ca.key`` is and whose certificate stands first beside it; None when they differ.
        done: when a step was completed.
    """

    now: datetime
    ca_file: Path
    begun: bool
    old: Chain
    new: Chain
    top: Chain
    signing: Literal["old", "new"] | None
    bundles: tuple[Held, ...]
    done: Mapping[Step, datetime]

    @property
    def of_the_old(self) -> tuple[Held, ...]:
        """The bundles that the new CA must issue again."""
        return tuple(b for b in self.bundles if b.issuer in ("old", "unreadable"))


@dataclass(frozen=True)
class Begin:
    """Remember the CA that is to be replaced."""

    def __str__(self) -> str:
        return "keep a copy of the present CA"


@dataclass(frozen=True)
class MakeCA:
    """Make, or adopt, the CA that replaces it."""

    common_name: str

    def __str__(self) -> str:
        return f"make the new CA, {self.common_name}"


@dataclass(frozen=True)
class Trust:
    """Let a CA file hold these certificates; ``None`` stands for old and new where the new CA is still to be made."""

    owner: str
    file: Path
    certificates: Chain | None

    def __str__(self) -> str:
        return f"write {self.file}"


@dataclass(frozen=True)
class Promote:
    """Let the new CA issue from now on."""

    certificates: Chain

    def __str__(self) -> str:
        return "let the new CA issue from now on"


@dataclass(frozen=True)
class Reissue:
    """Issue a bundle again."""

    held: Held

    def __str__(self) -> str:
        names = ", ".join((*self.held.request.dns_names, *self.held.request.addresses))
        return f"issue {self.held.at.directory} again: {names}"


@dataclass(frozen=True)
class Note:
    """Remember that a step is complete."""

    step: Step

    def __str__(self) -> str:
        return f"remember that step {self.step} is complete"


@dataclass(frozen=True)
class Finish:
    """Forget that the CA was being replaced."""

    def __str__(self) -> str:
        return "finish"


Command: TypeAlias = Begin | MakeCA | Trust | Promote | Reissue | Note | Finish


@dataclass(frozen=True)
class Decision:
    """What a step is still made of.

    Attributes:
        wait: how long members and balancers need to take up what the step before wrote.
    """

    step: Step
    commands: tuple[Command, ...]
    wait: timedelta = timedelta()


def expiring(bundles: Sequence[Held], now: datetime, within: timedelta | None) -> list[Held]:
    """Return those of our CA that end within the time, or that cannot be read; all of our CA when ``within`` is None."""
    ours = [b for b in bundles if b.issuer != "other"]
    return [b for b in ours if within is None or b.not_after is None or b.not_after - now <= within]


def next_step(view: View) -> Step:
    """Return the step that is to be done next."""
    if "trust-both" not in view.done:
        return "trust-both"
    return "reissue" if "reissue" not in view.done or view.of_the_old else "drop-old"


def decided(view: View, step: Step | None = None, *, settle: timedelta = SETTLE) -> Decision:
    """Return what is to be done for a step, the next one unless told; a step that is complete has little or nothing left.

    ``settle`` is how long after a step the next one may begin.

    Raises:
        Conflict: another step comes first.
    """
    due = next_step(view)
    wanted = step or due
    if STEPS.index(wanted) > STEPS.index(due):
        raise Conflict(_too_early(view, wanted, due))
    commands = {"trust-both": _trusting_both, "reissue": _reissuing, "drop-old": _dropping}[wanted](view)
    return Decision(wanted, tuple(commands), _wait(view, wanted, settle))


def successor_name(old: x509.Certificate) -> str:
    """Return a name for the next CA that differs from the old one's, so that people can tell them apart."""
    found = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    numbered = re.fullmatch(rf"{COMMON_NAME}(?: ([0-9]{{1,6}}))?", str(found[0].value)) if found else None
    return f"{COMMON_NAME} {int(numbered[1] or 1) + 1}" if numbered else COMMON_NAME


def _trusting_both(view: View) -> list[Command]:
    commands: list[Command] = [] if view.begun else [Begin()]
    if not view.new:
        commands.append(MakeCA(successor_name(view.old[0])))
        files = [Trust("", view.ca_file, None), *(Trust(b.label, b.at.ca, None) for b in view.bundles)]
        return [*commands, *files, Note("trust-both")]
    # Whoever issues stands first: ca.pem is read beside ca.key.
    both = (*view.new, *view.old) if view.signing == "new" else (*view.old, *view.new)
    return [*commands, *_trusts(view, both, ()), Note("trust-both")]


def _reissuing(view: View) -> list[Command]:
    both = (*view.new, *view.old)
    commands: list[Command] = [*_trusts(view, both, ())]
    if view.signing != "new":
        commands.append(Promote(_merged(both, view.top, ())))
    commands += [Reissue(b) for b in view.of_the_old]
    return [*commands, Note("reissue")]


def _dropping(view: View) -> list[Command]:
    gone = tuple(c for c in view.old if c not in view.new)
    return [*_trusts(view, view.new, gone), Finish()]


def _trusts(view: View, wanted: Chain, gone: Chain) -> list[Trust]:
    files = [("", view.ca_file, view.top), *((b.label, b.at.ca, b.trusts) for b in view.bundles)]
    found = ((owner, path, now, _merged(wanted, now, gone)) for owner, path, now in files)
    return [Trust(owner, path, then) for owner, path, now, then in found if set(now) != set(then)]


def _merged(wanted: Chain, present: Chain, gone: Chain) -> Chain:
    extra = (c for c in present if c not in gone)
    return tuple(dict.fromkeys((*wanted, *extra)))


def _wait(view: View, step: Step, settle: timedelta) -> timedelta:
    before = STEPS.index(step) - 1
    at = view.done.get(STEPS[before]) if before >= 0 else None
    if at is None or step in view.done:
        return timedelta()
    # A clock that was set back must not make anybody wait for longer than it takes.
    return min(max(at + settle - view.now, timedelta()), settle)


def _too_early(view: View, wanted: Step, due: Step) -> str:
    if not view.begun:
        return f"Step {wanted} is refused: the CA is not being replaced; begin with step trust-both"
    left = ", ".join(b.label for b in view.of_the_old)
    why = f"the old CA issued {left}" if due == "reissue" and left else f"step {due} is not complete"
    return f"Step {wanted} is refused: {why}; do step {due} first"
