"""The ASGI application: one call from its first byte to its reply.

A call's journey: request id → path → mount → is the feature here (503) → may the caller (403) → which route (404) → the
feature's endpoint → may this page read the reply (403) → reply, log, metrics. Everything a call may be refused for is
decided before a feature sees it; what a page of another site may not read is withheld whatever it says.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from muster.cluster.sections import Edge as Limits
from muster.edge import paths
from muster.edge.authorise import Gate
from muster.edge.budget import Budget
from muster.edge.feature import FOREMAN_PREFIXES, Features
from muster.edge.metrics import EdgeMetrics
from muster.edge.replies import JSON, TEXT, Header, Reply, Streamed, error_reply, not_found, reply, text_reply
from muster.edge.request import ClientGone, Receive, Request, TooLarge, TooSlow
from muster.edge.routes import Access, Mount, Route, RouteTable
from muster.kernel import log
from muster.kernel.errors import Denied, MusterError, Unavailable
from muster.kernel.names import refuse_unless_text, source_of
from muster.kernel.rings import LogRings

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Scope = MutableMapping[str, Any]

_log = log.logger("edge")
_UNROUTED = "(no route)"
# Asked by machines every second; one record each would push everything else out of the rings.
_QUIET_PREFIXES = ("/health/", "/metrics/", "/cluster/rings.json", "/dhcp_files/")
_WATCHED_PREFIX = "/cluster/"
_STARTED = "Started %s %s"
_FINISHED = "Finished %s %s with %d (%.2f ms)"
_ACCESS = _FINISHED + " client=%s request_id=%s"
# What is sent at once of a long reply.
_PIECE_BYTES = 64 << 10
_NO_SERVICES: Mapping[str, str] = {}
_CLOSE: Header = (b"connection", b"close")
_HSTS: Header = (b"strict-transport-security", b"max-age=31536000")


@dataclass(frozen=True)
class Mounted:
    """A mount with what answers it.

    Attributes:
        feature: the wire name of the feature it belongs to; None for the edge's own mounts, which are always there.
        service: what endpoints get.
    """

    mount: Mount
    service: Any
    feature: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "table", RouteTable(self.mount.routes))

    table: RouteTable = field(init=False, repr=False)


class _Way(NamedTuple):
    """Where a call leads.

    Attributes:
        mounted: what is mounted there; the name of a feature when this member lacks it.
        path: the path inside the mount.
        found: the route and its path parameters; None when there is no such route.
    """

    mounted: Mounted | str
    path: str
    found: tuple[Route, dict[str, str]] | None


class Application:
    """The edge's ASGI application.

    Attributes:
        draining: while true, every reply closes its connection.
        access_log: called with one finished line per call; None writes none.
        services: the balancer's service that calls of a scheme belong to, for the rings of traffic.
    """

    def __init__(
        self,
        *,
        gate: Gate,
        features: Features,
        mounts: Iterable[Mounted],
        limits: Limits,
        rings: LogRings,
        metrics: EdgeMetrics,
        access_log: Callable[[str], None] | None = None,
        foreman: bool = True,
        budget: Budget | None = None,
        services: Mapping[str, str] = _NO_SERVICES,
    ) -> None:
        self.draining = False
        # Whether Foreman's prefixes answer 503 where nothing is mounted; elsewhere than on its own listeners they do not.
        self._foreman = foreman
        self._gate = gate
        self._features = features
        self._limits = limits
        self.budget = budget or Budget(limits.memory_bytes)
        self._rings = rings
        self._metrics = metrics
        self._access_log = access_log
        self._services = services
        self._refusals = log.Seldom()
        self._ids = map("{:08x}".format, itertools.count(int.from_bytes(os.urandom(3), "big") << 8))
        self._root: Mounted | None = None
        self._by_first_segment: dict[bytes, list[tuple[bytes, Mounted | str]]] = {}
        self._ways: dict[tuple[str, bytes], _Way] = {}
        self.mount(mounts)

    def beside(self, mounts: Iterable[Mounted], gate: Gate, service: str = "") -> Application:
        """Return another application of the same member, on which Foreman calls nothing; the memory budget is shared.

        ``service`` is the one whose port it answers.
        """
        other = Application(
            gate=gate,
            features=self._features,
            mounts=mounts,
            limits=self._limits,
            rings=self._rings,
            metrics=self._metrics,
            access_log=self._access_log,
            foreman=False,
            budget=self.budget,
            services={"http": service, "https": service} if service else _NO_SERVICES,
        )
        other.draining = self.draining
        return other

    def mount(self, mounts: Iterable[Mounted]) -> None:
        """Replace all mounts at once."""
        mounts = list(mounts)
        self._busy = bool(mounts) and all(m.mount.busy for m in mounts)
        by_prefix: dict[str, Mounted | str] = dict(FOREMAN_PREFIXES) if self._foreman else {}
        self._root = None
        for mounted in mounts:
            if mounted.mount.prefix:
                by_prefix[mounted.mount.prefix] = mounted
            else:
                self._root = mounted
        table: dict[bytes, list[tuple[bytes, Mounted | str]]] = {}
        for prefix in sorted(by_prefix, key=len, reverse=True):
            written = prefix.encode()
            table.setdefault(written.split(b"/")[1], []).append((written, by_prefix[prefix]))
        self._by_first_segment = table
        # Routes without parameters are asked most; their way is found once, by the same rules as everybody else's.
        plain = [
            (r.method, (m.mount.prefix + r.path).encode())
            for m, r in routes_of(mounts)
            if "{" not in r.path and not r.slash_allowed
        ]
        self._ways = {(method, raw_path): self._way(method, raw_path) for method, raw_path in plain}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        given_id = headers.get(b"x-request-id")
        rid = _safe_id(given_id) if given_id else next(self._ids)
        token = log.request_id.set(rid)
        path: str = scope["path"]
        shown = None if path == "/metrics" or path.startswith(_QUIET_PREFIXES) else _shown(path)
        # Whoever reads the log there would push everything else out of it.
        is_kept = not self._busy and not path.startswith(_WATCHED_PREFIX)
        if shown is not None and is_kept:
            self._rings.add_unworded(time.time(), "INFO", _STARTED, (scope["method"], shown), rid[:8])
        request = Request(
            scope,
            receive,
            peer=scope["state"]["peer"],
            request_id=rid,
            headers=headers,
            body_limit_bytes=self._limits.body_limit_bytes,
            body_timeout_s=self._limits.body_timeout_s,
            budget=self.budget,
        )
        try:
            answer, route = await self._answered(request, scope)
            if isinstance(answer, Streamed) and _is_of_another_site(request, answer.headers):
                await answer.pieces.aclose()
                answer.end()
                answer = _forbidden()
            if isinstance(answer, Streamed):
                await self._stream(request, answer, send, scope["state"])
            else:
                answer = await self._send(request, answer, send)
        finally:
            request.release()
            log.request_id.reset(token)
        seconds = time.perf_counter() - started
        self._metrics.observe(request.method if route is not _UNROUTED else "(any)", route, answer.status, seconds)
        if shown is not None:
            service = self._services.get(request.scheme)
            # Who looks at the traffic is none.
            if service is not None and not path.startswith(_WATCHED_PREFIX):
                self._metrics.traffic.count(service, answer.status, seconds)
            finished = (request.method, shown, answer.status, seconds * 1000)
            if is_kept:
                self._rings.add_unworded(time.time(), "INFO", _FINISHED, finished, rid[:8])
            if self._access_log is not None:
                self._access_log(_ACCESS % (*finished, request.peer.address, rid))

    async def _send(self, request: Request, answer: Reply, send: Send) -> Reply:
        """Send a reply, or the one there is room for in its place, and return it."""
        answer = _guarded(request, answer)
        if request.unread:
            await request.discard()
        if len(answer.body) > _PIECE_BYTES:
            answer = self._afforded(request, answer)
        headers = self._headers(request, answer.headers)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        at = 0
        # Each piece waits until the client has taken most of those before it.
        while len(answer.body) - at > _PIECE_BYTES:
            await send({"type": "http.response.body", "body": answer.body[at : at + _PIECE_BYTES], "more_body": True})
            at += _PIECE_BYTES
        await send({"type": "http.response.body", "body": answer.body[at:]})
        return answer

    async def _stream(self, request: Request, answer: Streamed, send: Send, state: Mapping[str, Any]) -> None:
        """Send a body as it comes. A client that goes away ends it at once, an error of its pieces cuts the connection."""
        cut, drain = state["cut"], state["drain"]
        headers = self._headers(request, answer.headers)
        # A client that sends while it is answered is heard of when it is written to.
        there = contextlib.nullcontext() if request.unread else request.while_waited_for()
        try:
            async with there:
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                async for piece in answer.pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                    # It is held no longer, and the server waits when it is given the next one, held for nothing as well.
                    del piece
                    await drain()
                if request.unread:
                    await request.discard()
                await send({"type": "http.response.body", "body": b""})
        except ClientGone:
            # Nobody is there to be told.
            pass
        except MusterError as e:
            # Whatever breaks off can be asked for as often as anybody likes.
            held = self._refusals.held_back((source_of(request.peer.address), "cut"))
            if held is not None:
                called = f"{request.method} {_shown(request.raw_path.decode('latin-1'))}"
                _log.warning(f"A reply was cut: {e} ({called}){log.and_more(held)}")
            cut()
            # Not before the connection is gone: the server would complain of a reply that is not whole.
            await request.gone()
        finally:
            try:
                await answer.pieces.aclose()
            finally:
                answer.end()

    async def _answered(self, request: Request, scope: Scope) -> tuple[Reply | Streamed, str]:
        """Return the reply and the route's template for metrics."""
        template = _UNROUTED
        admitted = False
        try:
            self._judge(request)
            raw_path: bytes = scope["raw_path"]
            if scope["query_string"]:
                paths.check_query(scope["query_string"])
            way = self._ways.get((request.method, raw_path)) or self._way(request.method, raw_path)
            mounted, request.path, found = way
            if isinstance(mounted, str):
                if not self._foreman:
                    return not_found(), template
                raise Unavailable(self._absent(mounted, request))
            if mounted.feature is not None:
                why = self._features.why_absent(mounted.feature, request.scheme)
                if why is not None:
                    raise Unavailable(why)
            access = found[0].access if found else mounted.mount.access
            if access is not Access.OPEN:
                await self._gate.admit(access, request)
                admitted = True
            if found is None:
                if mounted.mount.unrouted is not None:
                    if mounted.mount.busy:
                        template = mounted.mount.prefix
                    return await mounted.mount.unrouted(mounted.service, request), template
                return not_found(), template
            route, arguments = found
            template = mounted.mount.prefix + route.path
            for name, value in arguments.items():
                refuse_unless_text(value, f"the path's {name}")
            if arguments:
                request.arguments = arguments
            if route.streamed is not None and request.method == "GET":
                return await route.streamed(mounted.service, request), template
            return await route.endpoint(mounted.service, request), template
        except (TooLarge, TooSlow, ClientGone) as e:
            return error_reply(e, accept=request.accept), template
        except MusterError as e:
            level = _log.error if e.status >= 500 else _log.warning
            # A refusal's text names the path inside its mount, as Foreman knows it; an operator asks for the whole one.
            called = f" ({request.method} {_shown(scope['path'])})" if isinstance(e, Denied) else ""
            # What a member asked, and where, is nothing for a client.
            called += f" ({_shown(e.place)})" if e.place else ""
            held: int | None = 0
            if not admitted:
                # Anybody may be refused as often as he likes; it must not push anything else out of the log.
                held = self._refusals.held_back((source_of(request.peer.address), type(e)))
            if held is not None:
                level(f"{e}{called}{log.and_more(held)}", status=e.status, error=type(e).__name__)
            return error_reply(e, accept=request.accept), template
        except Exception:  # noqa: BLE001 - boundary: a bug in one call must not take the member down
            _log.exception(f"Bug while answering {request.method} {_shown(scope['path'])}")
            text = f"Internal error; the log of this member has it under request id {request.request_id}"
            return text_reply(500, text, accept=request.accept), template

    def _afforded(self, request: Request, answer: Reply) -> Reply:
        """Return a long reply, counted until it is sent, or the one there is room for."""
        try:
            request.hold(len(answer.body))
        except Unavailable as e:
            return error_reply(e, accept=request.accept)
        return answer

    def _judge(self, request: Request) -> None:
        request.closing = time.monotonic() > request.peer.until
        if request.peer.certificate is not None:
            try:
                self._gate.judge(request.peer)
            except Denied:
                # The next handshake asks anew, and refuses or takes what the client has by then.
                request.closing = True
                raise

    def _absent(self, feature: str, request: Request) -> str:
        return self._features.why_absent(feature, request.scheme) or f"Feature {feature} is not mounted on this member"

    def _way(self, method: str, raw_path: bytes) -> _Way:
        paths.refuse_unless_path(raw_path)
        mounted, rest = self._mounted(paths.sent(raw_path))
        path = paths.inside(rest)
        return _Way(mounted, path, None if isinstance(mounted, str) else mounted.table.find(method, path))

    def _mounted(self, path: bytes) -> tuple[Mounted | str, bytes]:
        for prefix, mounted in self._by_first_segment.get(path.split(b"/", 2)[1], ()):
            if path == prefix or path.startswith(prefix + b"/"):
                return mounted, path[len(prefix) :]
        return self._root or "root", path

    def _headers(self, request: Request, headers: list[Header]) -> list[Header]:
        if request.over_tls:
            headers = [*headers, _HSTS]
        if self.draining or request.closing or request.unread:
            headers = [*headers, _CLOSE]
        return headers


def _forbidden() -> Reply:
    return reply(403, b"Forbidden", TEXT)


def _guarded(request: Request, answer: Reply) -> Reply:
    """Refuse JSON to a page of another site (docs/facts/smart-proxy-protocol.md §2.2, JsonCsrf)."""
    return _forbidden() if _is_of_another_site(request, answer.headers) else answer


def _is_of_another_site(request: Request, headers: Sequence[Header]) -> bool:
    """Whether JSON would go to a page of another site."""
    referer = request.header(b"referer")
    return bool(referer and headers[0][1] is JSON and _foreign(referer, request.header(b"host")))


def _foreign(referer: str, host: str | None) -> bool:
    try:
        return urlsplit(referer).hostname != urlsplit(f"//{host or ''}").hostname
    except ValueError:
        return True


def _safe_id(raw: bytes) -> str:
    """A caller's request id as it may stand in logs: printable ASCII, at most 64 characters."""
    return "".join(c for c in raw[:64].decode("latin-1") if c.isascii() and c.isprintable()) or "-"


def _shown(path: str) -> str:
    if path.isascii() and path.isprintable() and len(path) < 200:
        return path
    return "".join(c if c.isprintable() else "?" for c in path[:200])


def unprotected(mounts: Sequence[Mounted]) -> list[tuple[str, str]]:
    """Return method and path of every route that anybody may call, sorted; a test holds the list.

    Where a mount has no routes and answers whatever is below it, that is one of them, of every method.
    """
    below = [("*", f"{m.mount.prefix}/…") for m in mounts if m.mount.unrouted is not None and not m.mount.routes]
    return sorted(
        [*below, *((r.method, m.mount.prefix + r.path) for m, r in routes_of(mounts) if r.access is Access.OPEN)]
    )


def routes_of(mounts: Sequence[Mounted]) -> list[tuple[Mounted, Route]]:
    return [(m, r) for m in mounts for r in m.mount.routes]
