"""Fetches boot files for the cluster: the member that is asked does it, all wait for it, and another goes on if it dies."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from muster.kernel import log, tasks
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.netboot import partial
from muster.netboot.address import Address
from muster.netboot.answers import Told
from muster.netboot.contract import BootPath, Fetch
from muster.netboot.fetches import KEPT_S, Claim, Far, Fetches
from muster.netboot.ledger import Fetched
from muster.netboot.origin import Known, Outcome
from muster.netboot.tree import Tree

T = TypeVar("T")

_log = log.logger("netboot")

# Each is a write that all members' wait for.
_TOLD_EVERY_S = 1.0
_LOOKED_EVERY_S = 0.5
# How often a store that does not answer is told what came of one; after that another member finds out itself.
_STORE_TRIES = 30
# How long files are gone on with, by whomever. Whoever dies of one must not take all members along.
_LONGEST_S = 7200.0
_SWEPT_EVERY_S = 600.0
# Members that lack it for longer than a minute take no clients.
_SERVED_WITHIN_S = 300.0
_LONGEST_WHY = 1000

Bring = Callable[[str, Path, Known | None, Told], Awaitable[Outcome]]
"""Brings a URL's file to a path: :func:`muster.netboot.origin.fetched`, with its settings."""

Commit = Callable[[BootPath, Outcome], Awaitable[None]]
"""Makes a file that came stand in the tree, which takes it over by renaming it; returns when every ready member serves it.

Where nothing came, because what stands is as its origin has it, it only returns when they do.
"""


class _Lost(Exception):
    """Another member has the claim by now."""


class _Progress:
    """How far a download is: what its task says, and what is told of it."""

    def __init__(self) -> None:
        self.far: Far | None = None

    def begin(self) -> None:
        self.far = self.far or Far()

    def told(self, done: int, total: int | None) -> None:
        self.far = Far(done, total)


class Fetching:
    """One member's part. Use :meth:`beat` again and again, :meth:`close` at the end.

    Args:
        directory: where partial files lie, of this member alone, on the tree's file system.
        known: returns what stands in the tree at a path as it was fetched.
        at_once: how many files this member fetches at a time; others wait.

    Concurrency: one loop; any number of calls.
    """

    def __init__(
        self,
        fetches: Fetches,
        *,
        directory: Path,
        bring: Bring,
        known: Callable[[BootPath], Awaitable[Known | None]],
        commit: Commit,
        at_once: int = 4,
        clock: Clock | None = None,
    ) -> None:
        self._fetches, self._directory = fetches, directory
        self._bring, self._known, self._commit = bring, known, commit
        self._at_once, self._rooms = at_once, asyncio.Semaphore(at_once)
        self._clock = clock or SystemClock()
        self._jobs: dict[BootPath, asyncio.Task[Fetch | None]] = {}
        self._watched: dict[BootPath, asyncio.Task[Fetch | None]] = {}
        self._claims: dict[BootPath, Claim] = {}
        self._swept_at: float | None = None
        self._is_closing = False

    async def fetch(self, path: BootPath, url: str, *, wait_s: float, about: str = "") -> Fetch:
        """As :meth:`muster.netboot.contract.BootFiles.fetch`.

        What another member fetches is waited for, too, and taken over when that member is silent. Where the same path is
        under way from another URL, this one's turn comes after it, if ``wait_s`` lasts so long.
        """
        wanted = Address.parse(url).plain
        until = self._clock.monotonic() + wait_s
        while True:
            task = self._jobs.get(path)
            if task is None and (claim := await self._fetches.ask(path, url, about)) is not None:
                task = self._begin(claim)
            if task is None:
                task = self._jobs.get(path) or self._shared(self._watched, path, self._watch(path), f"watch {path}")
            await asyncio.wait({task}, timeout=max(0.0, until - self._clock.monotonic()))
            if not task.done():
                standing = await self._fetches.of(path)
                if standing is not None:
                    return standing.fetch
            elif task.cancelled():
                if not self._is_closing:
                    continue
                raise Unavailable(f"Fetching {path} ends here, because this member does; another goes on with it")
            elif (found := task.result()) is not None and found.url == wanted:
                return found

    async def fetches(self) -> Sequence[Fetch]:
        """As :meth:`muster.netboot.contract.BootFiles.fetches`."""
        return await self._fetches.listed()

    async def beat(self) -> None:
        """Take over what silent members began, and drop what is old.

        Raises:
            Unavailable: the store did not answer; what is under way goes on.
        """
        for standing in await self._fetches.silent():
            if len(self._jobs) >= self._at_once:
                break
            path = standing.fetch.path
            claim = await self._fetches.take(path) if path not in self._jobs else None
            if claim is not None:
                _log.info(
                    "Going on with a boot file whose member is silent", path=str(path), member=standing.fetch.member
                )
                self._begin(claim, is_too_old=standing.asked_ago_s > _LONGEST_S)
        now = self._clock.monotonic()
        if self._swept_at is None or now - self._swept_at >= _SWEPT_EVERY_S:
            await self._fetches.forget()
            await asyncio.to_thread(partial.sweep, self._directory, older_than_s=KEPT_S)
            self._swept_at = now

    async def close(self) -> None:
        """End what is under way here, and let other members go on with it at once."""
        self._is_closing = True
        claims = list(self._claims.values())
        await tasks.ended([*self._jobs.values(), *self._watched.values()])
        for claim in claims:
            with contextlib.suppress(MusterError):
                await self._fetches.leave(claim)

    def _begin(self, claim: Claim, *, is_too_old: bool = False) -> asyncio.Task[Fetch | None]:
        path = claim.path
        before = self._jobs.get(path)
        if before is not None:
            # Of a claim that is lost by now.
            before.cancel()
        self._claims[path] = claim
        return self._shared(self._jobs, path, self._run(claim, before, is_too_old=is_too_old), f"fetch {path}")

    def _shared(
        self,
        among: dict[BootPath, asyncio.Task[Fetch | None]],
        path: BootPath,
        work: Coroutine[Any, Any, Fetch | None],
        name: str,
    ) -> asyncio.Task[Fetch | None]:
        """Return a task that all wait for, and that goes on when nobody does."""
        task = among.get(path) if among is self._watched else None
        if task is not None:
            work.close()
            return task
        task = among[path] = asyncio.create_task(work, name=name)

        def ended(done: asyncio.Task[Fetch | None]) -> None:
            if among.get(path) is done:
                del among[path]
            if not done.cancelled():
                # Perhaps nobody waits for it.
                done.exception()

        task.add_done_callback(ended)
        return task

    async def _watch(self, path: BootPath) -> Fetch | None:
        """Return what came of what another member fetches; None: nobody does any more."""
        while True:
            standing = await self._fetches.of(path)
            if standing is None or standing.is_silent:
                return None
            if standing.fetch.ended_at is not None:
                return standing.fetch
            await self._clock.sleep(_LOOKED_EVERY_S)

    async def _run(
        self, claim: Claim, before: asyncio.Task[Fetch | None] | None, *, is_too_old: bool = False
    ) -> Fetch | None:
        """Fetch a file and return what came of it; None: another member does."""
        if before is not None:
            await asyncio.wait({before})
        progress, why, is_lost = _Progress(), "", False
        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(self._tell(claim, progress))
                if is_too_old:
                    why = f"Nobody could fetch it in {_LONGEST_S / 3600:g} hours"
                else:
                    await self._fetched(claim, progress)
                telling.cancel()
        except* _Lost:
            _log.info("Another member fetches a boot file by now", path=str(claim.path))
            is_lost = True
        except* MusterError as e:
            why = str(e.exceptions[0])
        except* Exception as e:  # noqa: BLE001 - boundary: what one file breaks must not end the others
            _log.exception("Fetching a boot file broke", path=str(claim.path))
            why = f"Fetching it broke: {type(e.exceptions[0]).__name__}"
        finally:
            if self._claims.get(claim.path) is claim:
                del self._claims[claim.path]
        if is_lost:
            return None
        if why:
            _log.warning("A boot file was not fetched", path=str(claim.path), why=why)
        far = progress.far or Far()
        return await self._answered(
            lambda: self._fetches.end(claim, "failed" if why else "done", far, why[:_LONGEST_WHY])
        )

    async def _fetched(self, claim: Claim, progress: _Progress) -> None:
        path, into = claim.path, self._into(claim.path)
        async with self._rooms:
            progress.begin()
            found = await self._bring(claim.url, into, await self._known(path), progress.told)
        # Who was stopped for so long that another has it by now does not come in between.
        progress.told(found.size, found.size)
        if not await self._answered(lambda: self._fetches.tell(claim, progress.far)):
            raise _Lost
        await self._commit(path, found)
        await asyncio.to_thread(partial.forget, into)
        what = "A boot file was fetched" if found.file is not None else "A boot file stands as its origin has it"
        _log.info(what, path=str(path), origin=found.origin, digest=found.digest, size=found.size)

    async def _tell(self, claim: Claim, progress: _Progress) -> None:
        while True:
            # A store that is away for a moment ends nothing.
            with contextlib.suppress(Unavailable):
                if not await self._fetches.tell(claim, progress.far):
                    raise _Lost
            await self._clock.sleep(_TOLD_EVERY_S)

    async def _answered(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Return what the store says, as soon as it does: what has come shall not be lost with a store that is restarted."""
        left = _STORE_TRIES
        while True:
            try:
                return await ask()
            except Unavailable:
                left -= 1
                if not left:
                    raise
            await self._clock.sleep(_TOLD_EVERY_S)

    def _into(self, path: BootPath) -> Path:
        return self._directory / hashlib.sha256(path.text.encode()).hexdigest()[:32]


class InTree:
    """What fetching needs of the tree: what stands there, and that what came does."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    async def known(self, path: BootPath) -> Known | None:
        """Return what stands at a path, as it was fetched; None: nothing, a link, or what is not on this disk.

        Raises:
            Unavailable: the store did not answer.
        """
        row = await self._tree.at(path)
        if row is None or row.entry.kind != "file" or self._tree.blob(row.entry.digest) is None:
            # Whoever brought it may have died with the only copy: what is not here is fetched, and not taken for known.
            return None
        return Known(row.entry.origin, row.entry.size, row.entry.modified_at, row.etag)

    async def commit(self, path: BootPath, came: Outcome) -> None:
        """As :data:`Commit`.

        Raises:
            Rejected: a directory stands there, or the like.
            Unavailable: the store or the disk refused, or members that take clients do not get it.
        """
        if came.file is not None:
            fetched = Fetched(path, came.digest, came.size, came.modified_at or None, came.origin, came.etag)
            version = await self._tree.take(fetched, came.file)
        elif (row := await self._tree.at(path)) is not None:
            version = row.entry.version
        else:
            raise Unavailable(f"{path} was removed while its origin was asked for it")
        if not await self._tree.served_by_all(path, version, _SERVED_WITHIN_S):
            raise Unavailable(
                f"{path} is here, but not every member that takes clients had it in {_SERVED_WITHIN_S:g} s"
            )
