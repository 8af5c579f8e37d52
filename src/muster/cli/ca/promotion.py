"""A promotion: what is wanted, the steps that lead there, and how far it is."""

from __future__ import annotations

import asyncio
import shlex
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from muster.cli.ca.answers import bundle_digest, digest_at, unfenced
from muster.cli.ca.progress import progress

if TYPE_CHECKING:
    from muster.authority.moves.promotion import Restorable

_DOCUMENT = "promotion"
_STEPS = ("fence", "restore", "start", "switch", "confirm")
_PAUSE_S = 0.5
# As long as puppetserver's own; it makes a new one with every revocation.
_LIST_DAYS = 1825


@dataclass(frozen=True)
class Promotion:
    """What is wanted, and how far it is.

    Attributes:
        signer: the old one.
        done: steps that are finished; none is ever done again, a restored directory least of all: the new signer may
            have signed since.
        it_is_off: somebody said that the old signer is, and stays off.
    """

    member: str
    signer: str
    copy: str
    into: str
    lists: tuple[str, ...]
    fence: str
    start: str
    gap: int
    done: tuple[str, ...] = ()
    failure: str = ""
    it_is_off: bool = False

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Promotion:
        return cls(**{**content, "lists": tuple(content["lists"]), "done": tuple(content["done"])})


@dataclass(frozen=True)
class Promoting:
    cluster_path: Path
    wait_s: float
    quiet: bool

    async def forget(self, *, dry_run: bool) -> dict[str, Any]:
        from muster.app.settings import cluster_store, loaded
        from muster.cli.change import who
        from muster.store.documents import Documents

        async with cluster_store(loaded(self.cluster_path), changes=not dry_run) as store:
            if dry_run:
                at = await Documents(store).read(_DOCUMENT)
                what = f"Would forget the promotion of {at.content['member']} by {at.changed_by}." if at.version else ""
                return {"done": True, "dry_run": True, "sentence": what or "There is no promotion."}
            there_was = await Documents(store).forget(_DOCUMENT, by=who())
        return {"done": True, "dry_run": False, "sentence": "Forgotten." if there_was else "There was no promotion."}

    async def carried_out(self, wanted: Promotion | None, *, it_is_off: bool, dry_run: bool) -> dict[str, Any]:
        from muster.app.settings import cluster_store, loaded
        from muster.cli.change import who
        from muster.kernel import log
        from muster.kernel.errors import Conflict, MusterError, NotFound
        from muster.store.documents import Document, Documents
        from muster.store.schema import Absent

        log.configure(level="ERROR")
        async with cluster_store(loaded(self.cluster_path), changes=not dry_run) as store:
            kept = Documents(store)
            try:
                at = await kept.read(_DOCUMENT)
            except Absent:
                # No member ever started, as where puppetservers alone sign: nobody has begun a promotion.
                at = Document(_DOCUMENT)
            if wanted is None:
                if at.content is None:
                    raise NotFound("There is no promotion to resume")
                going = replace(Promotion.from_json(at.content), failure="")
            else:
                if at.content is not None and not dry_run:
                    stands = Promotion.from_json(at.content)
                    raise Conflict(
                        f"The promotion of {stands.member} by {at.changed_by} has not ended ({stands.failure}); "
                        "--resume or --forget it first"
                    )
                going = self._checked(wanted)
            going = replace(going, it_is_off=going.it_is_off or it_is_off)
            # Read before anything is changed: a copy that cannot be used must not cost the old signer.
            summary = (await self._restorable(going)).summary() if "restore" not in going.done else {}
            steps = [text for step, text in self._steps(going).items() if step not in going.done]
            result = {"member": going.member, "signer": going.signer, "dry_run": dry_run, "ca": summary}
            if dry_run:
                return {**result, "done": True, "steps": steps, "sentence": "Nothing was changed."}
            at = await kept.replace(at, asdict(going), by=who())
            for step in _STEPS:
                if step in going.done:
                    continue
                self._say(self._steps(going)[step])
                try:
                    await getattr(self, f"_{step}")(going)
                except MusterError as e:
                    await kept.replace(at, asdict(replace(going, failure=f"{step}: {e}")), by=who())
                    sentence = f"Stopped at {step}: {e}. Then muster ca promote --resume (or --forget)."
                    return {**result, "done": False, "stopped_at": step, "sentence": sentence}
                going = replace(going, done=(*going.done, step))
                at = await kept.replace(at, asdict(going), by=who())
            await kept.replace(at, None, by=who())
        sentence = (
            f"{going.member} signs now. Every other host needs {self.cluster_path} as it is here; never let {going.signer} "
            "start with its CA again."
        )
        return {**result, "done": True, "sentence": sentence}

    def _checked(self, wanted: Promotion) -> Promotion:
        from muster.app.settings import loaded
        from muster.cluster.rolling import arguments
        from muster.kernel.errors import Conflict, Unsupported

        cluster = loaded(self.cluster_path)
        if cluster.signer == "any":
            raise Unsupported("Every member signs (signer: any); there is nobody to promote")
        name, old = str(cluster.member(wanted.member).name), str(cluster.signer)
        if name == old:
            raise Conflict(f"{name} is the signer already; nothing was changed")
        for command in (wanted.fence, wanted.start):
            try:
                arguments(shlex.split(command), member=name, address="")
            except ValueError as e:
                raise click.UsageError(f"{command}: {e}") from e
        return replace(wanted, member=name, signer=old)

    async def _restorable(self, going: Promotion) -> Restorable:
        from datetime import UTC, datetime

        from muster.authority.moves.promotion import prepared

        return await asyncio.to_thread(
            prepared,
            Path(going.copy),
            [Path(p) for p in going.lists],
            now=datetime.now(UTC),
            gap=going.gap,
            progress=progress(quiet=self.quiet),
        )

    def _steps(self, going: Promotion) -> dict[str, str]:
        run = f"run {going.fence!r}, then " if going.fence else ""
        started = (
            f"run {going.start!r}" if going.start else f"start puppetserver on {going.member}, its CA service enabled"
        )
        return {
            "fence": f"{run}make sure that {going.signer} answers as a Puppet CA no more",
            "restore": f"put {going.copy} in place as {going.into}, serials {going.gap} further, revocations united",
            "start": f"{started}; wait until it answers as this Puppet CA",
            "switch": f"name {going.member} as signer in {self.cluster_path}",
            "confirm": f"ask for the CA through every balancer; copy {self.cluster_path} to all other hosts first",
        }

    async def _fence(self, going: Promotion) -> None:
        from muster.kernel.errors import Unavailable

        host, port = self._place_of(going.signer)
        if going.fence:
            # It raises unless it succeeds; then a host that answers nothing is what it made of it.
            await self._run(going.fence, going.signer)
        may_be_silent = bool(going.fence) or going.it_is_off
        until = time.monotonic() + (self.wait_s if going.fence else 0)
        while (why := await unfenced(host, port, may_be_silent=may_be_silent)) is not None:
            if time.monotonic() > until:
                raise Unavailable(f"{going.signer} {why}")
            await asyncio.sleep(_PAUSE_S)

    async def _restore(self, going: Promotion) -> None:
        from datetime import UTC, datetime

        from muster.authority.moves.promotion import restored

        # Read again: the fence may have brought a newer copy, and what is put in place must be what was read.
        what = await self._restorable(going)
        aside = await asyncio.to_thread(
            restored, what, Path(going.into), now=datetime.now(UTC), crl_ttl_days=_LIST_DAYS
        )
        self._say(
            f"the next serial is {what.counter:X}, the list's number {what.number}, {what.added} revocations added"
        )
        if aside is not None:
            self._say(f"what was there is in {aside}")

    async def _start(self, going: Promotion) -> None:
        if going.start:
            await self._run(going.start, going.member)
        await self._until_answers(going, [self._place_of(going.member)])

    async def _switch(self, going: Promotion) -> None:
        from muster.cli.candidate import checked
        from muster.cluster.edited import with_signer
        from muster.kernel.files import write_atomically

        path = self.cluster_path
        text = with_signer(path.read_text(), going.member)
        checked(path, text)
        write_atomically(path, text, mode=path.stat().st_mode & 0o777)
        self._say(
            f"copy {path} to every other host now: balancers there lead to {going.signer} until they have it, and the next "
            "step asks them all"
        )

    async def _confirm(self, going: Promotion) -> None:
        from muster.app.offers import modelled
        from muster.app.settings import loaded

        cluster = loaded(self.cluster_path)
        service = modelled(cluster).service("puppetca")
        if service is None or not cluster.balancers:
            self._say("there is no balancer, or it does not offer puppetca")
            return
        places = [(str(cluster.address if b.bind == "*" else b.bind), service.listen_port) for b in cluster.balancers]
        await self._until_answers(going, places)

    async def _until_answers(self, going: Promotion, places: list[tuple[str, int]]) -> None:
        from muster.kernel.errors import Unavailable

        wanted = bundle_digest((Path(going.into) / "ca_crt.pem").read_bytes())
        until = time.monotonic() + self.wait_s
        while True:
            answers = {p: await digest_at(*p) for p in places}
            if all(a == wanted for a in answers.values()):
                return
            if time.monotonic() > until:
                host, port = next(p for p, a in answers.items() if a != wanted)
                said = "another Puppet CA answers" if answers[host, port] else "no Puppet CA answers"
                raise Unavailable(f"{host} port {port}: {said} after {self.wait_s:g} s")
            await asyncio.sleep(_PAUSE_S)

    def _place_of(self, name: str) -> tuple[str, int]:
        """Return where a member's puppetserver listens; the balancer need not lead there."""
        from muster.app.offers import modelled
        from muster.app.settings import loaded
        from muster.kernel.errors import Misconfigured
        from muster.kernel.names import FQDN

        cluster = loaded(self.cluster_path).model_copy(update={"signer": FQDN.parse(name)})
        service = modelled(cluster).service("puppetca")
        if service is None or not service.servers:
            raise Misconfigured("The profile has no service puppetca; services: in the cluster file can add it")
        return service.servers[0].address, service.servers[0].port

    async def _run(self, command: str, name: str) -> None:
        from muster.app.settings import loaded
        from muster.cluster.rolling import arguments
        from muster.kernel.errors import Unavailable
        from muster.kernel.process import run

        address = str(loaded(self.cluster_path).member(name).address)
        words = arguments(shlex.split(command), member=name, address=address)
        said = await run(words, timeout_s=max(self.wait_s, 60.0))
        for line in (said.stdout + said.stderr).splitlines():
            self._say(f"{name} | {line}")
        if said.status != 0:
            raise Unavailable(f"{words[0]} ended with {said.status}")

    def _say(self, sentence: str) -> None:
        click.echo(sentence, err=True)
