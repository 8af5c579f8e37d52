"""Follows dhcpd.conf and dhcpd.leases: what stands in them is known a moment later, and asking costs no file.

The leases are read whole at the start, then only what is appended. When dhcpd has put a new file in place, as it does each
hour, or somebody wrote the file anew, it is read whole again beside what is known, which is told until then. Changes are
heard of by inotify; besides, and where that hears nothing, as on NFS, the files are looked at each ``poll_s`` seconds, which
costs a few calls of stat(2). Files that cannot be read, from the first on, are looked for in the same way until they can.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from muster.edge.lags import Lag
from muster.features.dhcp.contract import Record, Records, Subnet
from muster.features.dhcp.inotify import Watch, watching
from muster.features.dhcp.isc import appended, grammar
from muster.features.dhcp.isc.appended import WHOLE_BYTES, Appended, Seen
from muster.features.dhcp.isc.leases import Leases
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import read_bounded
from muster.kernel.log import logger
from muster.kernel.names import MACAddress
from muster.kernel.tasks import ended

_log = logger("features")

# Of what is appended so much is read without a pause for others: 1 ms.
_SLICE_BYTES = 1 << 13
# A file that was put in place may still be written, unless nobody writes for so long.
_QUIET_S = 0.1
# But a busy dhcpd never pauses.
_PATIENCE_S = 1.0
_PAUSE_S = 0.02
_HANGS_S = 15.0
_TORN_S = 5.0
# What is heard of each second, and read then, is known before; a large file that is read whole takes its time.
_LATE_S = 10.0
_CLOCK = SystemClock()


class Fed(Protocol):
    """Who brings the files here, where dhcpd is on another host."""

    async def brought(self) -> None:
        """Return when all that stood in dhcpd's files when this was called is in those here.

        Raises:
            Unavailable: that is not known.
        """

    @property
    def heard_at(self) -> float:
        """When it was last said that all is here, by the loop's clock; when this began, where it never was."""

    def heard(self) -> None:
        """Return when what is here was dhcpd's a moment ago.

        Raises:
            Unavailable: nothing was heard for a while.
        """


class _Reading:
    """The two files as far as they were read. Made, and asked for news, in a thread; fed on the loop.

    Raises:
        Misconfigured: dhcpd.conf cannot be read.
        OSError: dhcpd.leases cannot.
    """

    def __init__(self, conf: Path, leases: Path) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._seen: dict[Path, Seen] = {}
        self.configuration = grammar.configuration(conf, self._content)
        self.leases = Leases(self.configuration)
        self._file = Appended(leases)
        while piece := self._file.following():
            self._take(piece)

    def _content(self, path: Path) -> str:
        # Before it is read: what is written meanwhile is news.
        self._seen[path] = appended.seen(path)
        return read_bounded(path, what="dhcpd's file", limit_bytes=grammar.MAX_CHARACTERS).decode("utf-8", "replace")

    def _take(self, piece: bytes) -> None:
        self._file.took(piece)
        self.leases.feed(self._decoder.decode(piece))

    def appended(self) -> bytes | None:
        """Return what follows what was read, a part of it if it is much; None: all is to be read anew.

        Raises:
            OSError: there is no such file now.
        """
        if any(appended.seen(path) != seen for path, seen in self._seen.items()):
            return None
        return self._file.following()

    async def take(self, piece: bytes) -> None:
        """Read on; others get their turns."""
        for start in range(0, len(piece), _SLICE_BYTES):
            self._take(piece[start : start + _SLICE_BYTES])
            await asyncio.sleep(0)

    @property
    def is_whole(self) -> bool:
        """Whether there is something, and it ends where a block does."""
        return self._file.offset > 0 and self.leases.is_whole

    def close(self) -> None:
        """Nobody may ask it any more."""
        self._file.close()
        self.leases.let_go()


class Followed:
    """What the two files say now, or said when they could last be read.

    Concurrency: one event loop; every answer is of one moment.
    """

    def __init__(self, conf: Path, leases: Path, clock: Clock, poll_s: float, fed: Fed | None = None) -> None:
        self._conf, self._path = conf, leases
        self._fed = fed
        self._held: _Reading | None = None
        self._clock = clock
        self._poll_s = poll_s
        self._trouble: MusterError | None = None
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._looked_at = self._as_of = self._loop.time()
        self._waiting: list[asyncio.Future[None]] = []
        self._torn_since: float | None = None
        self._encoding: asyncio.Task[None] | None = None

    async def reached(self) -> None:
        """Return when the files could be read the last time they were looked at, and that was a moment ago.

        Raises:
            Unavailable: not so; what they said before is still told.
        """
        self._well()

    def _well(self) -> None:
        if self._fed is not None:
            self._fed.heard()
        if self._trouble is not None:
            raise self._trouble
        since_s = self._loop.time() - self._looked_at
        if since_s > self._poll_s + _HANGS_S:
            # As when they lie on an NFS server that is gone.
            raise self._hangs(since_s)

    def lag(self) -> Lag:
        """Return how old is what is known: all that stood in the files so long ago is. From any thread."""
        now = self._loop.time()
        as_of = min(self._as_of, self._torn_since or now)
        if self._fed is not None:
            as_of = min(as_of, self._fed.heard_at)
        why = ""
        try:
            self._well()
            self.may_be_believed()
        except MusterError as e:
            why = str(e)
        return Lag(max(0.0, now - as_of), self._poll_s + _LATE_S, why)

    def may_be_believed(self) -> None:
        """Return when the leases file is whole.

        dhcpd that could not write leaves half a block, goes on behind it when it can, and reads neither at its next start.

        Raises:
            Unavailable: it has ended in the middle of a block for a while.
        """
        since = self._torn_since
        if since is not None and (for_s := self._loop.time() - since) > _TORN_S:
            raise Unavailable(
                f"{self._path} has ended in the middle of a block for {for_s:.0f} s, as when dhcpd's disk was full: what "
                "it acknowledges now may be lost. Make room and restart dhcpd, which writes the file anew"
            )

    @property
    def _reading(self) -> _Reading:
        """What was read; whoever asks has heard of :meth:`reached` that there is something."""
        if self._held is None:
            raise self._trouble or Unavailable(f"{self._path} has not been read yet")
        return self._held

    def is_fixed(self, ip: IPv4Address) -> bool:
        """Whether a host has an address fixed, also one of which Foreman cannot be told."""
        return self._reading.leases.is_fixed(ip)

    @property
    def problems(self) -> Sequence[str]:
        """What is wrong with dhcpd.conf, a sentence each; everything else of it counts."""
        return self._held.configuration.problems if self._held is not None else ()

    @property
    def subnets(self) -> Sequence[Subnet]:
        return self._reading.leases.subnets

    def records(self, subnet: Subnet) -> Records:
        """Return what there is in a subnet, in the files' order."""
        return self._reading.leases.records(subnet, self._clock.now())

    def at(self, subnet: Subnet, ip: IPv4Address) -> Sequence[Record]:
        """Return what has an address, reservations first."""
        return self._reading.leases.at(subnet, ip, self._clock.now())

    def of(self, subnet: Subnet, mac: MACAddress) -> Record | None:
        """Return the reservation of a hardware address, else its lease, else None."""
        return self._reading.leases.of(subnet, mac, self._clock.now())

    def taken(self, subnet: Subnet, among: Collection[IPv4Address]) -> set[IPv4Address]:
        """Return which addresses have a record."""
        return self._reading.leases.taken(subnet, among, self._clock.now())

    async def settled(self, *, until: Callable[[], bool] | None = None, within_s: float = 2.0) -> bool:
        """Return when all has been read that stands in the files now.

        Args:
            until: what must hold besides; the files are looked at until it does.
            within_s: how long they are.

        Returns:
            Whether it held in time; without it always True.

        Raises:
            Unavailable: the files cannot be read.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within_s
        if self._fed is not None:
            await self._fed.brought()
        while True:
            looked: asyncio.Future[None] = loop.create_future()
            self._waiting.append(looked)
            self._wake.set()
            try:
                async with asyncio.timeout(_HANGS_S):
                    await looked
            except TimeoutError:
                raise self._hangs(_HANGS_S) from None
            await self.reached()
            if until is None or until():
                return True
            if loop.time() > deadline:
                return False
            await asyncio.sleep(_PAUSE_S)

    async def follow(self, watch: Watch | None) -> None:
        """Look whenever something changed, until cancelled."""
        if self._held is not None:
            self._begin(watch)
        elif watch is not None:
            watch.on([self._path, self._conf])
            self._wake.set()
        while True:
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            waiting, self._waiting = self._waiting, []
            began = asyncio.get_running_loop().time()
            try:
                await self._look(watch)
            except MusterError as e:
                self._troubled(Unavailable(f"{e}"))
            except Exception as e:  # noqa: BLE001 - boundary: nobody may go on with old records without a word
                _log.exception("Following dhcpd's files failed")
                self._troubled(Unavailable(f"Following {self._path} failed: {type(e).__name__}"))
            else:
                if self._trouble is not None:
                    _log.info(f"{self._path} and {self._conf} can be read again")
                self._trouble = None
                self._as_of = began
            finally:
                self._looked_at = asyncio.get_running_loop().time()
                for one in waiting:
                    if not one.done():
                        one.set_result(None)

    def wake(self) -> None:
        """Look soon."""
        self._wake.set()

    async def close(self) -> None:
        if self._encoding is not None:
            await ended([self._encoding])
        if self._held is not None:
            await asyncio.to_thread(self._held.close)
        for one in self._waiting:
            one.cancel()

    async def _look(self, watch: Watch | None) -> None:
        while True:
            held = self._held
            piece = await self._news(held) if held is not None else None
            if held is not None and piece is not None:
                await held.take(piece)
                now = asyncio.get_running_loop().time()
                self._torn_since = None if held.leases.is_whole else self._torn_since or now
                if len(piece) < WHOLE_BYTES:
                    # What has come since is the next look's: a dhcpd that writes all the time would keep us here.
                    return
                continue
            self._held = await self._anew()
            self._begin(watch)
            if held is not None:
                await asyncio.to_thread(held.close)

    async def begin(self) -> None:
        """Read both files; where that cannot be done, it is what is wrong until it can."""
        try:
            self._held = await _whole(self._conf, self._path)
        except Misconfigured as e:
            self._troubled(Unavailable(f"{e}"))

    async def _anew(self) -> _Reading:
        """Return a reading of the whole, when it seems that nobody is still writing it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _PATIENCE_S
        reading = await _whole(self._conf, self._path)
        while loop.time() < deadline:
            await asyncio.sleep(_QUIET_S)
            piece = await self._news(reading)
            if piece is None:
                await asyncio.to_thread(reading.close)
                reading = await _whole(self._conf, self._path)
            elif piece:
                await reading.take(piece)
            elif reading.is_whole:
                break
        return reading

    def _begin(self, watch: Watch | None) -> None:
        """Go on with a reading that is new."""
        configuration = self._reading.configuration
        if watch is not None:
            watch.on([self._path, *configuration.files])
            # What was written before there was a watch.
            self._wake.set()
        for problem in configuration.problems:
            _log.warning(f"{problem}; all else of dhcpd's configuration is known")
        if self._encoding is not None:
            self._encoding.cancel()
        self._encoding = asyncio.create_task(self._encode(self._reading.leases), name="encode leases")

    async def _encode(self, leases: Leases) -> None:
        for _ in leases.encode():
            await asyncio.sleep(0)

    async def _news(self, reading: _Reading) -> bytes | None:
        try:
            return await asyncio.to_thread(reading.appended)
        except OSError as e:
            raise _unreadable(self._path, e) from e

    def _hangs(self, since_s: float) -> Unavailable:
        return Unavailable(f"Looking at {self._path} has not ended for {since_s:.0f} s")

    def _troubled(self, trouble: MusterError) -> None:
        if str(trouble) != str(self._trouble or ""):
            _log.warning(str(trouble))
        self._trouble = trouble


@asynccontextmanager
async def opened(
    conf: Path, leases: Path, *, clock: Clock = _CLOCK, poll_s: float = 1.0, fed: Fed | None = None
) -> AsyncIterator[Followed]:
    """Read both files and follow them until the block ends; those that cannot be read yet are waited for.

    Args:
        conf: dhcpd.conf; what it includes is followed as well.
        leases: dhcpd.leases.
        clock: by which leases end.
        poll_s: how often the files are looked at, whatever inotify says.
        fed: who brings them here; None: they are dhcpd's own.
    """
    followed = Followed(conf, leases, clock, poll_s, fed)
    await followed.begin()
    with watching(followed.wake) as watch:
        following = asyncio.create_task(followed.follow(watch), name="follow dhcpd's files")
        try:
            yield followed
        finally:
            await ended([following])
            await followed.close()


async def _whole(conf: Path, leases: Path) -> _Reading:
    """Return a reading of both files.

    Raises:
        Misconfigured: one of them cannot be read.
    """
    try:
        return await asyncio.to_thread(_Reading, conf, leases)
    except OSError as e:
        raise _unreadable(leases, e) from e


def _unreadable(leases: Path, error: OSError) -> Misconfigured:
    return Misconfigured(f"Reading dhcpd's leases {leases} failed: {error.strerror or error}")
