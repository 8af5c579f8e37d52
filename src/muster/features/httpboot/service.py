"""Boot files for whoever boots: as the cluster has them, whichever member is asked.

Source: docs/facts/smart-proxy-protocol.md §10, recorded in ``tests/wire/recorded/smart-proxy/httpboot.jsonl``.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import posixpath
import time
from collections.abc import AsyncGenerator, AsyncIterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from muster.balancer.model import Balancing, modelled
from muster.content import conditions, files
from muster.content.files import Opened
from muster.content.validators import Digest
from muster.edge.feature import Surroundings, Told
from muster.edge.replies import SERVER_HEADER, Header, Reply, Streamed, not_found, reply, text_reply
from muster.edge.request import Request
from muster.features.httpboot import dated, types, within
from muster.features.httpboot.digests import Digests
from muster.features.httpboot.settings import HTTPBootSettings
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.happenings import FAILED, LONGEST, Detail, Happening, Tell, untold
from muster.kernel.names import shown
from muster.netboot.contract import LIMIT_WRITTEN_BYTES, PASSED_BYTES, BootFiles, BootPath, Entry

# A page that somebody put among the boot files runs nothing in the name of the member.
_SANDBOX: Header = (b"content-security-policy", b"sandbox")
# Of boot loaders there is one, from a host's directory to where its loader lies.
_LINKS = 8
# GRUB gives up at a 503 (docs/facts/content-and-boot.md), so what other members have is waited for a while first.
_COMES_S, _AGAIN_S = 3.0, 0.2
_PAGES = frozenset({b"text/html;charset=utf-8", b"image/svg+xml"})


@dataclass(frozen=True)
class Ports:
    """Where firmware finds the feature; None: not over that."""

    http: int | None = None
    https: int | None = None


@dataclass(frozen=True)
class _File:
    file: Opened
    digest: Digest | None
    written_at: float


class HTTPBoot:
    """The feature's service.

    Args:
        tree: the cluster's tree, where that is what is served; None: a directory that is nobody's business.
        tell: hears who asked for what, and how much of it went out.
    """

    def __init__(
        self,
        root: Path,
        threads: Executor,
        digests: Digests,
        *,
        tree: BootFiles | None = None,
        ports: Ports = Ports(),
        tell: Tell = untold,
    ) -> None:
        self.root = root
        self._threads = threads
        self._digests = digests
        self._tree = tree
        self._ports = ports
        self._tell = tell

    def told(self) -> Told:
        return Told({"http_port": self._ports.http, "https_port": self._ports.https})

    async def answer(self, request: Request) -> Reply | Streamed:
        """Return the answer to a call below the mount.

        Raises:
            Denied: no such path may be asked for.
            Unavailable: it is there, and this member has it not, or cannot read it.
        """
        if request.method not in ("GET", "HEAD"):
            return not_found()
        told = _Told(self._tell, request)
        try:
            found = await self._found(request)
        except MusterError as e:
            told.failed(e)
            raise
        if isinstance(found, Streamed):
            return told.streamed(found)
        told.whole(found)
        return found

    async def _found(self, request: Request) -> Reply | Streamed:
        if self._tree is not None:
            await self._tree.current()
        try:
            found = await self._opened(request.path)
        except NotFound as e:
            # Firmware and boot loaders try a dozen names for each host, which is no news.
            return await self._elsewhere(request) or text_reply(404, str(e), accept=request.accept)
        return self._answered(found, request)

    async def _opened(self, path: str) -> _File:
        seen: list[tuple[Digest | None, float]] = []

        def opening() -> Opened:
            file = within.opened(self.root, path)
            try:
                seen.append((self._digests.of(file), file.identity[2] / 1e9))
            except OSError as e:
                file.close()
                raise Unavailable(f"Reading a boot file failed: {e.strerror or e}") from e
            return file

        file = await files.opened(self._threads, opening)
        if file is None:  # pragma: no cover - within.opened returns a file or raises
            raise NotFound("Not found")
        return _File(file, *seen[0])

    def _answered(self, found: _File, request: Request) -> Reply | Streamed:
        if (instead := _instead(request, found.digest, found.written_at)) is not None:
            found.file.close()
            return instead
        return files.answered(
            found.file,
            request,
            threads=self._threads,
            called="a boot file",
            content_type=types.of(request.path),
            digest=found.digest,
            also=_dated(request, found.written_at),
        )

    async def _elsewhere(self, request: Request) -> Reply | Streamed | None:
        """Return the answer with what the cluster has and this member's directory lacks; None: nobody has it.

        Raises:
            Unavailable: it is with other members alone, and does not come soon.
        """
        entry = await self._leads_to(request.path)
        if entry is None or self._tree is None:
            return None
        if entry.size <= LIMIT_WRITTEN_BYTES:
            request.hold(entry.size)
            with contextlib.suppress(NotFound, Rejected):
                return _whole(await self._tree.read(entry.path), request)
        else:
            with contextlib.suppress(NotFound, Unavailable):
                return await self._passed(entry, request, self._tree)
        limit = time.monotonic() + _COMES_S
        while time.monotonic() < limit:
            await asyncio.sleep(_AGAIN_S)
            with contextlib.suppress(NotFound):
                return self._answered(await self._opened(request.path), request)
        raise Unavailable(f"{entry.path} is not on this member yet")

    async def _passed(self, entry: Entry, request: Request, tree: BootFiles) -> Reply | Streamed:
        """Return the answer with a large file that other members have.

        Raises:
            NotFound, Unavailable: as ``BootFiles.passed`` of its first piece.
        """
        digest = Digest("sha256", entry.digest)
        if (instead := _instead(request, digest, entry.modified_at)) is not None:
            return instead
        found = files.framed(
            entry.size,
            request,
            content_type=types.of(request.path),
            digest=digest,
            also=_dated(request, entry.modified_at),
        )
        if isinstance(found, Reply):
            return found
        if not found.count:
            return Reply(found.status, b"", found.headers)
        request.hold(min(found.count, PASSED_BYTES))
        pieces = tree.passed(entry, found.first, found.count)
        try:
            first = await anext(pieces)
        except BaseException:
            await pieces.aclose()
            raise
        return Streamed(found.status, found.headers, _following(first, pieces))

    async def _leads_to(self, path: str) -> Entry | None:
        """Return the file of the cluster's tree to which a path leads, over links; None: there is none, or nobody knows."""
        if self._tree is None:
            return None
        try:
            at = BootPath.parse(path.strip("/"))
            for _ in range(_LINKS):
                found = await self._tree.lookup(at)
                if found is None or found.kind == "file":
                    return found
                at = BootPath.parse(posixpath.normpath(posixpath.join(at.parent, found.target)))
        except (Rejected, Unavailable):
            # Without the store what lies here is the newest that anybody can tell of.
            pass
        return None


@dataclass(frozen=True)
class _Told:
    """Tells of one call, when its answer has ended."""

    tell: Tell
    request: Request

    def failed(self, why: MusterError) -> None:
        self._said(why.status, {FAILED: str(why)})

    def whole(self, answer: Reply) -> None:
        self._said(answer.status, {"bytes": len(answer.body) if self.request.method != "HEAD" else 0})

    def streamed(self, answer: Streamed) -> Streamed:
        """Return an answer that is told of at its end: how much of it was taken, whoever ended it."""
        wanted = 0
        if self.request.method != "HEAD":
            wanted = next((int(v) for k, v in answer.headers if k == b"content-length"), 0)
        sent = 0

        async def counted() -> AsyncGenerator[bytes, None]:
            nonlocal sent
            async with contextlib.aclosing(answer.pieces) as pieces:
                async for piece in pieces:
                    yield piece
                    # Whoever asks for the next one has given the last to the client's connection.
                    sent += len(piece)

        def end() -> None:
            answer.end()
            is_cut = sent < wanted
            self._said(answer.status, {"bytes": sent, **({"of": wanted, "cut": 1} if is_cut else {})})

        return Streamed(answer.status, answer.headers, counted(), end)

    def _said(self, status: int, more: dict[str, Detail]) -> None:
        # Without its query, which may be a secret.
        path = shown(self.request.raw_path.decode("latin-1"), LONGEST)
        said: dict[str, Detail] = {"method": self.request.method, "path": path, "status": status, **more}
        self.tell(Happening("http", None, self.request.peer.address, said))


def _whole(content: bytes, request: Request) -> Reply:
    """Return the answer with a file that is given from the store, and never in parts."""
    content_type = types.of(request.path)
    passed: list[Header] = [(b"content-type", content_type), (b"x-content-type-options", b"nosniff")]
    if content_type in _PAGES:
        passed.append(_SANDBOX)
    return conditions.answered(content, request, Digest("sha256", hashlib.sha256(content).hexdigest()), passed)


def _dated(request: Request, written_at: float) -> list[Header]:
    """Return the headers that a boot file has beside those of every file."""
    sandbox = [_SANDBOX] if types.of(request.path) in _PAGES else []
    return [(b"last-modified", dated.written(written_at)), *sandbox]


def _instead(request: Request, digest: Digest | None, written_at: float) -> Reply | None:
    """Return what is said instead of a file by the dates that a client has; None: nothing."""
    if dated.is_refused(request, written_at):
        return reply(412, b"", b"text/plain")
    if dated.is_unmodified(request, written_at):
        tag = [(b"etag", digest.tag.encode())] if digest is not None else []
        return Reply(304, b"", [*tag, (b"last-modified", dated.written(written_at)), SERVER_HEADER])
    return None


async def _following(first: bytes, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(pieces):
        yield first
        # What the client has is not held while the next piece comes.
        del first
        async for piece in pieces:
            yield piece
            del piece


def _ports(settings: HTTPBootSettings, balancing: Balancing) -> Ports:
    """Return the ports at which the cluster's address has the feature."""
    plain, secure = balancing.service("anaconda"), balancing.service("smartproxy")
    return Ports(
        plain.listen_port if plain is not None and settings.on("http") else None,
        secure.listen_port if secure is not None and settings.on("https") else None,
    )


@asynccontextmanager
async def opened(settings: HTTPBootSettings, around: Surroundings) -> AsyncIterator[HTTPBoot]:
    """Yield the service.

    Raises:
        Misconfigured: this member has neither a tree of boot files nor the directory that the settings name.
    """
    tree: BootFiles | None = around.boot
    if settings.root_dir is not None and (tree is None or settings.root_dir.absolute() != tree.root.absolute()):
        root, tree = settings.root_dir, None
        if not root.is_dir():
            raise Misconfigured(f"There is no directory {root}, which root_dir names")
    elif tree is None:
        raise Misconfigured("This member has no tree of boot files, and root_dir names no directory")
    else:
        root = tree.root
    ports = _ports(settings, modelled(around.cluster, frozenset())) if around.cluster is not None else Ports()
    threads = ThreadPoolExecutor(files.THREADS, thread_name_prefix="boot-files")
    try:
        with Digests() as digests:
            yield HTTPBoot(root, threads, digests, tree=tree, ports=ports, tell=around.tell)
    finally:
        # A file system that hangs is not waited for.
        threads.shutdown(wait=False, cancel_futures=True)
