"""Where a member shall stand, wished and awaited: what drain, ready, maintenance and remove have in common."""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from muster.cli import NOT_DONE
from muster.cli.offered import members
from muster.cli.options import (
    Reason,
    Seconds,
    cluster_option,
    dry_run_option,
    json_option,
    one_line,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)
from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile, Member
    from muster.cluster.observations import Observed
    from muster.cluster.roster import Seen, Wish
    from muster.cluster.view import View
    from muster.store.engine import Store

Target = Literal["ready", "drain", "maintenance", "removed"]
Result = dict[str, Any]

# A steward looks at its lease every few beats; after so long without any there is none.
_NOBODY_DECIDES_S = 8.0
_LONGEST_REASON = 300
_LONGEST_NAME = 64
_DONE: dict[Target, str] = {"ready": "ready", "drain": "drained", "maintenance": "maintenance", "removed": "removed"}


def changes_member(
    wanted: Target, *, wait_s: float = 30.0
) -> Callable[[Callable[[Change], Coroutine[Any, Any, Result]]], Callable[..., int]]:
    """Give a command the change its options describe, await what it makes of it and print that.

    A member that returns takes nothing from anybody: that needs no reason and no force.
    """
    leaving = [
        click.option(
            "--reason", type=Reason(), default="", help="One line for status and balancers, up to 200 characters."
        ),
        click.option(
            "--force",
            is_flag=True,
            help="Also when too few others are ready, it is the only signer, or balancers say nothing.",
        ),
    ]
    options = [
        cluster_option,
        pki_option,
        run_option,
        click.argument("member", shell_complete=members),
        *(leaving if wanted != "ready" else []),
        click.option("--wait", "wait_s", type=Seconds(0, 86400), default=wait_s, show_default=True, help="At most."),
        dry_run_option,
        json_option,
    ]

    def made(command: Callable[[Change], Coroutine[Any, Any, Result]]) -> Callable[..., int]:
        @functools.wraps(command)
        def with_change(
            cluster_path: Path,
            pki_path: Path | None,
            run_path: Path,
            member: str,
            wait_s: float,
            dry_run: bool,
            as_json: bool,
            reason: str = "",
            force: bool = True,
        ) -> int:
            pki = pki_directory(cluster_path, pki_path)
            change = Change(cluster_path, pki, run_path, member, wanted, reason, wait_s, force, dry_run, say=to_stderr)
            return reported(asyncio.run(command(change)), as_json)

        return functools.reduce(lambda decorated, option: option(decorated), reversed(options), with_change)

    return made


def reported(result: Result, as_json: bool) -> int:
    """Print what came of a change and return the exit code."""
    follows = result.pop("steps_follow", False)
    if as_json:
        print_json(result)
    else:
        steps = [f"  {number}. {step}" for number, step in enumerate(result.get("steps", ()), 1)]
        for text in [result["sentence"], *steps] if follows else [*steps, result["sentence"]]:
            click.echo(one_line(text))
    return 0 if result["done"] else NOT_DONE


def to_stderr(sentence: str) -> None:
    click.echo(one_line(sentence), err=True)


def _silently(_sentence: str) -> None:
    return


@dataclass(frozen=True)
class Change:
    """A wish for one member, carried out: written to the store and awaited.

    Attributes:
        min_ready: None: the cluster file's.
        say: hears of progress.
        over: the version of the wish that it replaces; None: of whichever stands.
    """

    cluster_path: Path
    pki: Path
    run: Path
    name: str
    wanted: Target
    reason: str
    wait_s: float
    force: bool
    dry: bool
    min_ready: int | None = None
    say: Callable[[str], None] = field(default=_silently)
    over: int | None = None

    async def carried_out(self) -> Result:
        from muster.app.settings import cluster_store, loaded
        from muster.cluster.roster import Roster
        from muster.kernel import log
        from muster.kernel.errors import Unsupported

        # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
        log.configure(level="ERROR")
        cluster = loaded(self.cluster_path)
        member = cluster.member(self.name)
        if member.kind != "muster" and not cluster.balancers:
            raise Unsupported(f"{member.name} is a Ruby Smart Proxy: only a balancer drains it, and there is none")
        await self._allowed(cluster, member)
        async with cluster_store(cluster, changes=not self.dry) as store:
            name = str(member.name)
            before = (await Roster(store).wishes()).get(name)
            if self.dry:
                waits = await self._foreseen(store, cluster, name)
                now = _standing(before.target if before else "ready")
                text = f"Nothing was changed; {name} is wished to be {now} now."
                return {**self._result(name, True, text), "steps": [*waits, *self.steps(name, member.kind)]}
            wish = await Roster(store).wish(
                name,
                self.wanted,
                reason=self.reason,
                by=who(),
                expected=self.over if self.over is not None else before.version if before else None,
                forced=self.force and self.wanted != "ready",
            )
            return await self._awaited(store, cluster, name, wish, before)

    def steps(self, name: str, kind: str = "muster") -> list[str]:
        """Return what would happen, in order."""
        if self.wanted == "ready":
            return [f"let {name} take clients while balancers hold it drained and check it", f"admit {name}"]
        asked = f"balancers send nothing new to {name}"
        leaving = f"; it asks its clients to leave (at most {self.wait_s:g} s are waited)" if kind == "muster" else ""
        further = {
            "maintenance": [f"balancers stop checking {name}"],
            "removed": [f"balancers forget {name} at their next reload"],
        }
        return [asked + leaving, f"wait until no balancer has a connection to {name}", *further.get(self.wanted, [])]

    async def _allowed(self, cluster: ClusterFile, member: Member) -> None:
        """Refuse what would leave too few ready, before anybody is asked; the steward looks once more."""
        from muster.app.offers import modelled
        from muster.cli.credentials import credentials
        from muster.cluster.checks import unsigned
        from muster.kernel.errors import Conflict
        from muster.observed.survey import short_of, surveyed

        if self.wanted == "ready":
            return
        if self.force:
            if why := unsigned(cluster, str(member.name)):
                self.say(f"{member.name} is the only signer{why}")
            return
        if member.name == cluster.signer:
            raise Conflict(
                f"{member.name} is the only signer: without it no Puppet certificate can be signed; nothing was changed "
                "(--force does it)"
            )
        least = cluster.min_ready if self.min_ready is None else self.min_ready
        short = short_of(await surveyed(modelled(cluster), credentials(self.pki, cluster)), member.name, least)
        if short:
            few = "no ready member" if least == 1 else f"fewer than {least} ready members"
            planned = "; ".join(self.steps(str(member.name), member.kind))
            raise Conflict(
                f"Without {member.name} there would be {few} for {', '.join(short)}; nothing was changed "
                f"(--force does it). Planned was: {planned}"
            )

    async def _foreseen(self, store: Store, cluster: ClusterFile, name: str) -> list[str]:
        """Return what a steward would wait for first.

        Raises:
            Conflict: it would not carry the wish out.
        """
        from dataclasses import replace

        from muster.cluster.decide import decided
        from muster.cluster.roster import Wish
        from muster.cluster.view import view
        from muster.kernel.errors import Conflict

        if self.wanted == "ready":
            return []
        goal = self.wanted if self.wanted in ("maintenance", "removed") else None
        wish = Wish("drain", self.reason, who(), 1, goal, self.force)
        now = await view(store, cluster)
        # Only this wish is looked at: what others wait for is theirs.
        members = tuple(replace(m, wish=wish) if m.name == name else m for m in now.members)
        decision = decided(replace(now, members=members))
        if why := decision.held.get(name):
            raise Conflict(
                f"{name} would not be {_standing(self.wanted)}: {why}; nothing was changed (--force does it)"
            )
        return [f"wait, because {why}"] if (why := decision.waiting.get(name)) else []

    async def _awaited(self, store: Store, cluster: ClusterFile, name: str, wish: Wish, before: Wish | None) -> Result:
        from muster.cluster.decide import absence
        from muster.cluster.life import Lives, spoken
        from muster.cluster.minutes import minutes
        from muster.cluster.observations import Observations
        from muster.cluster.roster import Roster
        from muster.cluster.view import view
        from muster.kernel.errors import Conflict

        def absent(now: View) -> str:
            # Its life says ready, whatever became of it since.
            return next((f"it {why}" for m in now.members if m.name == name and (why := absence(m))), "")

        started = time.monotonic()
        told = ""
        while True:
            life = (await Lives(store).all()).get(name)
            said = await minutes(store)
            state = life.state if life else "joining"
            shut = lost = ""
            if state == self.wanted == "ready":
                shut, lost = _shut(cluster, await Observations(store).all(), name), absent(await view(store, cluster))
            if state == _DONE[self.wanted] and not shut and not lost:
                # Who is forced may have been given up with connections that nobody counts.
                left = "; no balancer has a connection to it" if self.wanted == "drain" and not self.force else ""
                if self.wanted == "ready":
                    left = _lacking((await Roster(store).seen()).get(name))
                return self._result(name, True, f"{name} is {_standing(self.wanted)}{left}.")
            waited_s = time.monotonic() - started
            why = said.held.get(name)
            # What is forced is not held; a refusal that stands there is of an earlier wish.
            if why and state == "ready" and not self.force:
                # Withdrawn, or it would be carried out some day when nobody expects it any more.
                target: Target = before.target if before else "ready"
                await Roster(store).wish(name, target, reason="withdrawn", by=who(), expected=wish.version)
                raise Conflict(f"{name} was not {_standing(self.wanted)}: {why}; nothing was changed (--force does it)")
            if not said.by and waited_s > _NOBODY_DECIDES_S:
                text = f"No member and no balancer reports to the store, so nobody decides; the wish for {name} stands."
                return self._result(name, False, text)
            waiting = lost or shut or said.waiting.get(name, "")
            progress = f"{name} is {'not ' if lost else ''}{spoken(state)}{': ' + waiting if waiting else ''}"
            if waited_s > self.wait_s:
                return self._result(name, False, f"{progress} after {self.wait_s:g} s; the wish stands.")
            # That it is ready before it is drained says nothing yet.
            begins = state == "ready" and self.wanted != "ready" and not waiting
            if progress != told and not begins:
                self.say(progress)
                told = progress
            await asyncio.sleep(0.2)

    def _result(self, name: str, done: bool, sentence: str) -> Result:
        return {"member": name, "wanted": self.wanted, "dry_run": self.dry, "done": done, "sentence": sentence}


def _shut(cluster: ClusterFile, told: Mapping[str, Observed], name: str) -> str:
    """Return which live balancers have not heard yet that an admitted member takes clients; empty when all have."""
    late = [
        b.name
        for b in cluster.balancers
        if (o := told.get(b.name)) is not None and not o.silent and name.lower() in (o.observation.held or ())
    ]
    return f"{', '.join(late)} has not let it in yet" if late else ""


def _lacking(seen: Seen | None) -> str:
    """Return for which services a member that takes clients is not ready, and why, as it says itself."""
    by_why: dict[str, list[str]] = {}
    for service, said in sorted(seen.report.readiness.items()) if seen is not None else ():
        if said.get("state") == "unready":
            by_why.setdefault(said.get("reason", ""), []).append(service)
    return "".join(
        f", but not for {', '.join(services)}: {shown(why, _LONGEST_REASON)}" for why, services in by_why.items()
    )


def _standing(target: Target) -> str:
    return "in maintenance" if target == "maintenance" else _DONE[target]


def who() -> str:
    """Return the name of whoever gives the command, as the store keeps it and others are shown it."""
    import getpass

    try:
        # The environment has the first word, and may say anything.
        return shown(getpass.getuser(), _LONGEST_NAME)
    except (KeyError, OSError):
        return "somebody"
