"""Leads Pulps to the same content: stages it in all of them, decides, and turns them, now and whenever one comes back.

What comes next is decided elsewhere (:mod:`muster.content.steered.decide`); here it is done, and written down before and
after. Whoever goes on after a crash reads how far each Pulp was, and looks at the task it was at.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from muster.cluster.steered import Steered, SteeredRepository
from muster.content.backend import BadGateway, GatewayTimeout
from muster.content.mirror.jobs import Outcome, Progress, Run
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Job, JobKind
from muster.content.steered.decide import Step, decided
from muster.content.steered.ledger import Steerings, chosen
from muster.content.steered.pulps import SteeredPulp
from muster.content.steered.reached import Reached
from muster.content.steered.stages import At, Flip, Stage, Turned
from muster.kernel import log
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.store.leases import Lease

_log = log.logger("content")

_PAUSE_S = 0.5
# The store may change hands meanwhile.
_UNANSWERED_S = 60.0
# Of these the Pulp may answer a moment later as if nothing had been.
_AWAY = (Unavailable, GatewayTimeout, BadGateway)
# How often a Pulp that is behind has its repository synchronised anew, where the last time did not help.
_ASKED_AGAIN_S = 600.0
_CATCHING_UP = "the schedule, for {pulp} is behind"


class Opens(Protocol):
    """Reaches the Pulps."""

    def opened(self) -> AbstractAsyncContextManager[Reached]:
        """As :meth:`muster.content.steered.reached.Reach.opened`."""


class Steering:
    """What the process that has the role does. One loop; jobs run one at a time, and beats beside them.

    Args:
        ledger: of jobs.
    """

    def __init__(self, settings: Steered, steerings: Steerings, ledger: Ledger, reach: Opens) -> None:
        self._settings, self._steerings, self._ledger, self._reach = settings, steerings, ledger, reach
        self._told: dict[tuple[str, str], tuple[int, str]] = {}
        self._asked: dict[tuple[str, str], float] = {}

    def runs_beside(self, runs: Mapping[JobKind, Run]) -> dict[JobKind, Run]:
        """Return what does jobs, by kind: those of steered repositories here, the others as before."""

        def chosen_by_name(ours: Run, other: Run | None) -> Run:
            async def run(job: Job, progress: Progress, lease: Lease | None) -> Outcome:
                if job.repository in self._settings.repositories or other is None:
                    return await ours(job, progress, lease)
                return await other(job, progress, lease)

            return run

        return {
            **runs,
            "sync": chosen_by_name(self.synchronise, runs.get("sync")),
            "publish": chosen_by_name(self.publish, runs.get("publish")),
        }

    async def synchronise(self, job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        """Have all Pulps fetch what the origin has now, and turn them to it.

        Raises:
            Rejected: no Pulp has it, or they never get the same; nothing was changed.
        """
        wanted = self._wanted(job)
        stage = await self._steerings.stage(job.repository)
        if stage is None or stage.job != job.id:
            stage = Stage(job.repository, job.id, pulps={name: At() for name in self._settings.pulps})
            await self._put(stage, lease=lease)
        return await self._carried_out(stage, wanted, job, progress, lease)

    async def publish(self, job: Job, progress: Progress, lease: Lease | None) -> Outcome:
        """Have all Pulps publish older content again, as something newer, and turn them to it.

        Raises:
            NotFound: nothing like it is remembered.
            Rejected: no Pulp has it any more, or the origin has signed it; nothing was changed.
        """
        wanted = self._wanted(job)
        stage = await self._steerings.stage(job.repository)
        if stage is None or stage.job != job.id:
            known = await self._steerings.flips(job.repository)
            of = chosen(known, job.repository, job.publication)
            # One that was away at one time may have been there at another.
            had = {name: one for f in reversed(known) if f.digest == of.digest for name, one in f.pulps.items()}
            pulps = {
                name: At(version=had[name].version, digest=of.digest, packages=of.packages)
                if name in had else At("left", why=f"it never had {of.digest[:12]}")
                for name in self._settings.pulps
            }  # fmt: skip
            stage = Stage(job.repository, job.id, of=of.digest, pulps=pulps)
            await self._put(stage, lease=lease)
        return await self._carried_out(stage, wanted, job, progress, lease)

    def _wanted(self, job: Job) -> SteeredRepository:
        wanted = self._settings.repositories.get(job.repository)
        if wanted is None:
            raise Rejected(
                f"{job.repository} is not steered: the cluster file of the member that was to do it, as it was when that "
                "started, does not name it; restart members after a change (muster roll)"
            )
        return wanted

    async def _carried_out(
        self, stage: Stage, wanted: SteeredRepository, job: Job, progress: Progress, lease: Lease | None
    ) -> Outcome:
        async with self._reach.opened() as reached:
            stage = await self._staged(stage, wanted, reached, progress, lease)
            there = {name: at for name, at in stage.pulps.items() if at.is_in}
            one = next(iter(there.values()))
            await progress(0, 0, f"turning {', '.join(sorted(there))}")
            flip, is_new = await self._steerings.flip(
                stage, {name: Turned(at.version, at.publication) for name, at in there.items()},
                digest=one.digest, packages=one.packages, by=job.asked_by, lease=lease,
            )  # fmt: skip
            behind = await self._all_turned(flip, wanted, reached)
        return _outcome(stage, flip, behind, is_new=is_new, digest=one.digest)

    async def _staged(
        self, stage: Stage, wanted: SteeredRepository, reached: Reached, progress: Progress, lease: Lease | None
    ) -> Stage:
        """Return the stage when all Pulps that are not gone on without have a publication of the same content."""
        known = await self._steerings.flips(stage.repository)
        ours = [f for f in known if not f.of]
        loop = asyncio.get_running_loop()
        before, done = loop.time(), dict[str, Mapping[str, int]]()
        while True:
            found = decided(stage, self._settings.wait_s)
            if found.stage != stage:
                stage = found.stage
                await self._put(stage, lease=lease)
            if found.ends == "flip":
                return stage
            if found.ends == "fail":
                raise Rejected(f"{stage.repository}: {found.why}")
            await progress(*_said(stage, found.steps, done))
            now = loop.time()
            elapsed, before = now - before, now
            ended = max((at.ended for at in stage.pulps.values()), default=0)
            made = await asyncio.gather(*(
                self._step(stage, name, step, wanted, reached, ended + 1 + n, elapsed, done,
                           [f.pulps[name] for f in ours if name in f.pulps])
                for n, (name, step) in enumerate(sorted(found.steps.items()))
            ))  # fmt: skip
            after = stage
            for name, at in zip(sorted(found.steps), made, strict=True):
                after = after.having(name, at)
            if _durable(after) != _durable(stage):
                await self._put(after, lease=lease)
                stage = after
                continue
            stage = after
            await asyncio.sleep(_PAUSE_S)

    async def _put(self, stage: Stage, *, lease: Lease | None) -> None:
        """Write down how far Pulps are, before they go further: a store that is away for a moment ends no long work."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _UNANSWERED_S
        while True:
            try:
                return await self._steerings.put(stage, lease=lease)
            except Unavailable:
                if loop.time() > until:
                    raise
            await asyncio.sleep(_PAUSE_S)

    async def _step(
        self,
        stage: Stage,
        name: str,
        step: Step,
        wanted: SteeredRepository,
        reached: Reached,
        number: int,
        elapsed: float,
        done: dict[str, Mapping[str, int]],
        known: list[Turned],
    ) -> At:
        """Do what one Pulp is next at; return how far it is then, also where it does not answer or refuses."""
        at, repository = stage.pulps[name], stage.repository
        try:
            pulp = reached.pulps.get(name)
            if pulp is None:
                raise Misconfigured(reached.absent.get(name, "it is not named any more"))
            match step:
                case "ensure":
                    href = await pulp.ensured(repository, wanted)
                    if stage.of:
                        await pulp.refuse_signed(wanted.kind, at.version)
                        return dataclasses.replace(at, phase="synced", repository=href, why="", away_s=0.0)
                    return At("ready", href, tries=at.tries)
                case "sync":
                    # What was fetched a moment ago was not what others have, or failed.
                    anew = stage.rounds > 0 or at.tries > 0
                    task = await pulp.begun(repository, wanted.kind, at.repository, anew=anew)
                    return dataclasses.replace(at, phase="syncing", task=task, why="", away_s=0.0)
                case "look":
                    found, done[name] = await pulp.looked(at, number)
                    return found
                case "read":
                    return await pulp.read(wanted.kind, at)
                case "publish":
                    return await pulp.published(wanted.kind, at, known, again=bool(stage.of))
        except _AWAY as e:
            return dataclasses.replace(at, away_s=at.away_s + max(elapsed, 0.001), why=str(e))
        except MusterError as e:
            _log.info("A Pulp failed at a step", pulp=name, repository=repository, step=step, why=str(e))
            kept = {"version": at.version, "digest": at.digest, "packages": at.packages} if stage.of else {}
            return dataclasses.replace(At(**kept), tries=at.tries + 1, why=str(e))  # type: ignore[arg-type]

    async def _all_turned(self, flip: Flip, wanted: SteeredRepository, reached: Reached) -> dict[str, str]:
        """Turn the Pulps to what was decided; return why some are not, by their names."""

        async def turned(name: str) -> str:
            pulp = reached.pulps.get(name)
            try:
                if pulp is None:
                    raise Misconfigured(reached.absent.get(name, "it is not named any more"))
                await _turned(pulp, flip, flip.pulps[name], await pulp.turned(wanted.kind))
            except MusterError as e:
                await self._tell(flip, name, str(e))
                return str(e)
            await self._tell(flip, name, "")
            return ""

        await self._recall()
        names = sorted(flip.pulps)
        said = dict(zip(names, await asyncio.gather(*map(turned, names)), strict=True))
        return {name: why for name, why in said.items() if why}

    async def _recall(self) -> None:
        """Read what is noted of Pulps: another process may have had the role meanwhile."""
        self._told = {(f.repository, f.pulp): (f.generation, f.why) for f in await self._steerings.followers()}

    async def _tell(self, flip: Flip, pulp: str, why: str) -> None:
        """Note whether a Pulp is where it shall be, where that is new."""
        key = flip.repository, pulp
        had = self._told.get(key, (0, ""))
        now = (had[0], why) if why else (flip.generation, "")
        if now != had:
            await self._steerings.follows(flip.repository, pulp, *now)
            _log.info(
                "A Pulp follows" if not why else "A Pulp does not follow",
                pulp=pulp,
                repository=flip.repository,
                why=why,
            )
        self._told[key] = now

    async def beat(self) -> None:
        """Look whether each Pulp is turned to what was decided, and bring along those that are not.

        One that was gone on without, or has lost what it was turned to, has its repository synchronised.

        Raises:
            Unavailable: the store does not answer.
        """
        await self._recall()
        newest = {r: f for r, f in (await self._steerings.newest()).items() if r in self._settings.repositories}
        if not newest:
            return
        async with self._reach.opened() as reached:
            await asyncio.gather(*(self._look_at(name, newest, reached) for name in self._settings.pulps))

    async def _look_at(self, name: str, newest: Mapping[str, Flip], reached: Reached) -> None:
        pulp = reached.pulps.get(name)
        of_kinds: dict[str, dict[str, tuple[str, str]] | MusterError] = {}
        for repository, flip in sorted(newest.items()):
            wanted = self._settings.repositories[repository]
            if wanted.kind not in of_kinds:
                try:
                    if pulp is None:
                        raise Misconfigured(reached.absent.get(name, "it is not named any more"))
                    of_kinds[wanted.kind] = await pulp.turned(wanted.kind)
                except MusterError as e:
                    of_kinds[wanted.kind] = e
            there = of_kinds[wanted.kind]
            if pulp is None or isinstance(there, MusterError):
                await self._tell(flip, name, str(there))
                continue
            try:
                if name not in flip.pulps:
                    raise NotFound(f"it was gone on without when {flip.digest[:12]} was published")
                await _turned(pulp, flip, flip.pulps[name], there)
            except _AWAY as e:
                await self._tell(flip, name, str(e))
            except MusterError as e:
                await self._tell(flip, name, str(e))
                await self._ask(flip, name)
            else:
                await self._tell(flip, name, "")

    async def _ask(self, flip: Flip, pulp: str) -> None:
        """Have a Pulp caught up that cannot be turned to what was decided."""
        now, key = asyncio.get_running_loop().time(), (flip.repository, pulp)
        if now < self._asked.get(key, 0.0):
            return
        by = _CATCHING_UP.format(pulp=pulp)
        if not flip.of:
            await self._ledger.ask("sync", flip.repository, "", by)
        elif any(pulp in f.pulps for f in await self._steerings.flips(flip.repository) if f.digest == flip.digest):
            # Somebody had older content published again, and the origin has something else.
            await self._ledger.ask("publish", flip.repository, "", by, publication=flip.digest)
        self._asked[key] = now + _ASKED_AGAIN_S


async def _turned(pulp: SteeredPulp, flip: Flip, to: Turned, there: Mapping[str, tuple[str, str]]) -> None:
    if flip.repository not in there:
        raise NotFound(f"{pulp.name} has no distribution of {flip.repository} any more")
    distribution, leads = there[flip.repository]
    if leads != to.publication:
        await pulp.turn(distribution, to)


def _durable(stage: Stage) -> Any:
    """Return what of a stage is worth writing down: not how long somebody is away already."""
    return {name: dataclasses.replace(at, away_s=0.0, why="") for name, at in stage.pulps.items()}


def _said(stage: Stage, steps: Mapping[str, Step], done: Mapping[str, Mapping[str, int]]) -> tuple[int, int, str]:
    """Return how far it is: steps of all Pulps, and what each is at."""
    order = ("new", "ready", "syncing", "synced", "publishing", "staged")
    there = {name: at for name, at in stage.pulps.items() if at.is_in}
    at_all = sum(order.index(at.phase) for at in there.values())
    words = {"ensure": "is made ready", "sync": "begins", "look": "works", "read": "is read", "publish": "publishes"}
    parts = []
    for name, at in sorted(there.items()):
        far = ", ".join(f"{what.lower()} {n}" for what, n in done.get(name, {}).items() if n) if name in steps else ""
        what = at.why or far or (words[steps[name]] if name in steps else "waits for the others")
        parts.append(f"{name}: {what}")
    return at_all, len(there) * (len(order) - 1), "; ".join(parts)


def _outcome(stage: Stage, flip: Flip, behind: Mapping[str, str], *, is_new: bool, digest: str) -> Outcome:
    left = {name: at.why for name, at in stage.pulps.items() if not at.is_in}
    said = f"{flip.packages} packages in publication {flip.digest[:12]}, in {', '.join(sorted(flip.pulps))}"
    if not is_new:
        said = f"unchanged: {said}"
    if digest != flip.digest:
        said += f", which somebody had published again; the origin has {digest[:12]}"
    for name, why in sorted(left.items()):
        said += f"; gone on without {name}: {why}"
    for name, why in sorted(behind.items()):
        said += f"; {name} is turned to it when it can be: {why}"
    result = {
        "publication": flip.digest, "generation": flip.generation, "is_new": is_new, "packages": flip.packages,
        "pulps": sorted(flip.pulps), "left": left, "behind": dict(behind), "rounds": stage.rounds + 1,
    }  # fmt: skip
    return Outcome(said, result)
