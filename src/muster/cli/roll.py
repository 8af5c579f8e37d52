"""``muster roll``: a command on one member after another, each drained before and ready again after."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli import NOT_DONE
from muster.cli.offered import members
from muster.cli.options import (
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

if TYPE_CHECKING:
    from muster.cli.change import Change
    from muster.cluster.file import ClusterFile
    from muster.cluster.rolling import Roll
    from muster.store.documents import Document
    from muster.store.engine import Store

_DOCUMENT = "roll"


@click.command(context_settings={"ignore_unknown_options": True})
@cluster_option
@pki_option
@run_option
@click.option("--member", "only", multiple=True, shell_complete=members, help="Only these members. [default: all]")
@click.option(
    "--min-ready",
    type=click.IntRange(0, 200),
    help="Ready members each service keeps; 0: none, and the only signer may go. [default: the cluster file's]",
)
@click.option("--wait", "wait_s", type=Seconds(1, 86400), default=60.0, show_default=True, help="For drain and ready.")
@click.option("--timeout", "timeout_s", type=Seconds(1, 86400), default=900.0, show_default=True, help="Of COMMAND.")
@click.option("--resume", is_flag=True, help="Go on with the roll that stopped, beginning with the member that is out.")
@click.option("--forget", is_flag=True, help="Forget the roll that stopped; its member stays as it is.")
@dry_run_option
@json_option
@click.argument("command", nargs=-1, metavar="-- COMMAND [ARGS]...")
def roll(
    cluster_path: Path,
    pki_path: Path | None,
    run_path: Path,
    only: tuple[str, ...],
    min_ready: int | None,
    wait_s: float,
    timeout_s: float,
    resume: bool,
    forget: bool,
    dry_run: bool,
    as_json: bool,
    command: tuple[str, ...],
) -> int:
    """Drain a member, run COMMAND here, wait until the member is ready again; then the next one.

    {member} and {address} in COMMAND become the member's, e.g. ssh {member} apt-get -y upgrade. COMMAND has your
    environment, and what it says is shown as it comes. It stops at the first failure and leaves that member as it is;
    --resume goes on from there, from any host that reaches the store. --wait is for each drain and each return, --timeout
    for COMMAND. A roll that would leave a service fewer than --min-ready members begins with nobody. A member that is in
    maintenance or drained already is left alone.
    """
    if sum((bool(command), resume, forget)) != 1:
        raise click.UsageError("Give a COMMAND after --, or --resume, or --forget")
    rolling = _Rolling(
        cluster_path, pki_directory(cluster_path, pki_path), run_path, only, min_ready, wait_s, timeout_s, as_json
    )
    work = rolling.forget(dry_run=dry_run) if forget else rolling.carried_out(command, resume=resume, dry_run=dry_run)
    result = asyncio.run(work)
    if as_json:
        print_json(result)
    else:
        click.echo(result["sentence"])
    return 0 if result["done"] else NOT_DONE


class Outdone(Exception):
    """Somebody wished something else of the member that is out."""


@dataclass(frozen=True)
class _Rolling:
    cluster_path: Path
    pki: Path
    run: Path
    only: tuple[str, ...]
    min_ready: int | None
    wait_s: float
    timeout_s: float
    quiet: bool

    async def forget(self, *, dry_run: bool) -> dict[str, Any]:
        from muster.app.settings import cluster_store, loaded
        from muster.cli.change import who
        from muster.store.documents import Documents

        async with cluster_store(loaded(self.cluster_path), changes=not dry_run) as store:
            kept = Documents(store)
            if dry_run:
                at = await kept.read(_DOCUMENT)
                text = f"Would forget the roll that {_standing(at)}" if at.version else "There is no roll."
                return {"done": True, "dry_run": True, "sentence": text}
            there_was = await kept.forget(_DOCUMENT, by=who())
        return {"done": True, "sentence": "Forgotten." if there_was else "There was no roll."}

    async def carried_out(self, command: tuple[str, ...], *, resume: bool, dry_run: bool) -> dict[str, Any]:
        from muster.app.settings import cluster_store, loaded
        from muster.cli.change import who
        from muster.cluster.rolling import Roll, arguments
        from muster.kernel import log
        from muster.kernel.errors import Conflict, MusterError, NotFound, Unsupported
        from muster.store.documents import Documents

        log.configure(level="ERROR")
        cluster = loaded(self.cluster_path)
        async with cluster_store(cluster, changes=not dry_run) as store:
            kept = Documents(store)
            at = await kept.read(_DOCUMENT)
            if resume:
                if not at.version:
                    raise NotFound("There is no roll to resume")
                going = Roll.from_json(at.content)
            else:
                if at.version:
                    raise Conflict(f"A roll {_standing(at)}; --resume or --forget it first")
                chosen = [cluster.member(m) for m in self.only] or list(cluster.members)
                if not cluster.balancers and (ruby := [str(m.name) for m in chosen if m.kind != "muster"]):
                    raise Unsupported(
                        f"{', '.join(ruby)}: only a balancer drains a Ruby Smart Proxy, and there is none"
                    )
                going = Roll(command, tuple(str(m.name) for m in chosen))
            named = frozenset() if resume else frozenset(str(cluster.member(m).name) for m in self.only)
            going = await self._spared(store, going, named)
            addresses = {str(m.name): m.address for m in cluster.members}
            commands = {
                m: arguments(going.command, member=m, address=addresses[cluster.member(m).name])
                for m in going.remaining
            }
            await self._possible(cluster, store, going)
            if dry_run:
                return self._planned(going, commands)
            for name, words in commands.items():
                going = await self._spared(store, going)
                if name in going.passed:
                    continue
                going = going.begun(name)
                at = await kept.replace(at, going.as_json(), by=who())
                try:
                    await self._one(store, name, words, self._least(cluster))
                except Outdone as e:
                    # Somebody decided otherwise while the command ran, and has the last word.
                    going = going.finished(name)
                    self._say(f"{name}: {e}; it is left as it is")
                    at = await kept.replace(at, going.as_json(), by=who())
                    continue
                except MusterError as e:
                    going = going.failed(name, str(e))
                    await kept.replace(at, going.as_json(), by=who())
                    text = (
                        f"Stopped at {name}: {e}. {await self._left(store, name)}; mend it, then muster roll --resume "
                        "(or --forget)."
                    )
                    return {"done": False, "sentence": text, "roll": going.as_json()}
                going = going.finished(name)
                at = await kept.replace(at, going.as_json(), by=who())
            if at.version:
                await kept.replace(at, None, by=who())
            alone = f" Left alone: {', '.join(going.passed)}." if going.passed else ""
            text = f"Rolled over {len(going.done)} members.{alone}"
            return {"done": True, "sentence": text, "roll": going.as_json()}

    async def _spared(self, store: Store, going: Roll, named: frozenset[str] = frozenset()) -> Roll:
        """Return the roll without the members that somebody wants out by now.

        Raises:
            Conflict: one of them was asked for by name.
        """
        from muster.cluster.rolling import wanted_out
        from muster.cluster.roster import Roster
        from muster.kernel.errors import Conflict

        out = wanted_out(going, await Roster(store).wishes())
        if asked := sorted(named & out.keys()):
            raise Conflict(
                f"{asked[0]} is {out[asked[0]]}; a roll would take it back into service. Say muster ready {asked[0]} first, "
                "or run the command there yourself; nothing was changed"
            )
        for member, why in out.items():
            self._say(f"{member}: left alone, {why}")
        return going.left_alone(*out)

    def _least(self, cluster: ClusterFile) -> int:
        """Return how many ready members a service keeps: the steward holds what the cluster file says in any case."""
        return 0 if self.min_ready == 0 else max(cluster.min_ready, self.min_ready or 0)

    async def _possible(self, cluster: ClusterFile, store: Store, going: Roll) -> None:
        """Refuse a roll that would be refused on its way."""
        from muster.app.offers import modelled
        from muster.cli.credentials import credentials
        from muster.cluster.life import LEAVING, Lives
        from muster.cluster.rolling import shortages
        from muster.kernel.errors import Conflict
        from muster.observed.survey import surveyed

        if self.min_ready == 0:
            return
        remedy = "nothing was changed (--min-ready 0 does it)"
        if cluster.signer in going.remaining:
            raise Conflict(
                f"{cluster.signer} is the only signer: while it is out no Puppet certificate can be signed; {remedy}"
            )
        answers = await surveyed(modelled(cluster), credentials(self.pki, cluster))
        names = [m.name.lower() for m in cluster.members]
        serves = {n: frozenset(a.service for a in answers if a.member == n) for n in names}
        # A Ruby member that is drained does not know of it and answers as ever.
        leaving = {n.lower() for n, life in (await Lives(store).all()).items() if life.state in LEAVING}
        ready = {
            n: frozenset(a.service for a in answers if a.member == n and a.standing == "ready" and n not in leaving)
            for n in names
        }
        least = self._least(cluster)
        short = shortages(going, ready, serves, least)
        if short:
            few = "no ready member" if least == 1 else f"fewer than {least} ready members"
            each = "; ".join(f"without {name} for {', '.join(services)}" for name, services in short.items())
            raise Conflict(f"There would be {few} {each}; {remedy}")

    async def _left(self, store: Store, name: str) -> str:
        from muster.cluster.life import Lives
        from muster.cluster.rolling import left
        from muster.cluster.roster import Roster

        life, wish = (await Lives(store).all()).get(name), (await Roster(store).wishes()).get(name)
        return left(life.state if life else "joining", wish.target if wish else "ready")

    def _planned(self, going: Roll, commands: dict[str, list[str]]) -> dict[str, Any]:
        import shlex

        steps = [
            step
            for name, words in commands.items()
            for step in (f"drain {name}", f"run {shlex.join(words)}", f"wait until {name} is ready")
        ]
        steps += [f"leave {name} alone: somebody wants it out" for name in going.passed]
        listed = "\n".join(f"  {n}. {s}" for n, s in enumerate(steps, 1))
        return {"done": True, "dry_run": True, "steps": steps, "sentence": f"Would:\n{listed}", "roll": going.as_json()}

    async def _one(self, store: Store, name: str, words: list[str], least: int) -> None:
        import shlex

        from muster.cli.change import Change
        from muster.cluster.rolling import REASON
        from muster.cluster.roster import Roster
        from muster.kernel.errors import Unavailable
        from muster.kernel.process import follow

        self._say(f"{name}: to be drained")
        await self._wished(Change(
            self.cluster_path, self.pki, self.run, name, "drain", REASON, self.wait_s,
            self.min_ready == 0, False, least, self._say,
        ))  # fmt: skip
        drained = (await Roster(store).wishes())[name]
        self._say(f"{name}: running {shlex.join(words)}")
        status = await follow(words, timeout_s=self.timeout_s, heard=lambda line: self._say(f"{name} | {line}"))
        if status != 0:
            raise Unavailable(f"{words[0]} ended with {status}")
        self._say(f"{name}: waiting until it is ready")
        wish = (await Roster(store).wishes())[name]
        if (wish.version, wish.reason) != (drained.version, REASON):
            raise Outdone(f"meanwhile {wish.as_reason()}")
        await self._wished(
            Change(
                self.cluster_path, self.pki, self.run, name, "ready", "", self.wait_s, True, False, over=wish.version
            )
        )
        await self._answering(name)
        self._say(f"{name}: ready")

    async def _wished(self, change: Change) -> None:
        from muster.kernel.errors import Unavailable

        result = await change.carried_out()
        if not result["done"]:
            raise Unavailable(result["sentence"].rstrip("."))

    async def _answering(self, name: str) -> None:
        """Wait until the member itself says ready to the balancer's question for every service it serves."""
        from muster.app.offers import modelled
        from muster.app.settings import loaded
        from muster.cli.credentials import credentials
        from muster.kernel.errors import Unavailable
        from muster.observed.survey import surveyed

        cluster = loaded(self.cluster_path)
        balancing, shown = modelled(cluster), credentials(self.pki, cluster)
        why = ""
        try:
            async with asyncio.timeout(self.wait_s):
                while True:
                    answers = await surveyed(balancing, shown)
                    unready = [a for a in answers if a.member == name.lower() and a.standing != "ready"]
                    if not unready:
                        return
                    why = f"{unready[0].service}: {unready[0].reason}"
                    await asyncio.sleep(0.5)
        except TimeoutError:
            raise Unavailable(f"it is not ready after {self.wait_s:g} s ({why})") from None

    def _say(self, sentence: str) -> None:
        click.echo(sentence, err=self.quiet)


def _standing(at: Document) -> str:
    """Return in a clause by whom the stored roll is, and where it stands."""
    from muster.cluster.rolling import Roll

    stopped = Roll.from_json(at.content)
    where = f"{stopped.out}: {stopped.failure}" if stopped.failure else stopped.out or "between members"
    return one_line(f"by {at.changed_by} stands at {where}")
