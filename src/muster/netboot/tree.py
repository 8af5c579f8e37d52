"""The cluster's tree of boot files on one member: changed in the store, brought to this disk, confirmed to who changed it.

What stands in the store is the tree; the directory of each member follows it, version by version. A change is acknowledged
when every member that takes clients has confirmed it. Who does not in time is *fenced*: it takes no clients until it has
caught up, which it sees in its own row, and so does one that cannot read the store while others can.

A file whose bytes are not in the store is brought from other members beside the versions, so that nothing waits behind it:
meanwhile the member says that it lacks the file, and what stood there before still does.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

from muster.kernel import log, tasks
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from muster.netboot.confirmed import CONFIRM_S, confirmed
from muster.netboot.contract import LIMIT_WRITTEN_BYTES, BootPath, Change, Entry, Fetch
from muster.netboot.disk import Disk, is_near
from muster.netboot.ledger import Fetched, Ledger, Row
from muster.netboot.ledger import Tree as State

_log = log.logger("netboot")

_AGAIN_S = 0.05
# Without the store for so long a member does not know any more what the others serve.
_BLIND_S = 4.0
# What was read from the store so lately is what changes are acknowledged by: whoever made one waits for us.
_FRESH_S = 2.0
_CURRENT_S = 5.0
# A disk that is at work for longer keeps nobody from hearing whether this member is fenced, nor waiting.
_HELD_UP_S = 1.0
# How often it is looked whether somebody has emptied the directory.
_LOOKED_EVERY_S = 5.0
# What did not come is asked for again no sooner.
_BRING_AGAIN_S = 2.0
# A member that lacks a file for so long, which others have, takes no clients.
_LACKS_S = 60.0
_NOT_YET = "boot files here were not compared with the store's yet"

Bring = Callable[[Entry], Awaitable[Path]]
"""Returns a synced file on the disk's own file system with the bytes of a file's digest and size, from whoever has them."""
Pass = Callable[[Entry, int, int], AsyncGenerator[bytes, None]]
"""As :meth:`~muster.netboot.contract.BootFiles.passed`."""
Watch = Callable[[], Awaitable[bool]]
"""Returns whether some other member reads the store."""


class Fetches(Protocol):
    """Fetches boot files, as :class:`~muster.netboot.contract.BootFiles` says."""

    async def fetch(self, path: BootPath, url: str, *, wait_s: float, about: str = "") -> Fetch:
        """As ``BootFiles.fetch``."""

    async def fetches(self) -> Sequence[Fetch]:
        """As ``BootFiles.fetches``."""


async def _nobody_has(entry: Entry) -> Path:
    raise Unavailable(f"no other member gives {entry.path}")


async def _nobody_passes(entry: Entry, _first: int, _count: int) -> AsyncGenerator[bytes, None]:
    raise NotFound(f"no other member gives {entry.path}")
    yield b""  # pragma: no cover - makes it a generator


async def _nobody_sees() -> bool:
    return False


class Tree:
    """One member's. See :class:`~muster.netboot.contract.BootFiles`; use :meth:`close` at the end.

    Attributes:
        trouble: why this member is not fit to serve, in one sentence; empty: it is.
        note: what is wrong that does not keep it from serving; empty: nothing.
        judged_at: when the last beat began whose ``trouble`` and ``note`` these are, on the monotonic clock.
        version: which lies on this disk; None: it is not known yet.
        fetching: has files fetched; None: nothing is.

    Concurrency: one loop.
    """

    def __init__(
        self,
        ledger: Ledger,
        disk: Disk,
        member: str,
        *,
        confirm_s: float = CONFIRM_S,
        bring: Bring = _nobody_has,
        pass_on: Pass = _nobody_passes,
        seen_by_others: Watch = _nobody_sees,
    ) -> None:
        self.root = disk.root
        self.member = member
        self.trouble = _NOT_YET
        self.note = ""
        self.judged_at = -float("inf")
        self.version: int | None = None
        self.fetching: Fetches | None = None
        self._ledger = ledger
        self._disk = disk
        self._confirm_s = confirm_s
        self._bring = bring
        self._pass_on = pass_on
        self._seen_by_others = seen_by_others
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._following: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._is_compared = False
        self._looked_at = time.monotonic()
        self._read_at = -float("inf")
        self._alone_at = -float("inf")
        self._asking = asyncio.Lock()
        self._known = 0
        self._fenced = 0
        self._why = ""
        self._confirmed: tuple[int, tuple[BootPath, ...], str] | None = None
        self._lacking: dict[BootPath, tuple[Row, float]] = {}
        self._bringing: asyncio.Task[None] | None = None
        self._bring_why = ""

    async def close(self) -> None:
        """Give up what is on its way to this disk."""
        await tasks.ended([*self._following, *([self._bringing] if self._bringing is not None else [])])
        self._next, self._is_open, self._is_compared = None, False, False
        self._disk.close()

    @property
    def stands(self) -> str:
        """How the files here stand to what the store has, in a word: ``current``, ``behind``, or ``lacking`` some."""
        if not self._is_compared or self._fenced or self.version is None or self.version < self._known:
            return "behind"
        return "lacking" if self._lacking else "current"

    @property
    def read_age_s(self) -> float:
        """How long ago the store was read."""
        return time.monotonic() - self._read_at

    @property
    def may_be_given(self) -> bool:
        """Whether what lies here may be given to clients, as far as is known without a question."""
        return not self.trouble and (self.read_age_s <= _BLIND_S or self._alone_at > self._read_at)

    async def read(self, path: BootPath) -> bytes:
        try:
            row = await self._ledger.at(path)
            if row is None or row.entry.kind != "file":
                raise NotFound(f"There is no boot file {path}")
            if row.entry.size > LIMIT_WRITTEN_BYTES:
                raise Rejected(
                    f"{path} has {row.entry.size} bytes, more than the {LIMIT_WRITTEN_BYTES} that are read at once"
                )
            content = await self._ledger.content(row.entry.digest)
        except Unavailable:
            content = None
        if content is None:
            content = await asyncio.to_thread(self._disk.read, path, LIMIT_WRITTEN_BYTES)
            if len(content) > LIMIT_WRITTEN_BYTES:
                raise Rejected(f"{path} has more than the {LIMIT_WRITTEN_BYTES} bytes that are read at once")
        return content

    async def listed(self, directory: str = "") -> Sequence[Entry]:
        return await self._ledger.below(directory)

    async def lookup(self, path: BootPath) -> Entry | None:
        row = await self._ledger.at(path)
        return row.entry if row is not None else None

    async def at(self, path: BootPath) -> Row | None:
        """Return what stands at a path, by the store.

        Raises:
            Unavailable: the store did not answer.
        """
        return await self._ledger.at(path)

    async def change(self, changes: Sequence[Change], *, about: str = "") -> None:
        version = await self._ledger.change(changes)
        _log.info("Boot files were changed", files=len(changes), tree=version, about=about)
        limit = time.monotonic() + self._confirm_s
        # What is wrong here is said by whoever waits for it.
        await self._followed(self._confirm_s)
        left_s = max(0.0, limit - time.monotonic())
        await confirmed(self._ledger, version, within_s=left_s, why=lambda: self._why)

    async def take(self, fetched: Fetched, file: Path) -> int:
        """Have a file that was fetched to this disk stand in the tree; return the version that has it.

        Args:
            fetched: what stands where.
            file: synced, in :meth:`beside`; it is renamed.

        Raises:
            Rejected, Unavailable: as ``change``; the file is kept, and dropped when nothing comes of it.
        """
        await asyncio.to_thread(self._disk.take, fetched.digest, file)
        version = await self._ledger.change([fetched])
        _log.info("A boot file was fetched", file=str(fetched.path), bytes=fetched.size, tree=version)
        await self._followed()
        if self.version is None or self.version < version:
            raise Unavailable(self._why or f"{self.member} has not got to version {version} of the tree")
        return version

    def beside(self) -> Path:
        """Return where files are made that are to be taken: on the same file system."""
        return self._disk.beside()

    def blob(self, digest: str) -> Path | None:
        """Return where bytes lie that other members may have."""
        return self._disk.blob(digest)

    async def served_by_all(self, path: BootPath, version: int, within_s: float) -> bool:
        """Wait until every member that takes clients has a version, and lacks nothing at this path; False: in vain.

        Raises:
            Unavailable: the store did not answer.
        """
        limit = time.monotonic() + within_s
        while True:
            standings = [s for s in await self._ledger.standings() if s.counts]
            if all(s.version >= version and path.text not in s.lacks for s in standings):
                return True
            if time.monotonic() >= limit:
                return False
            await asyncio.sleep(_AGAIN_S * 4)

    async def fetch(self, path: BootPath, url: str, *, wait_s: float, about: str = "") -> Fetch:
        if self.fetching is None:
            raise Unavailable(f"{self.member} fetches no boot files")
        return await self.fetching.fetch(path, url, wait_s=wait_s, about=about)

    async def fetches(self) -> Sequence[Fetch]:
        return await self.fetching.fetches() if self.fetching is not None else []

    def passed(self, entry: Entry, first: int, count: int) -> AsyncGenerator[bytes, None]:
        return self._pass_on(entry, first, count)

    async def current(self) -> None:
        limit = time.monotonic() + _CURRENT_S
        while self.read_age_s > _FRESH_S or self._fenced:
            # A store that has been away for a while is not waited for by each who asks.
            is_blind = self.read_age_s > _CURRENT_S and not self._fenced
            await self._followed(_HELD_UP_S if is_blind else limit - time.monotonic())
            if self.read_age_s > _CURRENT_S and not self._fenced:
                # The store is away: what lies here is the newest that anybody can tell of, unless others read it still.
                async with self._asking:
                    if self._alone_at <= self._read_at and await self._is_seen_by_others():
                        raise Unavailable(f"The boot files of {self.member} may be old: others read the store")
                return
            if not self._fenced and self.version is not None and self.version >= self._known:
                return
            if time.monotonic() >= limit:
                raise Unavailable(f"The boot files of {self.member} are behind: {self._why or 'they come'}")
            await asyncio.sleep(_AGAIN_S)

    async def beat(self) -> None:
        """Follow the tree once: bring what changed, say so, and judge whether this member may serve. Raises nothing."""
        began = time.monotonic()
        if not await self._followed(_HELD_UP_S):
            with contextlib.suppress(MusterError, TimeoutError):
                async with asyncio.timeout(_HELD_UP_S):
                    await self._look()
        await self._judge()
        self.judged_at = began

    async def verify(self) -> Sequence[str]:
        """Read every file's bytes; what is damaged is brought anew, and what is not in its place put there.

        Return the paths of those. Long work.

        Raises:
            Unavailable: the store did not answer, or the disk refused.
        """
        _, rows = await self._ledger.rows(None)
        files: dict[str, list[str]] = {}
        for row in rows:
            if row.entry.kind == "file":
                files.setdefault(row.entry.digest, []).append(row.entry.path.text)
        damaged: list[str] = []
        search = self._disk.damaged(files)
        while (found := await asyncio.to_thread(next, search, None)) is not None:
            damaged += files[found]
        if damaged:
            _log.error("Boot files were damaged and are brought anew", files=", ".join(damaged[:10]))
            async with self._turn:
                # What is known to be wrong is served no more, however long the right bytes are on their way.
                _, rows = await self._ledger.rows(None)
                wrong = set(damaged)
                for entry in (r.entry for r in rows if r.entry.path.text in wrong):
                    if entry.kind == "file" and not self._is_here(entry):
                        await asyncio.to_thread(self._disk.remove, entry.path)
                self._is_compared = False
        displaced = await self._displaced(set(damaged))
        if displaced:
            _log.error("Boot files were not in their places and are put there", files=", ".join(displaced[:10]))
            self._is_compared = False
        if damaged or displaced:
            await self._followed()
            if not self._is_compared:
                raise Unavailable(self._why or "They were not brought yet")
        return [*damaged, *displaced]

    async def _displaced(self, known: Collection[str]) -> list[str]:
        """Return the paths at which something else stands than the tree has, or nothing, but for these and what comes."""
        async with self._turn:
            if self.version is None:
                return []
            here = self.version
            _, rows = await self._ledger.rows(None)
            amiss = await asyncio.to_thread(self._amiss, [r for r in rows if r.entry.version <= here])
        return [
            r.entry.path.text for r in amiss if r.entry.path not in self._lacking and r.entry.path.text not in known
        ]

    async def forget(self) -> None:
        """Drop what nobody needs any more, in the store and on this disk.

        Raises:
            Unavailable: the store did not answer, or the disk refused.
        """
        await self._ledger.forget()
        async with self._turn:
            _, rows = await self._ledger.rows(None)
            digests = {r.entry.digest for r in rows if r.entry.kind == "file"}
            targets = {r.entry.target for r in rows if r.entry.kind == "link"}
            now = time.time()
            await asyncio.to_thread(self._disk.unused, digests, targets, older_than_s=3600.0, now=now)

    async def _followed(self, within_s: float | None = None) -> bool:
        """Wait until the tree was followed as it is now; whether it was tried to the end. What failed is in ``_why``.

        Who comes before a task has begun shares it. Nobody who goes away ends one: a thread that is at the disk would go on,
        and the next one's beside it.
        """
        if self._next is None:
            self._next = asyncio.create_task(self._follow(), name="boot files follow the tree")
            self._following.add(self._next)
            self._next.add_done_callback(self._following.discard)
        task = self._next
        await asyncio.wait({task}, timeout=None if within_s is None else max(0.0, within_s))
        if task.done() and not task.cancelled():
            task.result()
        return task.done()

    async def _follow(self) -> None:
        async with self._turn:
            self._next = None
            try:
                await self._catch_up()
            except MusterError as e:
                self._why = str(e)
                _log.debug("The tree of boot files was not followed", why=self._why)

    async def _look(self) -> State:
        """Read how far the tree is, and whether this member is fenced."""
        began = time.monotonic()
        tree = await self._ledger.tree(self.member)
        self._read_at = began
        self._known, self._fenced = tree.version, tree.fenced
        return tree

    async def _catch_up(self) -> None:
        if self._is_open and time.monotonic() - self._looked_at >= _LOOKED_EVERY_S:
            self._looked_at = time.monotonic()
            if not await asyncio.to_thread(self._disk.is_there):
                _log.error("The directory of boot files was emptied, and is filled again", root=str(self.root))
                self._is_open = self._is_compared = False
        if not self._is_open:
            await asyncio.to_thread(self._disk.open)
            self.version = await asyncio.to_thread(self._disk.version)
            self._is_open = True
        tree = await self._look()
        if self._confirmed is not None and tree.confirmed != self._confirmed[0]:
            # Our row is not as we left it: somebody took this member for one that has gone, or restored the store, whose
            # versions are then others than those that came here.
            self._confirmed = None
            self._is_compared = False
        have = self.version
        if not self._is_compared or have is None or not tree.forgotten <= have <= tree.version:
            await self._compared()
        elif have < tree.version:
            version, rows = await self._ledger.rows(have)
            await self._placed(rows)
            await self._arrived_at(version)
        self._why = ""
        await self._say()
        if self.version is not None and self.version >= tree.fenced:
            self._fenced = 0

    async def _compared(self) -> None:
        """Have the directory as the tree is, whatever it was."""
        version, rows = await self._ledger.rows(None)
        # Whatever was on its way is looked at anew.
        now = {r.entry.path: r for r in rows}
        self._lacking = {p: one for p, one in self._lacking.items() if now.get(p) == one[0]}
        amiss = await asyncio.to_thread(self._amiss, rows)
        strangers = await asyncio.to_thread(self._disk.strangers, [r.entry.path for r in rows])
        for path in strangers:
            await asyncio.to_thread(self._disk.remove, path)
        await self._placed(amiss)
        await self._arrived_at(version)
        self._is_compared = True

    def _amiss(self, rows: Sequence[Row]) -> Sequence[Row]:
        # Who writes into a file writes into the bytes that others of its names have, too. All have the date of one of them.
        dates: dict[str, list[float]] = {}
        for row in rows:
            if row.entry.kind == "file":
                dates.setdefault(row.entry.digest, []).append(row.entry.modified_at)
        touched = {}
        for digest, known in dates.items():
            now = self._disk.dated(digest)
            if now is not None and not any(is_near(now, at) for at in known):
                touched[digest] = known[-1]
        for damaged in self._disk.damaged(list(touched)):
            del touched[damaged]
        for digest, at in touched.items():
            # Or they would be read at each start.
            self._disk.date(digest, at)
        return [r for r in rows if not (self._disk.is_placed(r.entry) and self._is_here(r.entry))]

    def _is_here(self, entry: Entry) -> bool:
        return entry.kind == "link" or self._disk.has(entry.digest, entry.size)

    async def _arrived_at(self, version: int) -> None:
        # Where nothing is to be written, a full disk keeps nobody from it.
        if await asyncio.to_thread(self._disk.version) != version:
            await asyncio.to_thread(self._disk.note, version)
        self.version = version

    async def _placed(self, rows: Sequence[Row]) -> None:
        # Of one version first what went: a file may stand where a directory was.
        for row in sorted(rows, key=lambda r: (r.entry.version, not r.is_gone)):
            path = row.entry.path
            before = self._lacking.pop(path, None)
            if row.is_gone:
                await asyncio.to_thread(self._disk.remove, path)
            elif self._is_here(row.entry) or await self._kept(row.entry):
                await asyncio.to_thread(self._disk.place, row.entry)
            else:
                self._lacking[path] = before if before is not None and before[0] == row else (row, time.monotonic())
        if self._lacking and (self._bringing is None or self._bringing.done()):
            self._bringing = asyncio.create_task(self._brought(), name="boot files from other members")

    async def _kept(self, entry: Entry) -> bool:
        content = await self._ledger.content(entry.digest)
        if content is None:
            return False
        if hashlib.sha256(content).hexdigest() != entry.digest:
            raise Unavailable(f"What the store has of {entry.path} is damaged")
        await asyncio.to_thread(self._disk.keep, entry.digest, content)
        return True

    async def _say(self) -> None:
        if self.version is None:
            return
        now = (self.version, tuple(sorted(self._lacking)), self._bring_why if self._lacking else "")
        if now != self._confirmed:
            await self._ledger.confirm(self.member, *now)
            self._confirmed = now

    async def _brought(self) -> None:
        """Bring what this disk lacks, one after the other, until it lacks nothing."""
        while self._lacking:
            for path, (row, _) in list(self._lacking.items()):
                entry = row.entry
                try:
                    if not self._disk.has(entry.digest, entry.size):
                        file = await self._bring(entry)
                        await asyncio.to_thread(self._disk.take, entry.digest, file)
                    async with self._turn:
                        now = self._lacking.get(path)
                        if now is not None and now[0] is row:
                            await asyncio.to_thread(self._disk.place, entry)
                            del self._lacking[path]
                        self._bring_why = ""
                        await self._say()
                except MusterError as e:
                    self._bring_why = f"{path} does not come: {e}"
                    _log.warning("A boot file does not come", file=str(path), why=str(e))
                except Exception as e:  # noqa: BLE001 - boundary: what one file breaks must not keep the others away
                    self._bring_why = f"{path} does not come: bringing it broke: {type(e).__name__}"
                    _log.exception("Bringing a boot file broke", file=str(path))
            if self._lacking:
                await asyncio.sleep(_BRING_AGAIN_S)

    async def _judge(self) -> None:
        trouble, note = await self._judged()
        self.trouble, self.note = trouble, note

    async def _judged(self) -> tuple[str, str]:
        """Return why this member is not fit to serve, and what is wrong that does not keep it from that."""
        if self._fenced:
            return f"boot files here are older than what was acknowledged: {self._why or 'they come'}", ""
        if self.read_age_s > _BLIND_S:
            why = f"which boot files there are was not read from the store lately: {self._why or 'it is being read'}"
            if not await self._is_seen_by_others():
                return "", why
            # Where it has just come back, others read it a moment before, and this one can as well.
            await self._followed(_HELD_UP_S)
            return (why, "") if self.read_age_s > _BLIND_S else await self._judged()
        lasting = [p for p, (_, since) in self._lacking.items() if time.monotonic() - since > _LACKS_S]
        if self._why or lasting or not self._is_compared:
            why = self._why or (f"{lasting[0]} is not here: {self._bring_why or 'it comes'}" if lasting else _NOT_YET)
            why = f"boot files here lag behind: {why}"
            return ("", why) if await self._is_alone() else (why, "")
        if self._lacking:
            coming = self._bring_why or str(next(iter(self._lacking)))
            return "", f"{len(self._lacking)} boot files are on their way: {coming}"
        return "", ""

    async def _is_seen_by_others(self) -> bool:
        """Whether another member reads the store, which this one does not; that none does is remembered."""
        if await self._seen_by_others():
            return True
        self._alone_at = time.monotonic()
        return False

    async def _is_alone(self) -> bool:
        """Whether no other member that takes clients can do what this one cannot."""
        try:
            others = [s for s in await self._ledger.standings() if s.member != self.member and s.counts]
        except MusterError:
            return True
        mine = self.version or 0
        if self._is_compared and self._why:
            # What stands here is whole, and what comes next does not get here. Who is as far as this one has not got it
            # either: members that took each other out for that would all be out, and in again, in turns.
            return not any(s.version > mine for s in others)
        return not any(s.version >= mine and not s.lacks for s in others)
