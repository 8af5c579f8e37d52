"""Compliance reports taken, kept and handed on; contents given; pages made. Source: docs/facts/openscap.md."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from muster.balancer.model import modelled
from muster.content import handed
from muster.edge.feature import Surroundings
from muster.edge.request import Request, TooLarge
from muster.features.openscap import scap
from muster.features.openscap.contents import Contents, Given, Key, Kind
from muster.features.openscap.forwarding import FIRST_GO_S, Forwarding, Proxy, pieces_of
from muster.features.openscap.ledger import CHUNK_BYTES, Arrival, Count, Ledger, Limits, Upload, counted
from muster.features.openscap.oscap import LARGEST_PAGE_BYTES, Oscap, Unreadable
from muster.features.openscap.settings import OpenscapSettings
from muster.kernel.errors import Denied, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import shown
from muster.observed.registered import wanted
from muster.store.engine import Store

_DAY_S = 86_400.0
_FORGOTTEN_EVERY_S = 3600.0
_PIECE_BYTES = 256 << 10
# Of what a member may hold in memory reports that arrive take a quarter: other calls are to have room, too.
_SHARE = 4
_ROOM_PAUSE_S = 0.05
_ROOM_TRIES = 100
# A host's name or its UUID: what Katello's certificates bear.
_CNAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,254}")
_NUMBER = re.compile(r"[0-9]{1,18}")
_POLICY = re.compile(r"[0-9]{1,9}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(eq=False)
class _Coming:
    """A report that is arriving.

    Attributes:
        pending: what came and is not in the store yet.
        broken: why it did not go there; it is of no use any more.
        turn: of who brings it to the store: its own call, or another that needs room.
    """

    request: Request
    arrival: Arrival
    pending: bytearray = field(default_factory=bytearray)
    broken: MusterError | None = None
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def is_movable(self) -> bool:
        return bool(self.pending) and self.broken is None and not self.turn.locked()

    def refuse_broken(self) -> None:
        if self.broken is not None:
            raise self.broken


class Compliance:
    """The feature's service.

    Attributes:
        counts: how many reports are in each state, when that was looked at last; empty: it was not.
        now: when that was, in store time.
    """

    def __init__(
        self, store: Store, ledger: Ledger, forwarding: Forwarding, contents: Contents, oscap: Oscap,
        settings: OpenscapSettings, directory: Path,
    ) -> None:  # fmt: skip
        self.counts: dict[str, Count] = {}
        self.now = 0.0
        self._store = store
        self._ledger = ledger
        self._forwarding = forwarding
        self._contents = contents
        self._oscap = oscap
        self._settings = settings
        self._directory = directory
        self._forgotten_at = float("-inf")
        self._arriving_bytes = 0
        self._coming: list[_Coming] = []

    async def taken(
        self, request: Request, policy: str, *, cname: str | None = None, reported_at: str | None = None
    ) -> Upload:
        """Keep the report in a request's body, have it sent, and return how it stands: it is safe, whatever that is.

        ``cname`` says whose it is, by default the caller's own; ``reported_at`` of when it is, in seconds since the epoch,
        by default of now.

        Raises:
            Denied: the caller's certificate does not name a host.
            Rejected: that is no policy, or there is no report.
            TooLarge, TooSlow, ClientGone: the report is too long, or did not arrive; nothing was kept.
            Full, Unavailable: there is no room for it, or the store did not answer; it has to be sent again.
            Conflict: the host has another report of that time.
        """
        host = _host(request) if cname is None else _name(cname)
        arrival = Arrival(host, int(_matched(_POLICY, policy, "a policy's id")))
        at = None if reported_at is None else int(_matched(_NUMBER, reported_at, "a time"))
        upload = await self._arrived(request, arrival, at)
        if upload.state == "waiting":
            await self._forwarding.forward(upload.id)
            # It was removed meanwhile, or the store is away: it was taken all the same.
            with contextlib.suppress(MusterError):
                upload = await self._ledger.upload(upload.id)
        return upload

    async def _arrived(self, request: Request, arrival: Arrival, reported_at: int | None) -> Upload:
        limit = self._settings.upload_limit_bytes
        said = request.headers.get(b"content-length", b"")
        if said.isdigit() and int(said[:20]) > limit:
            raise _too_large(limit)
        digest, size, coming = hashlib.sha256(), 0, _Coming(request, arrival)
        self._coming.append(coming)
        try:
            async with aclosing(request.pieces()) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise _too_large(limit)
                    await self._room(coming, len(piece))
                    digest.update(piece)
                    coming.pending += piece
                    while len(coming.pending) > CHUNK_BYTES:
                        await self._put(coming, CHUNK_BYTES)
            if not size:
                raise Rejected("There is no report in the body")
            async with coming.turn:
                coming.refuse_broken()
                return await self._ledger.accept(
                    arrival, bytes(coming.pending), digest=digest.hexdigest(), size=size, first_go_s=FIRST_GO_S,
                    reported_at=reported_at,
                )  # fmt: skip
        except MusterError:
            async with coming.turn:
                if arrival.chunks:
                    # What cannot be removed now is dropped within an hour.
                    with contextlib.suppress(MusterError):
                        await self._ledger.remove([arrival.id])
            raise
        finally:
            self._coming.remove(coming)
            self._arriving_bytes -= len(coming.pending)
            request.release()

    async def _room(self, coming: _Coming, more: int) -> None:
        """Count so many bytes more; where many reports arrive at once, what has come goes to the store, and hosts wait.

        What goes first is the most that lies here, whosever it is: a host that sends slowly keeps no room from others.
        """
        budget = coming.request.budget
        share = budget.limit_bytes // _SHARE if budget is not None else CHUNK_BYTES
        for _ in range(_ROOM_TRIES):
            if not self._arriving_bytes or self._arriving_bytes + more <= share:
                break
            # Whoever has the turn brings its bytes away already, or is read to its end.
            found = max((c for c in self._coming if c.is_movable), key=lambda c: len(c.pending), default=None)
            if found is None:
                await asyncio.sleep(_ROOM_PAUSE_S)
                continue
            try:
                await self._put(found, len(found.pending))
            except MusterError:
                # It is the matter of its own host, who hears of it.
                if found is coming:
                    raise
        coming.refuse_broken()
        coming.request.hold(more)
        self._arriving_bytes += more

    async def _put(self, coming: _Coming, size: int) -> None:
        """Bring so many bytes of what is pending to the store."""
        async with coming.turn:
            coming.refuse_broken()
            size = min(size, len(coming.pending))
            try:
                await self._ledger.arrived(coming.arrival, bytes(coming.pending[:size]))
            except MusterError as e:
                coming.broken = e
                raise
            del coming.pending[:size]
            self._arriving_bytes -= size
            coming.request.release()
            coming.request.hold(len(coming.pending))

    def trouble_of(self, upload: Upload) -> str:
        """Return why Foreman does not have a report yet."""
        return upload.why or self._forwarding.trouble or "others are sent first"

    async def report(self, id: str, cname: str, date: str, digest: str) -> tuple[Upload, AsyncGenerator[bytes, None]]:
        """Return a report that Foreman asks for, and its bytes as the host sent them.

        Raises:
            Rejected: what names it is malformed.
            NotFound: it is not there.
        """
        upload = await self._found(id, cname, date, digest)
        return upload, self._ledger.pieces(upload)

    async def page(self, id: str, cname: str, date: str, digest: str) -> Given:
        """Return a report as a page, as :meth:`report`.

        Raises:
            Unsupported: the program that makes it is not installed.
            Unreadable: it could not.
        """
        upload = await self._found(id, cname, date, digest)
        if upload.state == "refused":
            # It may be one that nothing here could read.
            raise NotFound(_absent(id, cname))
        with self._temporary() as directory:
            file, page = directory / "report.xml.bz2", directory / "page.html"
            with file.open("wb") as out:
                async for piece in self._ledger.pieces(upload):
                    await asyncio.to_thread(out.write, piece)
            await self._oscap.report(file, page)
            return _page(page)

    async def removed(self, id: str, cname: str, date: str, digest: str) -> bool:
        """Remove a report that Foreman has deleted; return whether it was there.

        Raises:
            Rejected: what names it is malformed.
        """
        with contextlib.suppress(NotFound):
            upload = await self._found(id, cname, date, digest)
            return await self._ledger.remove([upload.id]) > 0
        return False

    async def _found(self, id: str, cname: str, date: str, digest: str) -> Upload:
        found = await self._ledger.of_foreman(
            foreman_id=_matched(_NUMBER, id, "a report's id"),
            cname=_name(cname),
            reported_at=int(_matched(_NUMBER, date, "a time")),
            digest=_matched(_DIGEST, digest, "a digest"),
        )
        if found is None:
            raise NotFound(_absent(id, cname))
        return found

    async def content(self, kind: Kind, policy: str, digest: str) -> Given:
        """Return what a policy is measured by.

        Raises:
            Rejected: what names it is malformed.
            NotFound, Unavailable, GatewayTimeout, BadGateway: as :meth:`muster.features.openscap.contents.Contents.given`.
        """
        number = int(_matched(_POLICY, policy, "a policy's id"))
        return await self._contents.given(Key(kind, number, _matched(_DIGEST, digest, "a digest")))

    async def profiles(self, request: Request, kind: scap.Kind) -> dict[str, str | None]:
        """Return the profiles in a content, by id.

        Raises:
            Malformed: it is no XML that is read here.
        """
        with self._temporary() as directory:
            file = await self._kept(request, directory)

            def read() -> dict[str, str | None]:
                with file.open("rb") as f:
                    return scap.profiles(pieces_of(f), kind)

            return await asyncio.to_thread(read)

    async def checked(self, request: Request) -> None:
        """Return when the content in a request's body can be read.

        Raises:
            Malformed: it cannot.
        """
        with self._temporary() as directory:
            await self._checked(await self._kept(request, directory))

    async def guide(self, request: Request, profile: str | None) -> str:
        """Return the guide to the content in a request's body as a page.

        Raises:
            Malformed, Unsupported, Unreadable: no page can be made of it.
        """
        with self._temporary() as directory:
            file = await self._kept(request, directory)
            await self._checked(file)
            page = directory / "guide.html"
            await self._oscap.guide(file, profile, page)
            given = _page(page)
            return b"".join([piece async for piece in given.pieces]).decode("utf-8", "replace")

    async def errors(self) -> int:
        """Return how many hosts have reports that Foreman refused, or nobody could read."""
        counts, _ = await counted(self._store)
        return counts["refused"].hosts

    async def beat(self) -> None:
        """Send what is due, look how many there are, and drop what is not kept any longer: once an hour, or when it is much.

        Raises:
            Unavailable: the store did not answer.
        """
        await self._forwarding.beat()
        self.counts, self.now = await counted(self._store)
        # A host can hand in within minutes what is more than all may take.
        is_too_much = self.counts["sent"].bytes > self._settings.reports_limit_bytes
        if is_too_much or time.monotonic() - self._forgotten_at >= _FORGOTTEN_EVERY_S:
            self._forgotten_at = time.monotonic()
            settings = self._settings
            await self._ledger.forget(
                kept_s=settings.reports_kept_days * _DAY_S,
                kept_bytes=settings.reports_limit_bytes,
                host_bytes=settings.host_limit_bytes,
            )

    async def _kept(self, request: Request, directory: Path) -> Path:
        """Write a request's body to a file."""
        file = directory / "content.xml"
        size, limit = 0, self._settings.content_limit_bytes
        with file.open("wb") as out:
            async with aclosing(request.pieces()) as pieces:
                async for piece in pieces:
                    size += len(piece)
                    if size > limit:
                        raise _too_large(limit)
                    await asyncio.to_thread(out.write, piece)
        return file

    async def _checked(self, file: Path) -> None:
        def read() -> None:
            with file.open("rb") as f:
                scap.check(pieces_of(f))

        await asyncio.to_thread(read)

    @contextlib.contextmanager
    def _temporary(self) -> Iterator[Path]:
        directory = None
        try:
            directory = Path(tempfile.mkdtemp(dir=self._directory))
            yield directory
        except OSError as e:
            raise Unavailable(f"Writing below {self._directory} failed: {e.strerror or e}") from e
        finally:
            if directory is not None:
                shutil.rmtree(directory, ignore_errors=True)


def _host(request: Request) -> str:
    """Return whom the caller's certificate names, which is a host's name or a UUID: it stands in a path for Foreman."""
    name = request.peer.name
    if name is None or not _CNAME.fullmatch(name):
        raise Denied(f"The client certificate names {shown(name)}, which is no host")
    return name


def _name(text: str) -> str:
    return _matched(_CNAME, text.lower(), "a host's name")


def _matched(pattern: re.Pattern[str], text: str, what: str) -> str:
    if not pattern.fullmatch(text):
        raise Rejected(f"{shown(text)} is not {what}")
    return text


def _absent(id: str, cname: str) -> str:
    return f"There is no compliance report {id} of {shown(cname)} here"


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(f"the body is larger than {limit_bytes >> 20} MiB")


def _page(path: Path) -> Given:
    """Return a page that was written, open: its file may go."""
    try:
        file = path.open("rb", buffering=0)
    except OSError as e:
        raise Unreadable(f"oscap wrote no page: {e.strerror or e}") from e
    size = os.fstat(file.fileno()).st_size
    if not 0 < size < LARGEST_PAGE_BYTES:
        file.close()
        raise Unreadable(f"oscap wrote a page of {size} bytes, and less than {LARGEST_PAGE_BYTES >> 20} MiB are shown")

    async def pieces() -> AsyncGenerator[bytes, None]:
        try:
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield piece
        finally:
            file.close()

    return Given(size, pieces(), file.close)


def proxy_of(settings: OpenscapSettings, around: Surroundings) -> Proxy:
    """Return by what Foreman knows the Smart Proxy that this member is, or is a part of.

    Raises:
        Misconfigured: the cluster file does not say, nor the settings.
    """
    if settings.registered_proxy_name is not None and settings.registered_proxy_url is not None:
        return Proxy(settings.registered_proxy_name, settings.registered_proxy_url)
    if around.cluster is None:
        raise Misconfigured("registered_proxy_name and registered_proxy_url are absent, and there is no cluster file")
    known = wanted(around.cluster, modelled(around.cluster, frozenset()))
    one = next((w for w in known if w.name == around.member), known[0])
    return Proxy(settings.registered_proxy_name or one.name, settings.registered_proxy_url or one.url)


@asynccontextmanager
async def opened(settings: OpenscapSettings, around: Surroundings) -> AsyncIterator[Compliance]:
    """Yield the service.

    Raises:
        Misconfigured: the cluster file does not say where Foreman is; there is no store, or no directory.
    """
    if around.store is None or around.state is None:
        raise Misconfigured("openscap keeps compliance reports in the store, and contents below the member's state")
    proxy = proxy_of(settings, around)
    directory = around.state / "openscap"
    scratch = directory / "scratch"
    try:
        # What a process that was killed left there is nobody's.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700, parents=True)
    except OSError as e:
        raise Misconfigured(f"Making {scratch} failed: {e.strerror or e}") from e
    ledger = Ledger(around.store, Limits(settings.spool_limit_bytes, settings.host_limit_bytes))
    opening = handed.opened(
        around, timeout_s=settings.timeout, needed_by="openscap", ended_within_s=settings.timeout
    )  # fmt: skip
    async with opening as foreman:
        forwarding = Forwarding(
            ledger, foreman.ask, proxy, scratch,
            timeout_s=settings.timeout, unpacked_limit_bytes=settings.unpacked_limit_bytes,
        )  # fmt: skip
        contents = Contents(foreman.ask, directory / "contents", limit_bytes=settings.content_limit_bytes)
        try:
            yield Compliance(around.store, ledger, forwarding, contents, Oscap(), settings, scratch)
        finally:
            await forwarding.close()
            await contents.close()
