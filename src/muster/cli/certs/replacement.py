"""The CA replaced, step by step."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import click

from muster.cli.certs.copies import Copy, print_copies
from muster.cli.certs.place import Place
from muster.cli.options import print_json
from muster.kernel.errors import Conflict
from muster.kernel.names import shown
from muster.pki.authority import ca_paths
from muster.pki.bundles import BundleRequest, write
from muster.pki.carry_out import Workshop, carry_out, refuse_unless_able, successor
from muster.pki.complaints import Complaint
from muster.pki.facts import CertificateFacts
from muster.pki.rotation import STEPS, Decision, Step, View
from muster.pki.verify import verify_port

_LOOK_S = 3.0
# What a member that has not taken up the step before is complained of, and one that nobody can ask.
_BEHIND: Mapping[Step, frozenset[str]] = {
    "reissue": frozenset({"TLS-CLIENT-REFUSED"}),
    "drop-old": frozenset({"TLS-CA", "TLS-CA-KEY", "TLS-CLIENT-REFUSED"}),
}
_NOBODY = frozenset({"TLS-REFUSED", "TLS-TIMEOUT", "TLS-UNRESOLVED", "TLS-UNREACHABLE"})


def replace_ca(
    place: Place, view: View, decision: Decision, workshop: Workshop, *, look: bool, dry_run: bool, as_json: bool
) -> None:
    """Say where the replacement of the CA stands and carry out a step of it."""
    say = functools.partial(click.echo, err=as_json)
    say(_standing(view))
    refuse_unless_able(decision.commands, workshop)
    wait_s = decision.wait.total_seconds()
    if wait_s:
        say(
            f"{'Would wait' if dry_run else 'Waiting'} {wait_s:.0f} s until members and balancers have taken the files up"
        )
    if not dry_run:
        time.sleep(wait_s)
    # What members have not taken up before the wait says nothing of after it.
    if look and place.cluster_file.exists() and not (dry_run and wait_s):
        _refuse_unless_taken_up(place, decision.step, say)
    if dry_run:
        for command in decision.commands:
            say(f"Would {command}")
    else:
        for command in decision.commands:
            carry_out(command, workshop)
        say(f"Step {decision.step} is complete.")
    copies = _copies(place, view, decision.step)
    following = STEPS[STEPS.index(decision.step) + 1 :]
    if as_json:
        print_json(
            {
                "step": decision.step,
                "dry_run": dry_run,
                "commands": [str(c) for c in decision.commands],
                "next": following[0] if following else None,
                "copy": [c.as_json() for c in copies],
            }
        )
        return
    print_copies(copies, dry_run=dry_run)
    if following:
        say(f"Then: muster certs rotate --ca --step {following[0]}")


def _standing(view: View) -> str:
    if not view.begun:
        return f"CA {CertificateFacts.of(view.top[0]).subject_cn} is not being replaced so far."
    new = f" by {shown(CertificateFacts.of(view.new[0]).subject_cn)}" if view.new else ""
    done = ", ".join(s for s in STEPS if s in view.done) or "nothing"
    return f"CA {shown(CertificateFacts.of(view.old[0]).subject_cn)} is being replaced{new}; done: {done}."


def _copies(place: Place, view: View, step: Step) -> list[Copy]:
    """Return every file of a step, also those that an interrupted attempt has written already."""
    ours = [b for b in view.bundles if step != "reissue" or b.issuer != "other"]
    return [
        Copy("everywhere, Foreman too", place.ca_file),
        *(Copy(b.label, b.at.directory if step == "reissue" else b.at.ca) for b in ours),
    ]


def _refuse_unless_taken_up(place: Place, step: Step, say: Callable[[str], None]) -> None:
    """Ask every member whether it has taken up what the step before wrote.

    A member that does not answer is only mentioned: when it is down there is nobody to be dropped, and the files are there
    when it comes back.

    Raises:
        Conflict: one answers as before.
    """
    if step == "trust-both":
        return
    found = asyncio.run(_taken_up(place, step))
    behind = [f"{member} ({c.code})" for member, complaints in found for c in complaints if c.code in _BEHIND[step]]
    if behind:
        what = "does not trust the new CA yet" if step == "reissue" else "has not taken up its new certificate yet"
        raise Conflict(
            f"Step {step} is refused: {', '.join(dict.fromkeys(behind))} {what}; copy its files there, wait a second and "
            "do the step again (--no-look does it without asking)"
        )
    for member, complaints in found:
        for complaint in complaints:
            if complaint.code in _NOBODY:
                say(f"{member} was not seen: {complaint.sentence}; see to it that it has its files before it returns.")


async def _taken_up(place: Place, step: Step) -> list[tuple[str, list[Complaint]]]:
    import tempfile

    from muster.app.offers import modelled

    service = modelled(place.cluster).service("smartproxy")
    members = [m for m in place.cluster.members if m.kind == "muster"] if service else []
    ca = successor(place.pki)
    with tempfile.TemporaryDirectory(prefix="muster-certs-") as directory:
        # A certificate of the new CA, made for this question: who refuses it does not trust the new CA.
        own = write(
            ca.issue(BundleRequest("client", "muster-certs-rotate"), now=place.now, valid_days=1), Path(directory)
        )
        trusted = ca_paths(ca.directory)[0] if step == "drop-old" else place.ca_file
        asked = (
            verify_port(
                m.address, service.port_on(str(m.name)) if service else 0, server_name=m.name, ca_file=trusted,
                certificate=own.certificate, key=own.key, now=place.now, timeout_s=_LOOK_S,
            )
            for m in members
        )  # fmt: skip
        answers = await asyncio.gather(*asked)
    return [(str(m.name), a) for m, a in zip(members, answers, strict=True)]
