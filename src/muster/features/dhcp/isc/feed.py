"""Tells members that have not dhcpd's files what stands in them, as it is written: the lease feed's near end.

Each member that asks gets a stream of frames (:mod:`muster.features.dhcp.isc.frames`). It says how far it has the leases
file, by length and digest, so that whatever was restarted meanwhile, or has another copy of the file, only what is missing
goes over the wire. Of dhcpd.conf goes what members read of it, and nothing else: keys stay on this host.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from muster.features.dhcp.inotify import watching
from muster.features.dhcp.isc import appended, frames, grammar
from muster.features.dhcp.isc.appended import WHOLE_BYTES, Appended, Seen
from muster.features.dhcp.isc.frames import MAX_TROUBLE_BYTES, written
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import read_bounded

MAX_STREAMS = 256
MAX_LEASES_BYTES = 1 << 30
HEARTBEAT_S = 1.0
"""So often is said that all is told; the files are looked at before."""

_STREAM_S = 20.0


@dataclass(frozen=True)
class Held:
    """What a member has already.

    Attributes:
        conf: SHA-256 in hexadecimal of what it was told of dhcpd.conf; empty: nothing.
        size: bytes of the leases file.
        leases: their SHA-256; empty: it has no such file.
    """

    conf: str = ""
    size: int = 0
    leases: str = ""


@dataclass
class _Stream:
    mark: int = 0
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class _Told:
    """The leases file as far as one member was told of it."""

    def __init__(self, path: Path, held: Held) -> None:
        self._path = path
        self._held = held
        self._file: Appended | None = None

    async def news(self) -> AsyncGenerator[bytes, None]:
        """Yield frames up to what stands there now.

        Raises:
            OSError: it cannot be read.
            Misconfigured: it is too large.
        """
        if self._file is None:
            file, is_resumed = await asyncio.to_thread(_opened_at, self._path, self._held)
            self._file = file
            if not is_resumed:
                yield written("whole")
        else:
            file = self._file
        while (piece := await asyncio.to_thread(file.following)) != b"":
            if piece is None:
                file.close()
                file = self._file = await asyncio.to_thread(Appended, self._path)
                yield written("whole")
                continue
            file.took(piece)
            yield written("more", piece)
            if file.offset > MAX_LEASES_BYTES:
                raise Misconfigured(f"{self._path} is larger than {MAX_LEASES_BYTES} bytes")
            if len(piece) < WHOLE_BYTES:
                return

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Source:
    """dhcpd's files as others are told of them. Use :func:`opened`.

    Attributes:
        members: who may be told, by lower-case name.

    Concurrency: one loop; any number of streams up to ``MAX_STREAMS``.
    """

    def __init__(self, conf: Path, leases: Path, members: Collection[str], closing: Callable[[], bool]) -> None:
        self.members = frozenset(members)
        self._conf, self._leases = conf, leases
        self._closing = closing
        self._streams: dict[str, _Stream] = {}
        self._seen: dict[Path, Seen] = {}
        self._reduced: tuple[bytes, str] = (b"", "")
        self._reading = asyncio.Lock()
        self._watched: Callable[[Collection[Path]], None] = lambda _files: None

    def watch(self, watched: Callable[[Collection[Path]], None]) -> None:
        """Say from now on which files decide what is told; whoever hears it calls :meth:`wake` when one changes."""
        self._watched = watched
        watched([self._conf, self._leases])

    def wake(self) -> None:
        """Look at the files now, for everybody."""
        for stream in self._streams.values():
            stream.wake.set()

    @property
    def streams(self) -> int:
        """How many are being told."""
        return len(self._streams)

    def marked(self, name: str, mark: int) -> bool:
        """Say in that stream when all is told that stands in the files now; false: there is no such stream."""
        stream = self._streams.get(name)
        if stream is None:
            return False
        stream.mark = max(stream.mark, mark)
        stream.wake.set()
        return True

    async def readable(self) -> int:
        """Return how many bytes the leases file has.

        Raises:
            MusterError: it, or dhcpd.conf, cannot be read.
        """
        await self._configuration()
        try:
            return await asyncio.to_thread(_size_of, self._leases)
        except OSError as e:
            raise self._unreadable(e) from e

    def told(self, name: str, held: Held) -> AsyncGenerator[bytes, None]:
        """Return the frames of a stream of that name; it ends after a while, or when this member ends, between two.

        Raises:
            Unavailable: there are too many, or one of that name.
        """
        if len(self._streams) >= MAX_STREAMS or name in self._streams:
            raise Unavailable(f"{len(self._streams)} are told dhcpd's files already")
        return self._frames(name, held)

    async def _frames(self, name: str, held: Held) -> AsyncGenerator[bytes, None]:
        loop = asyncio.get_running_loop()
        until = loop.time() + _STREAM_S
        stream = self._streams[name] = _Stream()
        leases = _Told(self._leases, held)
        conf = held.conf
        try:
            while True:
                # Before the files are looked at: what comes meanwhile is the next look's.
                mark = stream.mark
                stream.wake.clear()
                try:
                    text, digest = await self._configuration()
                    if digest != conf:
                        frame = written("conf", text)
                        for start in range(0, len(frame), WHOLE_BYTES):
                            yield frame[start : start + WHOLE_BYTES]
                        conf = digest
                    async for frame in leases.news():
                        yield frame
                except OSError as e:
                    yield _trouble(self._unreadable(e))
                    return
                except MusterError as e:
                    yield _trouble(e)
                    return
                yield written("all", mark=mark)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(HEARTBEAT_S):
                        await stream.wake.wait()
                # Behind the wait: a member that drains for long is not to be asked for streams without end.
                if self._closing() or loop.time() > until:
                    return
        finally:
            del self._streams[name]
            leases.close()

    async def _configuration(self) -> tuple[bytes, str]:
        """Return what is told of dhcpd.conf, and its digest; read again when a file has changed."""
        async with self._reading:
            before = self._seen
            self._seen, self._reduced = await asyncio.to_thread(self._read, before)
            if self._seen is not before:
                self._watched([*self._seen, self._leases])
            return self._reduced

    def _read(self, before: dict[Path, Seen]) -> tuple[dict[Path, Seen], tuple[bytes, str]]:
        if before and all(appended.seen(path) == seen for path, seen in before.items()):
            return before, self._reduced
        now: dict[Path, Seen] = {}

        def content(path: Path) -> str:
            now[path] = appended.seen(path)
            raw = read_bounded(path, what="dhcpd's file", limit_bytes=grammar.MAX_CHARACTERS)
            return raw.decode("utf-8", "replace")

        text = grammar.reduced(self._conf, content).text.encode("utf-8", "replace")
        if len(text) > frames.MAX_CONF_BYTES:
            raise Misconfigured(f"{self._conf} says more than {frames.MAX_CONF_BYTES} bytes")
        return now, (text, hashlib.sha256(text).hexdigest())

    def _unreadable(self, error: OSError) -> Unavailable:
        return Unavailable(f"Reading dhcpd's leases {self._leases} failed: {error.strerror or error}")


def _trouble(error: MusterError) -> bytes:
    return written("trouble", str(error).encode("utf-8", "replace")[:MAX_TROUBLE_BYTES])


def _size_of(path: Path) -> int:
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size


def _opened_at(path: Path, held: Held) -> tuple[Appended, bool]:
    """Return the leases file, and whether it begins with what is held, behind which it is read then."""
    file = Appended(path)
    try:
        if held.leases and held.size <= path.stat().st_size:
            digest = hashlib.sha256()
            while file.offset < held.size and (piece := file.following()):
                piece = piece[: held.size - file.offset]
                digest.update(piece)
                file.took(piece)
            if file.offset == held.size and digest.hexdigest() == held.leases:
                return file, True
            file.close()
            file = Appended(path)
    except OSError:
        file.close()
        raise
    return file, False


@asynccontextmanager
async def opened(
    conf: Path, leases: Path, members: Collection[str], *, closing: Callable[[], bool] = lambda: False
) -> AsyncIterator[Source]:
    """Yield what tells the files, which need not be there.

    Args:
        conf: dhcpd.conf.
        leases: dhcpd.leases.
        members: names of those that may be told.
        closing: whether this member drains or ends; a stream ends soon then.
    """
    source = Source(conf, leases, [m.lower() for m in members], closing)
    with watching(source.wake) as watch:
        if watch is not None:
            source.watch(watch.on)
        yield source
