"""A request as the features see it: decoded once, bounded, with the peer's certificate."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from cryptography import x509

from muster.edge import params as parameters
from muster.edge.budget import Budget, Held
from muster.edge.paths import check_query
from muster.kernel.errors import MusterError, Rejected
from muster.pki.facts import common_name
from muster.pki.trust import Standing, Trust

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


_DISCARD_LIMIT_BYTES = 4 << 20
_DISCARD_TIMEOUT_S = 2.0
# On average, ``body_timeout_s`` aside. A modem is faster; whoever sends a byte now and then holds a backend for ever.
_LEAST_BYTES_PER_S = 500


class TooLarge(MusterError):
    """The request is larger than this member accepts."""

    status = 413


class NotUnderstood(MusterError):
    """The body is of a kind that nothing here reads."""

    status = 415


class TooSlow(MusterError):
    """The request's body did not arrive in time."""

    status = 408


class ClientGone(MusterError):
    """The client closed the connection before its request was whole."""

    status = 400


@dataclass(frozen=True)
class Peer:
    """Who is on the other end, known once per connection.

    Attributes:
        address: the client's IP address: the PROXY header's when a balancer sent one.
        certificate: the verified client certificate, DER; None over HTTP or when the client sent none.
        balancer: the balancer's address when the connection came through one.
        trust: the CAs that were trusted when the handshake was made.
        until: when the connection gets too old, by the monotonic clock; the first reply after that closes it.
    """

    address: str
    certificate: bytes | None = None
    balancer: str | None = None
    trust: Trust | None = None
    until: float = float("inf")

    @cached_property
    def name(self) -> str | None:
        """The certificate's common name, lower case; None without one (docs/facts/smart-proxy-protocol.md §3)."""
        found = common_name(self.certificate) if self.certificate else None
        return found.lower() if found else None

    @cached_property
    def parsed(self) -> x509.Certificate | None:
        """The certificate, None without one; TLS has read it before."""
        return x509.load_der_x509_certificate(self.certificate) if self.certificate else None

    def issued_under(self, trust: Trust) -> tuple[Standing, x509.Certificate | None]:
        """Return who of these CAs issued the certificate; found once per connection and set of CAs."""
        kept: tuple[Trust, tuple[Standing, x509.Certificate | None]] | None = self.__dict__.get("_issued")
        if kept is None or kept[0] is not trust:
            found: tuple[Standing, x509.Certificate | None] = (
                trust.issuer(self.parsed) if self.parsed is not None else ("unknown", None)
            )
            kept = self.__dict__["_issued"] = (trust, found)
        return kept[1]


class Request:
    """One call.

    ``path`` is relative to the mount and cleaned; ``arguments`` are the path's parameters; ``closing``: the reply is the
    last of its connection.
    """

    __slots__ = (
        "_body",
        "_complete",
        "_held",
        "_receive",
        "_scope",
        "arguments",
        "body_limit_bytes",
        "body_timeout_s",
        "budget",
        "closing",
        "headers",
        "method",
        "path",
        "peer",
        "request_id",
        "scheme",
    )

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        *,
        peer: Peer,
        request_id: str,
        headers: dict[bytes, bytes],
        body_limit_bytes: int,
        body_timeout_s: float,
        budget: Budget | None = None,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._body: bytes | None = None
        self._complete = False
        self.method: str = scope["method"]
        self.scheme: str = scope["scheme"]
        self.path: str = scope["path"]
        self.peer = peer
        self.request_id = request_id
        self.headers = headers
        self.arguments: dict[str, str] = {}
        self.closing = False
        self.budget = budget
        self._held = Held(budget)
        self.body_limit_bytes = body_limit_bytes
        self.body_timeout_s = body_timeout_s

    @property
    def raw_path(self) -> bytes:
        """The whole path as it was sent."""
        path: bytes = self._scope["raw_path"]
        return path

    @property
    def raw_query(self) -> bytes:
        """The query as it was sent, without its question mark."""
        query: bytes = self._scope["query_string"]
        return query

    @property
    def sent_headers(self) -> list[tuple[bytes, bytes]]:
        """Every header in the order it came, names in lower case; what came twice stands twice."""
        headers: list[tuple[bytes, bytes]] = self._scope["headers"]
        return headers

    @property
    def over_tls(self) -> bool:
        return self.scheme == "https"

    def header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return value.decode("latin-1") if value is not None else None

    @property
    def accept(self) -> str | None:
        return self.header(b"accept")

    def query(self) -> parameters.Params:
        return parameters.from_query(self._scope["query_string"])

    async def body(self) -> bytes:
        """Return the whole body.

        Raises:
            TooLarge: it exceeds the member's limit.
            TooSlow: it did not arrive in time.
            ClientGone: the client closed the connection.
        """
        if self._body is None:
            try:
                async with asyncio.timeout(self.body_timeout_s):
                    self._body = await self._read()
            except TimeoutError:
                raise TooSlow(f"the body did not arrive within {self.body_timeout_s:g} s") from None
        return self._body

    async def _read(self) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while not self._complete:
            chunk = await self._arrived()
            size += len(chunk)
            if size > self.body_limit_bytes:
                raise TooLarge(f"the body is larger than {self.body_limit_bytes} bytes")
            self.hold(len(chunk))
            chunks.append(chunk)
        return b"".join(chunks)

    async def _arrived(self) -> bytes:
        """Return what arrives next of the body, which may be nothing."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client closed the connection before the body was whole")
        self._complete = not message.get("more_body", False)
        arrived: bytes = message.get("body", b"")
        return arrived

    async def params(self) -> parameters.Params:
        """Return query, form body and path parameters as one; the body wins over the query, the path over both.

        JSON and other bodies are ignored, as in the Ruby proxy (docs/facts/smart-proxy-protocol.md §2.1).

        Raises:
            Rejected: they are malformed, or no UTF-8.
            NotUnderstood: the body is a multipart form.
        """
        query = self.query() if self._scope["query_string"] else {}
        return parameters.merged(query, await self.form(), self.arguments)

    async def form(self) -> parameters.Params:
        """Return what stands in a form body; nothing where there is none.

        Raises:
            As :meth:`params`.
        """
        if self.method in ("GET", "HEAD"):
            return {}
        content_type = self.header(b"content-type") or "application/x-www-form-urlencoded"
        kind = content_type.partition(";")[0].strip().lower()
        if kind == "application/x-www-form-urlencoded":
            raw = await self.body()
            check_query(raw)
            return parameters.from_form(raw)
        if kind == "multipart/form-data":
            raise NotUnderstood("A multipart form is not understood here; send it urlencoded, as Foreman does")
        return {}

    async def text_params(self, *names: str) -> dict[str, str | None]:
        """Return these parameters as texts; absent and bare ones are None.

        Raises:
            Rejected: one is a list or a map.
        """
        given = await self.params()
        out: dict[str, str | None] = {}
        for name in names:
            value = given.get(name)
            if value is not None and not isinstance(value, str):
                raise Rejected(f"Invalid parameter {name}: one text is expected, not a {type(value).__name__}")
            out[name] = value
        return out

    def hold(self, size: int) -> None:
        """Count so many bytes against the member's budget until :meth:`release`.

        Raises:
            Unavailable: unfinished calls hold too much.
        """
        self._held.hold(size)

    def release(self) -> None:
        """Count what this call held no longer."""
        self._held.release()

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives; each piece must come within ``body_timeout_s``, and all of them at a least pace.

        Raises:
            TooSlow: it did not.
            ClientGone: the client closed the connection.
        """
        # A client's waits count, not how long whoever takes the body lets it wait.
        left_s = self.body_timeout_s
        clock = asyncio.get_running_loop().time
        while not self._complete:
            asked = clock()
            try:
                async with asyncio.timeout(left_s):
                    piece = await self._arrived()
            except TimeoutError:
                raise TooSlow(f"the body did not go on within {self.body_timeout_s:g} s, or by too few bytes") from None
            left_s = min(self.body_timeout_s, left_s + len(piece) / _LEAST_BYTES_PER_S - (clock() - asked))
            if piece:
                yield piece

    async def gone(self) -> None:
        """Wait until the client has closed the connection, which may be never; what is left of its body is not kept."""
        with contextlib.suppress(ClientGone):
            while True:
                await self._arrived()

    @contextlib.asynccontextmanager
    async def while_waited_for(self) -> AsyncIterator[None]:
        """Run the block as long as the client is there. What is left of its body is not kept.

        Raises:
            ClientGone: it closed the connection, and the block was ended where it waited.
        """
        me = asyncio.current_task()
        is_left = is_over = False

        def leave(gone: asyncio.Task[None]) -> None:
            nonlocal is_left
            # Once the client is gone this is as good as called: that the block ended first, it has to see for itself.
            if me is not None and not is_over and not gone.cancelled():
                is_left = True
                me.cancel()

        gone = asyncio.create_task(self.gone(), name="client")
        gone.add_done_callback(leave)
        try:
            yield
        except asyncio.CancelledError:
            if not is_left or me is None or me.uncancel() > 0:
                raise
            raise ClientGone("the client closed the connection before it was answered") from None
        finally:
            is_over = True
            gone.cancel()

    async def discard(self) -> None:
        """Let the rest of a body nobody read arrive, within bounds: closing before it has, resets the reply away."""
        if not self.unread or b"expect" in self.headers:
            return
        left = _DISCARD_LIMIT_BYTES
        with contextlib.suppress(TimeoutError, ClientGone):
            async with asyncio.timeout(_DISCARD_TIMEOUT_S):
                while not self._complete and left > 0:
                    left -= len(await self._arrived())

    @property
    def unread(self) -> bool:
        """Whether a body may still be on its way."""
        return not self._complete and (
            b"transfer-encoding" in self.headers or self.headers.get(b"content-length", b"0") != b"0"
        )
