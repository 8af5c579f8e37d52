"""dhcpd's files on a member that has them not: the lease feed's far end.

What another member tells (:mod:`muster.features.dhcp.isc.feed`) is kept in two files of this member's own, and those are
followed as dhcpd's own are elsewhere. What is appended is appended here; another file in its place is written beside, and
put in place when it is whole. What is kept is never told by itself: each question waits until the feed has said that all
is here that stood in dhcpd's files when it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO

from muster.balancer.model import modelled
from muster.cluster.file import ClusterFile
from muster.content import backend as backends
from muster.content.backend import Backend, Patience
from muster.edge.feature import Surroundings
from muster.features.dhcp.isc.feed import MAX_LEASES_BYTES, Held
from muster.features.dhcp.isc.frames import Frame, Frames
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import make_directory, write_atomically
from muster.kernel.log import logger
from muster.kernel.names import in_url, shown
from muster.kernel.tasks import ended
from muster.pki.context import RenewedContext

_log = logger("features")

PREFIX = "/dhcp_files"
"""Where members that have the files answer."""

# A stream says each second that all is told.
_PATIENCE = Patience(connect_s=2.0, first_byte_s=5.0, stall_s=3.0)
_SILENT_S = 5.0
# As long as one that asks waits for a stream, which may just be changing to another member.
_BROUGHT_WITHIN_S = 2.0
_PAUSE_S = 0.5
_BREATH_S = 0.02
_SMALL_BYTES = 4096


class _Kept:
    """The two files here. Asked in threads, one call at a time.

    Raises:
        Unavailable: the disk refuses; what is here is looked at anew before anything is added.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.conf = directory / "dhcpd.conf"
        self.leases = directory / "dhcpd.leases"
        self._beside = directory / "dhcpd.leases.new"
        self._file: BinaryIO | None = None
        self._is_beside = False
        self._digest = hashlib.sha256()
        self._size = 0

    def held(self) -> Held:
        """Return what is here; half of a file is not."""
        with self._refusals():
            make_directory(self._directory, mode=0o700)
            self._directory.chmod(0o700)
            if self._file is None or self._is_beside:
                self.close()
                self._digest, self._size = hashlib.sha256(), 0
                if self.leases.exists():
                    self._file = _opened(self.leases, os.O_APPEND)
                    while piece := self._file.read(1 << 20):
                        self._count(piece)
            conf = hashlib.sha256(self.conf.read_bytes()).hexdigest() if self.conf.exists() else ""
        return Held(conf, self._size, self._digest.hexdigest() if self._file is not None else "")

    def take(self, frame: Frame) -> None:
        """Keep what a frame says; with ``all``, what was written beside is put in its place."""
        with self._refusals():
            if frame.word == "conf":
                write_atomically(self.conf, frame.content, mode=0o600)
            elif frame.word == "whole":
                self.close()
                self._file, self._is_beside = _opened(self._beside, os.O_TRUNC), True
                self._digest, self._size = hashlib.sha256(), 0
            elif frame.word == "more":
                if self._file is None or self._size + frame.number > MAX_LEASES_BYTES:
                    raise Unavailable("What is told of dhcpd's leases is no part of a file")
                _write(self._file, frame.content)
                self._count(frame.content)
            elif frame.word == "all" and self._is_beside:
                self._beside.replace(self.leases)
                self._is_beside = False

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file, self._is_beside = None, False

    def _count(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += len(piece)

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            self.close()
            raise Unavailable(f"Keeping dhcpd's files in {self._directory} failed: {e.strerror or e}") from e
        except MusterError:
            self.close()
            raise


class Replica:
    """Keeps a copy of dhcpd's files, and says whether it is one now. Use :func:`opened`.

    Attributes:
        conf, leases: where it is.

    Concurrency: one loop.
    """

    def __init__(self, sources: Sequence[Backend], directory: Path) -> None:
        self._sources = sources
        self._kept = _Kept(directory)
        self.conf, self.leases = self._kept.conf, self._kept.leases
        self._loop = asyncio.get_running_loop()
        self._opened_at = self._loop.time()
        self._heard_at: float | None = None
        self._why: dict[str, str] = {}
        self._failed = 0
        # Who waits: those that the next mark is for, and those of marks that were sent.
        self._waiting: list[asyncio.Future[None]] = []
        self._marked: dict[int, list[asyncio.Future[None]]] = {}
        self._wanted = asyncio.Event()

    @property
    def heard_at(self) -> float:
        """When the feed last said that all is here, by the loop's clock; when this began, where it never did."""
        return self._heard_at if self._heard_at is not None else self._opened_at

    def heard(self) -> None:
        """Return when the feed has said a moment ago that all is here.

        Raises:
            Unavailable: it has not.
        """
        now = self._loop.time()
        if self._heard_at is None or now - self._heard_at > _SILENT_S:
            raise self._silent(now)

    async def brought(self) -> None:
        """Return when all that stands in dhcpd's files now is here.

        Raises:
            Unavailable: nobody says so.
        """
        loop = asyncio.get_running_loop()
        if self._heard_at is not None or loop.time() - self._opened_at > _SILENT_S:
            self.heard()
        brought: asyncio.Future[None] = loop.create_future()
        self._waiting.append(brought)
        self._wanted.set()
        try:
            async with asyncio.timeout(_BROUGHT_WITHIN_S):
                await brought
        except TimeoutError:
            raise self._silent(loop.time()) from None

    def _silent(self, now: float) -> Unavailable:
        since_s = now - self.heard_at
        names = ", ".join(s.name for s in self._sources)
        why = "".join(f"; {said}" for said in self._why.values())
        return Unavailable(f"dhcpd's files come from {names}, and nothing was heard of them for {since_s:.0f} s{why}")

    async def keep(self) -> None:
        """Be told by the first of the sources that tells, until cancelled."""
        at = 0
        while True:
            source = self._sources[at]
            try:
                await self._told_by(source)
                # Streams end now and then; those of a member that ends them at once must not keep us busy.
                await asyncio.sleep(_BREATH_S)
                continue
            except MusterError as e:
                self._lost(source, str(e))
            except Exception as e:  # noqa: BLE001 - boundary: nobody may go on with an old copy without a word
                _log.exception("Keeping a copy of dhcpd's files failed")
                self._lost(source, type(e).__name__)
            self._failed += 1
            at = (at + 1) % len(self._sources)
            if self._failed >= len(self._sources):
                await asyncio.sleep(_PAUSE_S)

    def _lost(self, source: Backend, why: str) -> None:
        why = why if source.name in why else f"{source.name}: {why}"
        if self._why.get(source.name) != why:
            _log.warning(f"Nothing is told of dhcpd's files: {why}")
        self._why[source.name] = why

    async def _told_by(self, source: Backend) -> None:
        """Be told by one of them until its stream ends.

        Raises:
            Unavailable: it tells nothing, or no more.
        """
        name = secrets.token_hex(16)
        held = await asyncio.to_thread(self._kept.held)
        # Whoever waits already has everything with the first ``all``.
        self._marked, self._waiting = {0: self._waiting}, []
        marking: asyncio.Task[None] | None = None
        answer = None
        try:
            path = f"{PREFIX}/streams/{name}?conf={held.conf}&size={held.size}&leases={held.leases}"
            answer = await source.ask("GET", path, [("Accept", "application/octet-stream")])
            if answer.status != 200:
                said = (await answer.whole(_SMALL_BYTES)) or b""
                raise Unavailable(f"{source.name} answered {answer.status}: {shown(said[:500])}")
            frames = Frames(answer.pieces, source.name)
            while (frame := await frames.next()) is not None:
                if frame.word == "trouble":
                    raise Unavailable(frame.content.decode("utf-8", "replace"))
                await asyncio.to_thread(self._kept.take, frame)
                if frame.word == "all":
                    self._all_is_here(source, frame.number)
                    if marking is None:
                        marking = asyncio.create_task(self._mark(source, name, answer.end), name="mark dhcpd's files")
        finally:
            if marking is not None:
                await ended([marking])
            if answer is not None:
                answer.end()
            for waiting in self._marked.values():
                self._waiting += [one for one in waiting if not one.done()]
            self._marked = {}
            if self._waiting:
                self._wanted.set()

    def _all_is_here(self, source: Backend, mark: int) -> None:
        self._heard_at = asyncio.get_running_loop().time()
        self._failed = 0
        if self._why.pop(source.name, None) is not None:
            _log.info(f"{source.name} tells dhcpd's files again")
        for number in [n for n in self._marked if n <= mark]:
            for one in self._marked.pop(number):
                if not one.done():
                    one.set_result(None)

    async def _mark(self, source: Backend, name: str, end: Callable[[], None]) -> None:
        """Ask, whenever somebody waits, that the stream says when all is told; who comes meanwhile is asked for next."""
        mark = 0
        try:
            while True:
                await self._wanted.wait()
                self._wanted.clear()
                waiting = [one for one in self._waiting if not one.done()]
                self._waiting = []
                if not waiting:
                    continue
                mark += 1
                self._marked[mark] = waiting
                answer = await source.ask("GET", f"{PREFIX}/streams/{name}/{mark}", [])
                if answer.status != 200 or await answer.whole(_SMALL_BYTES) is None:
                    raise Unavailable(f"{source.name} answered {answer.status} to a mark")
        except MusterError as e:
            _log.debug(f"{source.name} took no mark: {e}")
            # The stream is of no use without; who waits is asked for in the next.
            end()

    async def close(self) -> None:
        for one in (*self._waiting, *(o for waiting in self._marked.values() for o in waiting)):
            one.cancel()
        await asyncio.to_thread(self._kept.close)


def _opened(path: Path, how: int) -> BinaryIO:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | how
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def _write(file: BinaryIO, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def url_of(cluster: ClusterFile, name: str) -> str:
    """Return where a member that has the files is asked.

    Raises:
        Misconfigured: there is no such member.
    """
    member = next((m for m in cluster.members if m.name == name and m.kind == "muster"), None)
    service = modelled(cluster, frozenset()).service("smartproxy")
    if member is None or service is None:
        raise Misconfigured(f"features.dhcp.isc.files_on names {name}, which is no member of kind muster")
    return f"https://{in_url(member.address)}:{service.port_on(str(member.name))}"


@asynccontextmanager
async def opened(names: Sequence[str], around: Surroundings) -> AsyncIterator[Replica]:
    """Yield a copy of dhcpd's files that is kept up to date until the block ends.

    Args:
        names: the members that have the files, in the order in which they are asked.
        around: the member that has them not.

    Raises:
        Misconfigured: one is no member, or a file of our own cannot be used.
    """
    if around.cluster is None or around.state is None:
        raise Misconfigured("A copy of dhcpd's files needs the cluster file, and a directory for it")
    context = RenewedContext(around.ca, around.certificate, around.key)
    async with backends.opened("another member", "https://localhost", _PATIENCE, context=context) as asking:
        sources = [asking.at(f"member {n}", url_of(around.cluster, n), server_hostname=str(n)) for n in names]
        replica = Replica(sources, around.state / "dhcp")
        keeping = asyncio.create_task(replica.keep(), name="keep dhcpd's files")
        try:
            yield replica
        finally:
            await ended([keeping])
            await replica.close()
