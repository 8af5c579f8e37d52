"""Failpoints: every durable step has a name before and after its commit, where a test may end or fail the process.

A step promises that what was acknowledged is never lost, and can break that promise between two lines only. So each unit of
work, and each file that others rely on, bears a name of :data:`STEPS` and passes two places: ``NAME.before-commit`` and
``NAME.after-commit``. A process is armed by its environment alone, read once when it starts::

    MUSTER_FAILPOINTS=sign.after-commit=kill@3,revoke.before-commit=error

An armed process says so in its log. Nothing else can arm one: no setting, no call, no file.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from muster.kernel.errors import Misconfigured, Unavailable

VARIABLE = "MUSTER_FAILPOINTS"

STEPS: Mapping[str, str] = {
    "migration": "the store's schema is made or brought up to date",
    "found": "an empty Puppet CA is written into the store",
    "import": "another CA's ledger is written into the store",
    "request": "a certificate request is filed for an administrator",
    "sign": "the certificates of one batch are written down: with each goes its request, or another's that it supersedes,"
    " and its token is used up",
    "renew": "a renewed certificate is written down in place of the live one",
    "replace": "a member's own certificate is written down in place of the live one",
    "revoke": "the certificates of some names are revoked, with the list that says so; for a clean, they are removed, too",
    "remove": "a name's certificate and request are removed, nothing is revoked",
    "reject": "a certificate request is removed by an administrator",
    "expire": "requests that waited for too long are removed",
    "refuse": "the audit says that a certificate is not renewed; every other line of the audit goes with its own step",
    "list": "the revocation list is made anew because it ends soon",
    "list-pushed": "the revocation list is written where a puppetserver reads it (a file)",
    "ancestors": "newer revocation lists of the CAs above are taken",
    "autosign-entry": "a name goes on Foreman's autosign list",
    "autosign-entry-gone": "a name leaves Foreman's autosign list",
    "token": "a one-use token is made, an earlier one of its name is void",
    "token-gone": "a name's token is withdrawn",
    "token-use": "a token is used up because a puppetserver asked about it",
    "wish": "somebody wishes a member ready, drained, in maintenance or removed",
    "life": "the steward lets members change: draining, drained, maintenance, removed, ready",
    "minutes": "the steward's sentence is written down",
    "lease": "a role is taken",
    "lease-renewed": "a role is kept for longer",
    "lease-resigned": "a role is given up",
    "document": "a shared plan or setting is replaced or removed",
    "gateway-repositories": "the container gateway is told which images there are",
    "gateway-hosts": "the container gateway is told which hosts there are",
    "gateway-grants": "the container gateway is told who may read which images",
    "gateway-grants-of": "the container gateway is told which images one user or host may read",
    "content-asked": "it is noted which repositories clients ask for",
    "content-version": "a version of a repository is noted, with the list of all it consists of",
    "content-wanted": "a version of what is mirrored is noted, which is to be shown after all before it",
    "content-report": "a member says what it, and its Pulp, have of repositories",
    "content-shown": "a repository shows another version, or something newer is seen",
    "content-forgotten": "repositories and versions are dropped that nobody needs",
    "content-published": "a state of a mirrored repository is noted, and an environment has it",
    "content-promoted": "an environment has other states of mirrored repositories",
    "content-job-asked": "somebody asks for work on mirrored repositories",
    "content-job-taken": "a member begins with such work",
    "content-job-told": "it is said how far such work is, that it has ended, is not wanted, or needs another member",
    "content-publications-forgotten": "states of mirrored repositories are dropped that nobody needs, and old history",
    "content-publications-dropped": "what there was of repositories and environments is dropped that are mirrored no more",
    "content-staged": "it is noted how far each steered Pulp is with what all are to have: its task, version, publication",
    "consumer-package": "the package that hosts install is kept under its number, or whose contents a member has is noted",
    "content-flipped": "it is decided to what the steered Pulps are turned",
    "content-followed": "it is noted that a steered Pulp is turned, or why not",
    "registration-claimed": "a member is the one that asks Foreman for a script that registers hosts",
    "registration-kept": "such a script is kept for all members, ended ones are dropped",
    "registration-released": "a member has no such script to keep, and others may ask",
    "group-begun": "a change of several providers is written down before any hears of it",
    "group-ended": "such a change is crossed out, and it is noted who has not had it",
    "group-recovered": "changes whose members died become repairs of all their providers",
    "group-repaired": "a provider of a group has had a change that it missed",
    "group-repair-put-off": "a provider is still away, and is asked again later",
    "group-repair-refused": "a provider refuses a change that others have had",
    "group-repair-decided": "a person has a repair tried at once, or dropped",
    "group-leader-first": "a group has its first leader",
    "group-led-begun": "a change at the leader of a group begins, and no other one leads before it ends",
    "group-led-ended": "such a change has ended",
    "group-led-on": "changes at a leader begin again, after another one was to lead",
    "group-leader-changed": "a group is led by another provider",
    "dhcp-kea-marked": "it is noted that Kea is told of a change, which it may not have written when somebody dies",
    "dhcp-kea-written": "that is noted no more, since Kea has written it",
    "boot-changed": "boot files are written, linked, fetched or removed, as one version of their tree",
    "boot-confirmed": "a member says which version of the boot files lies on its disk",
    "boot-fenced": "members that have not confirmed a version take no clients until they have it",
    "boot-forgotten": "what is known of boot files that went away long ago, and bytes that no file has, are dropped",
    "dhcp-probing": "addresses are taken to be probed",
    "dhcp-probed": "what came of probing: which addresses are free, and which answered",
    "dhcp-offered": "an address that the DHCP server found itself is promised",
    "dhcp-forgotten": "claims of addresses that have ended are dropped",
    "dhcp-promised": "a free address is promised to whoever asked for one",
    "dhcp-kept": "an address is promised to the machine that has it on the DHCP server",
    "dhcp-reserving": "an address is noted as a machine's, before the DHCP server is told",
    "dhcp-change-begun": "an address and a hardware address are held while their reservation is changed",
    "dhcp-change-ended": "they are held no longer, and what became of the reservation is noted",
    "ipam-promised": "a free address of an IPAM is promised to whoever asked for one",
    "ipam-renewed": "such a promise is kept for longer",
    "ipam-released": "such a promise is dropped by an administrator",
    "ipam-forgotten": "promises of addresses that have ended are dropped",
    "ipam-change-begun": "an address is held while it is changed in the IPAM",
    "ipam-change-ended": "it is held no longer, and it is noted whether it may be promised",
    "ipam-added": "an address is in use, which the store keeps",
    "ipam-removed": "it is in use no longer",
    "boot-fetch-asked": "a boot file is asked for, and the member that was asked fetches it",
    "boot-fetch-taken": "a member goes on with a boot file whose member is silent",
    "boot-fetch-told": "it is said how much of a boot file has come",
    "boot-fetch-ended": "it is said what came of fetching a boot file",
    "boot-fetch-left": "a member that ends lets another one go on with a boot file",
    "boot-fetch-forgotten": "what came of fetching boot files is dropped a day later",
    "boot-story-told": "what happened to machines that boot is written for all members to tell",
    "boot-story-forgotten": "what happened to them long ago, or too often, is dropped",
    "arf-arrived": "a piece of a host's compliance report is kept, of one that comes in several",
    "arf-accepted": "the whole of such a report is kept, and is to be sent to Foreman",
    "arf-claimed": "a member is the one that sends it",
    "arf-sent": "Foreman has it, and it is kept for as long as Foreman may ask for it",
    "arf-put-off": "Foreman has not taken it, and is to be asked again later",
    "arf-refused": "Foreman will never take it",
    "arf-retried": "an administrator has reports sent again at once",
    "arf-removed": "reports are removed, by Foreman, an administrator, or because the rest of one did not come",
    "arf-forgotten": "reports are dropped that are older, or more, than are kept",
    "beat": "a member says what it is",
    "statement": "a member says what it is made of",
    "foreman-version": "what Foreman said of its version is kept for all members",
    "observation": "a balancer says what it sees",
    "observation-ended": "a balancer says that it has ended",
    "log": "log records are shared",
    "backup": "a backup is what its name says (a file)",
    "restored-file": "a file of a backup is in its place (a file)",
    "restored": "an empty store holds all that a backup has of one",
    "bundle": "a certificate and its key become those of a member, client or balancer (a file)",
}
"""What becomes durable, by name."""

ACTIONS: Mapping[str, str] = {
    "kill": "ends the process at once, as `kill -9` does, at the first arrival",
    "error": "raises Unavailable at every arrival, as a store does that goes away there",
    "sleep:S": "stops the whole process for S seconds, up to 60, at every arrival, as a machine does that is paused",
    "…@N": "at the Nth arrival only, counted in this process; a unit that found nothing to change arrives, too",
}
"""What may happen there."""

_BEFORE, _AFTER = ".before-commit", ".after-commit"

POINTS: frozenset[str] = frozenset(f"{step}{place}" for step in STEPS for place in (_BEFORE, _AFTER))
"""Every place that can be armed."""

_LIMIT_CHARACTERS = 4096
_ACTION = re.compile(r"(kill|error|sleep:([0-9]{1,2}(?:\.[0-9]{1,3})?))(?:@([1-9][0-9]{0,5}))?")
_LONGEST_SLEEP_S = 60.0

_Kind = Literal["kill", "error", "sleep"]


@dataclass(frozen=True)
class Action:
    """What happens at a place.

    Attributes:
        at: at which arrival; None: at every one.
    """

    kind: _Kind
    at: int | None = None
    seconds: float = 0.0
    _arrivals: Iterator[int] = field(default_factory=lambda: itertools.count(1), compare=False)

    def happens(self, point: str) -> None:
        """Happen, if this is the arrival.

        Raises:
            Unavailable: as armed.
        """
        # One step of the interpreter: threads arrive, too.
        if next(self._arrivals) != self.at and self.at is not None:
            return
        if self.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "sleep":
            # Not the loop's sleep: a paused process answers nobody.
            time.sleep(self.seconds)
        else:
            raise Unavailable(f"Stopped at {point}, because {VARIABLE} says so")


_armed: dict[str, Action] = {}


def before_commit(step: str) -> None:
    """Mark the last moment at which the step has not happened; in production this does nothing.

    Raises:
        Unavailable: this process was armed to.
    """
    if _armed:
        _arrived(step + _BEFORE)


def after_commit(step: str) -> None:
    """Mark the first moment at which the step has happened for everybody, and nobody was told yet; as before.

    Raises:
        Unavailable: this process was armed to.
    """
    if _armed:
        _arrived(step + _AFTER)


def is_armed(step: str) -> bool:
    """Whether something happens before the step's commit or after it, in this process."""
    return bool(_armed) and not _armed.keys().isdisjoint((step + _BEFORE, step + _AFTER))


def _arrived(point: str) -> None:
    if action := _armed.get(point):
        action.happens(point)


def arm(environment: Mapping[str, str]) -> None:
    """Arm this process as its environment says, and disarm it where that says nothing; called once, at the start.

    Raises:
        Misconfigured: no such place or action, or a place twice; nothing was armed.
    """
    found = parsed(environment.get(VARIABLE, ""))
    _armed.clear()
    _armed.update(found)


def armed() -> str:
    """Return which places are armed, for the log; empty when none is."""
    return ", ".join(sorted(_armed))


def parsed(text: str) -> dict[str, Action]:
    """Return what is armed, by place; nothing for an empty text.

    Raises:
        Misconfigured: no such place or action, or a place twice.
    """
    if len(text) > _LIMIT_CHARACTERS:
        raise Misconfigured(f"{VARIABLE} has more than {_LIMIT_CHARACTERS} characters")
    found: dict[str, Action] = {}
    if not text:
        return found
    import difflib

    # Later: an unarmed process starts without them.
    from muster.kernel.names import shown

    for one in text.split(","):
        point, _, word = one.partition("=")
        if point not in POINTS:
            near = difflib.get_close_matches(point[:80], POINTS, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise Misconfigured(f"{VARIABLE} names {shown(point)}, which is no failpoint{meant}")
        if point in found:
            raise Misconfigured(f"{VARIABLE} names {point} twice")
        found[point] = _action(point, word)
    return found


def _action(point: str, word: str) -> Action:
    from muster.kernel.names import shown

    said = _ACTION.fullmatch(word)
    seconds = float(said[2]) if said is not None and said[2] else 0.0
    if said is None or seconds > _LONGEST_SLEEP_S:
        raise Misconfigured(
            f"{VARIABLE} wants {shown(word)} at {point}, which is none of kill, error and sleep:SECONDS (up to "
            f"{_LONGEST_SLEEP_S:g}), each with @N at the Nth arrival only"
        )
    at = int(said[3]) if said[3] else None
    if said[1] == "kill":
        return Action("kill", at or 1)
    return Action("error" if said[1] == "error" else "sleep", at, seconds)
