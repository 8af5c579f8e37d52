"""``muster drain`` and ``muster ready``: ask a member to take no new clients, or to take them again."""

from __future__ import annotations

import asyncio
import getpass
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from muster.cli import NOT_DONE
from muster.cli.options import (
    cluster_option,
    dry_run_option,
    json_option,
    pki_directory,
    pki_option,
    print_json,
    run_option,
)


@click.command()
@cluster_option
@pki_option
@run_option
@click.argument("member")
@click.option("--reason", default="", help="Shown in status and to the balancer.")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 86400), default=30.0, show_default=True, help="Seconds.")
@click.option("--force", is_flag=True, help="Also when no other member is ready for a service.")
@dry_run_option
@json_option
def drain(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    member: str,
    reason: str,
    wait_s: float,
    force: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Let MEMBER finish what it has and get nothing new; wait until its connections are gone.

    The wish is kept in the store: the member stays drained over restarts until muster ready MEMBER.
    """
    pki = pki_directory(cluster_path, pki_path)
    change = Change(cluster_path, pki, run_path, member, "drain", reason, wait_s, force, dry_run)
    return _reported(asyncio.run(change.carried_out()), as_json)


@click.command()
@cluster_option
@pki_option
@run_option
@click.argument("member")
@click.option("--wait", "wait_s", type=click.FloatRange(0, 86400), default=30.0, show_default=True, help="Seconds.")
@dry_run_option
@json_option
def ready(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    member: str,
    wait_s: float,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Let a drained MEMBER take clients again; wait until it is ready."""
    pki = pki_directory(cluster_path, pki_path)
    change = Change(cluster_path, pki, run_path, member, "ready", "", wait_s, True, dry_run)
    return _reported(asyncio.run(change.carried_out()), as_json)


def _reported(result: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print_json(result)
    else:
        click.echo(result["sentence"])
    return 0 if result["done"] else NOT_DONE


@dataclass(frozen=True)
class Change:
    """A wish for one member, carried out: written to the store and awaited."""

    cluster_path: Path
    pki: Path
    run: Path
    name: str
    wanted: Literal["drain", "ready"]
    reason: str
    wait_s: float
    force: bool
    dry: bool
    min_ready: int = 1

    async def carried_out(self) -> dict[str, Any]:
        from muster.app import cluster_store, loaded
        from muster.balancer.model import modelled
        from muster.balancer.survey import short_of, surveyed
        from muster.cli.credentials import asking_context
        from muster.cluster.roster import Roster
        from muster.kernel import log
        from muster.kernel.errors import Conflict, Unsupported

        # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
        log.configure(level="ERROR")
        cluster = loaded(self.cluster_path)
        member = cluster.member(self.name)
        if member.kind != "muster":
            raise Unsupported(f"{member.name} is a Ruby Smart Proxy and cannot be asked to drain; use the balancer")
        context = asking_context(self.pki)
        balancing = modelled(cluster)
        if self.wanted == "drain" and not self.force:
            short = short_of(await surveyed(balancing, context=context), member.name, self.min_ready)
            if short:
                least = "no ready member" if self.min_ready == 1 else f"fewer than {self.min_ready} ready members"
                text = f"Without {member.name} there would be {least} for {', '.join(short)}; nothing was changed"
                raise Conflict(f"{text} (--force does it)")
        async with cluster_store(cluster) as store:
            roster = Roster(store)
            seen = (await roster.seen()).get(str(member.name))
            before = seen.wish if seen else None
            if self.dry:
                now = before.wanted if before else "ready"
                return self._result(
                    member.name, True, f"Would ask {member.name} to {self.wanted} (it is asked to be {now})."
                )
            expected = before.version if before else None
            await roster.wish(str(member.name), self.wanted, reason=self.reason, by=who(), expected=expected)
            return await self._awaited(roster, str(member.name))

    async def _awaited(self, roster: Any, name: str) -> dict[str, Any]:
        target = "draining" if self.wanted == "drain" else "ready"
        deadline = time.monotonic() + self.wait_s
        sessions: int | None = None
        state = "silent"
        while True:
            seen = (await roster.seen()).get(name)
            state = "silent" if seen is None or seen.silent else seen.report.state
            sessions = await _sessions(self.run, name)
            if state == target and (self.wanted == "ready" or not sessions):
                told = "" if sessions is None else "; the balancer has no connection to it"
                told = told if self.wanted == "drain" else ""
                return self._result(name, True, f"{name} is {'drained' if self.wanted == 'drain' else 'ready'}{told}.")
            if state == "silent" and time.monotonic() > deadline - self.wait_s + 3:
                text = f"{name} does not report; it will be {target} when it runs again."
                return self._result(name, False, text)
            if time.monotonic() > deadline:
                left = f", {sessions} connections left" if sessions else ""
                return self._result(name, False, f"{name} is {state}{left} after {self.wait_s:g} s; the wish stands.")
            await asyncio.sleep(0.25)

    def _result(self, name: str, done: bool, sentence: str) -> dict[str, Any]:
        return {"member": name, "wanted": self.wanted, "dry_run": self.dry, "done": done, "sentence": sentence}


async def _sessions(run: Path, name: str) -> int | None:
    """Connections of the balancer on this host to the member; None when there is no balancer here."""
    from muster.balancer.haproxy.sockets import MasterSocket
    from muster.kernel.errors import MusterError

    socket = run / "master.sock"
    if not socket.exists():
        return None
    try:
        return await MasterSocket(socket).sessions(name.lower())
    except MusterError:
        return None


def who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"
