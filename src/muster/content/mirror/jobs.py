"""Does what administrators asked for, and what is due by itself: one job at a time on each member.

A repository is synchronised by one process of the cluster, the one that has the role; the files that it fetches the others
take from it. Each member looks at its own disk itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from muster.cluster.mirror import Mirror
from muster.cluster.steered import Steered
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Job, JobKind, JobState
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.store.leases import Lease, Leases

_log = log.logger("content")

ROLE = "content mirror"
_LEASE_S = 20.0
_TOLD_EVERY_S = 1.0
# Each is a write; the role has to be extended between them.
_ASKED_AT_ONCE = 50
_SCHEDULE = "the schedule"
# What changes what clients get is done by one process.
_OF_THE_ROLE: tuple[JobKind, ...] = ("sync", "publish")

Progress = Callable[[int, int, str], Awaitable[None]]
"""Hears how far a job is: how much of how much, 0 where nobody knows, and what it does."""


class Outcome(NamedTuple):
    """What came of a job: a sentence, and figures for who reads JSON."""

    sentence: str
    result: Mapping[str, Any] = {}
    is_well: bool = True


Run = Callable[[Job, Progress, Lease | None], Awaitable[Outcome]]


class _Unwanted(Exception):
    """Somebody has cancelled the job, or another process does it by now."""


class Jobs:
    """One member's. Use :meth:`beat` again and again, :meth:`close` at the end.

    Args:
        holder: unique to this life of the process.
        runs: does a job, by its kind; raises a MusterError that says why it did not work.
        settings: what is mirrored.
        steered: what Pulps are led to. Where neither is, no role is taken.

    Concurrency: one loop; beats do not overlap, and the job that runs does so beside them.
    """

    def __init__(
        self,
        ledger: Ledger,
        leases: Leases,
        *,
        holder: str,
        member: str,
        runs: Mapping[JobKind, Run],
        settings: Mirror | None,
        steered: Steered | None = None,
    ) -> None:
        self._ledger, self._leases = ledger, leases
        self._holder, self._member, self._runs = holder, member, runs
        self._wants_role = settings is not None or steered is not None
        # How often each is looked at by itself.
        self._every = {
            name: one.sync_every_s
            for section in (settings, steered) if section is not None
            for name, one in section.repositories.items() if one.sync_every_s is not None
        }  # fmt: skip
        self._lease: Lease | None = None
        self._running: asyncio.Task[None] | None = None
        self._kind: JobKind | None = None
        # What came of a job and is not told yet, for the store was away.
        self._untold: tuple[Job, JobState, str, Mapping[str, Any]] | None = None
        # A job that ended here is to be begun anew, by whoever has the role.
        self._is_undone = False
        # In which role it was looked whether somebody left work behind; its own of an earlier life is found at the start.
        self._looked_in: int | None = None
        self._is_first = True
        self._due: dict[str, float] = {}

    async def beat(self) -> None:
        """Take the role where it is free, ask for what is due, and begin what was asked for.

        Raises:
            Unavailable: the store does not answer; what runs goes on.
        """
        if self._wants_role:
            self._lease = await self._leases.acquire(ROLE, self._holder, _LEASE_S)
        if self._lease is None and self._kind in _OF_THE_ROLE and self._running is not None:
            # Who has the role now begins it anew.
            self._running.cancel()
        await self._look_for_what_was_left()
        if self._lease is not None:
            await self._ask_for_what_is_due()
        if self._running is not None and not self._running.done():
            return
        await self._tell_what_is_untold()
        kinds: list[JobKind] = [kind for kind in self._runs if kind not in _OF_THE_ROLE or self._lease is not None]
        job = await self._ledger.take(self._holder, self._member, kinds)
        if job is not None:
            self._kind = job.kind
            self._running = asyncio.create_task(self._run(job, self._lease), name=f"{job.kind} {job.repository}")
            self._running.add_done_callback(self._ended)

    @property
    def has_role(self) -> bool:
        """Whether this process does what one of the cluster does."""
        return self._lease is not None

    async def close(self) -> None:
        """End what runs, and give the role up; what was not done is asked for anew by whoever takes the role."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if self._lease is not None:
            with contextlib.suppress(MusterError):
                await self._leases.release(self._lease)

    async def _tell_what_is_untold(self) -> None:
        """Say what became of the job that ran here: until then nobody does the same again."""
        if self._untold is not None:
            job, state, sentence, result = self._untold
            await self._ledger.end(job.id, self._holder, state, sentence, result)
            self._untold = None
        if self._is_undone:
            await self._put_back({self._holder}, await self._ledger.running())
            self._is_undone = False

    async def _put_back(self, holders: Collection[str], running: Iterable[Job]) -> None:
        await self._ledger.orphaned({j.holder for j in running}.difference(holders))

    async def _look_for_what_was_left(self) -> None:
        """Put work back that processes began which are gone: this member's own of before, and that of who had the role."""
        epoch = self._lease.epoch if self._lease is not None else None
        if not self._is_first and epoch in (None, self._looked_in):
            return
        running = await self._ledger.running()
        left = {
            j.holder for j in running
            if j.holder != self._holder and (j.member == self._member or (not j.member and epoch is not None))
        }  # fmt: skip
        if left:
            await self._put_back(left, running)
        self._is_first, self._looked_in = False, epoch

    async def _ask_for_what_is_due(self) -> None:
        every = self._every
        if not every:
            return
        now = asyncio.get_running_loop().time()
        unknown = every.keys() - self._due.keys()
        if unknown:
            ages = await self._ledger.synchronised_s()
            self._due |= {name: now - ages.get(name, every[name]) + every[name] for name in unknown}
        due = [name for name in every if self._due[name] <= now]
        for name in due[:_ASKED_AT_ONCE]:
            await self._ledger.ask("sync", name, "", _SCHEDULE)
            self._due[name] = now + every[name]

    async def _run(self, job: Job, lease: Lease | None) -> None:
        said = [0, 0, ""]

        async def progress(done: int, of: int, sentence: str) -> None:
            said[:] = [done, of, sentence]

        ending, cancelled = "", False
        outcome: Outcome | None = None
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(job, said))
                outcome = await self._runs[job.kind](job, progress, lease)
                telling.cancel()
        except* _Unwanted:
            cancelled = True
        except* MusterError as e:
            ending = str(e.exceptions[0])
        except* (TimeoutError, OSError) as e:
            ending = str(e.exceptions[0]) or "it took too long"
        except* Exception as e:  # noqa: BLE001 - boundary: what one job breaks must not end the others
            _log.exception("A job broke", kind=job.kind, repository=job.repository)
            ending = f"{type(e.exceptions[0]).__name__}: {e.exceptions[0]}"
        if cancelled:
            await self._end(job, "cancelled", await self._cancelled_by(job), {})
        elif outcome is None and lease is not None and (self._lease is None or self._lease.epoch != lease.epoch):
            # What is done in the role is refused once that has changed hands, or ran out while the store was away.
            _log.info("A job is begun anew", kind=job.kind, repository=job.repository, why=ending)
            self._is_undone = True
        elif outcome is None:
            _log.warning("A job failed", kind=job.kind, repository=job.repository, why=ending)
            await self._end(job, "failed", ending, {})
        else:
            _log.info("A job is done", kind=job.kind, repository=job.repository, result=outcome.sentence)
            await self._end(job, "done" if outcome.is_well else "failed", outcome.sentence, outcome.result)

    async def _cancelled_by(self, job: Job) -> str:
        """Return what whoever has cancelled a job left."""
        with contextlib.suppress(MusterError):
            found = await self._ledger.job(job.id)
            if found.is_unwanted and found.sentence:
                return found.sentence
        return "cancelled"

    def _ended(self, done: asyncio.Task[None]) -> None:
        # It lost its role; that somebody has cancelled it ends it otherwise.
        self._is_undone = self._is_undone or done.cancelled()

    async def _tell(self, job: Job, said: list[Any]) -> None:
        while True:
            await asyncio.sleep(_TOLD_EVERY_S)
            # A store that is away for a moment ends nothing.
            with contextlib.suppress(Unavailable):
                if not await self._ledger.tell(job.id, self._holder, *said):
                    raise _Unwanted

    async def _end(self, job: Job, state: JobState, sentence: str, result: Mapping[str, Any]) -> None:
        for _ in range(3):
            try:
                await self._ledger.end(job.id, self._holder, state, sentence[:500], result)
            except MusterError as e:
                _log.debug("What became of a job was not told", why=str(e))
                await asyncio.sleep(_TOLD_EVERY_S)
            else:
                return
        self._untold = job, state, sentence[:500], result
