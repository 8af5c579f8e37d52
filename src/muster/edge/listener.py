"""An accept loop of our own: limits before the handshake, PROXY v2 before TLS, and a context that can be swapped.

Owning the loop makes a certificate reload one attribute assignment: connections in progress keep the context they began
with, new ones get the new. A context is built whole before the swap, so garbage never replaces a working certificate.
"""

from __future__ import annotations

import asyncio
import collections
import errno
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from muster.cluster.sections import Edge as Limits
from muster.edge import proxy_protocol
from muster.edge.handshake import accepted
from muster.edge.metrics import EdgeMetrics
from muster.edge.protocol import MemberProtocol
from muster.kernel import log
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import source_of, unmapped
from muster.pki.trust import Trust

_log = log.logger("edge")
_ACCEPTS_PER_WAKE = 64
_RECEIVE_BYTES = 32 << 10
# Linux' default for net.ipv4.ip_unprivileged_port_start.
_PRIVILEGED_BELOW = 1024
_NOT_SENT: int | None = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_NOT_SENT_BYTES = 256 << 10
_PAUSE_WITHOUT_DESCRIPTORS_S = 0.2
_SHUTDOWN_TIMEOUT_S = 3.0
# Of the connections beyond those that clients may have: balancers must be able to ask, and an operator on this host.
_RESERVE = 64
_THIS_HOST = ("127.0.0.1", "::1")


def bound(address: str, port: int) -> socket.socket:
    """Return a listening TCP socket; ``*`` is every address of both families.

    Raises:
        Misconfigured: the address is not this host's, or the port is taken or not permitted.
    """
    host = "::" if address == "*" else address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets whose protocol number says TCP; without it small TLS replies stall 40 ms.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Taken over by every connection. The kernel would let it grow to megabytes, and so much is read at once.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "*" else 1)
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as e:
        sock.close()
        raise Misconfigured(f"Listening on {address} port {port} failed: {e.strerror or e}{remedy(e, port)}") from e
    sock.setblocking(False)
    return sock


def remedy(error: OSError, port: int) -> str:
    """Return what to do about a port that cannot be had; empty where the system's words say it."""
    if error.errno == errno.EADDRINUSE:
        return "; ss -ltnp names the program that has it"
    if error.errno == errno.EACCES and port < _PRIVILEGED_BELOW:
        return "; ports below 1024 are for units with CAP_NET_BIND_SERVICE (packaging/README.md)"
    return ""


@dataclass
class Listener:
    """One listening socket.

    Attributes:
        name: ``https`` or ``http``.
        context: the TLS context new connections get; None serves plain HTTP.
        trust: the CAs that context verifies clients against.
        balancers: addresses that may send a PROXY header.
        shared: other processes accept from the same socket.
    """

    name: str
    sock: socket.socket
    limits: Limits
    make_protocol: Callable[[], MemberProtocol]
    metrics: EdgeMetrics
    context: ssl.SSLContext | None = None
    trust: Trust | None = None
    balancers: frozenset[str] = frozenset()
    shared: bool = False
    open: int = 0
    _by_address: collections.Counter[str] = field(default_factory=collections.Counter)
    # In the order in which they came; those of clients may be ended for who comes after them.
    _handshakes: dict[asyncio.Task[None], bool] = field(default_factory=dict)
    _said_at: float = 0.0
    _unsaid: int = 0
    _accepting: bool = False

    @property
    def port(self) -> int:
        port: int = self.sock.getsockname()[1]
        return port

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._resume()

    async def stop(self) -> None:
        """Take what already waits in the backlog, then close the socket: nobody who was let in by the kernel is reset."""
        if self._accepting:
            self._accept_waiting()
            self._loop.remove_reader(self.sock)
            self._accepting = False
        self.sock.close()
        if self._handshakes:
            await asyncio.wait(list(self._handshakes), timeout=self.limits.handshake_timeout_s)

    def _resume(self) -> None:
        if self.sock.fileno() >= 0:
            self._loop.add_reader(self.sock, self._woken)
            self._accepting = True

    def _woken(self) -> None:
        # Whoever takes all that wait has them to itself, while the others, woken for them, too, stand idle.
        self._accept_waiting(1 if self.shared else _ACCEPTS_PER_WAKE)

    def _accept_waiting(self, most: int = _ACCEPTS_PER_WAKE) -> None:
        for _ in range(most):
            try:
                connection, peer = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as e:
                if e.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # Spinning on a full descriptor table would starve the connections that will free some. Before it is
                    # said: what says it may need a descriptor, too.
                    self._loop.remove_reader(self.sock)
                    self._accepting = False
                    self._loop.call_later(_PAUSE_WITHOUT_DESCRIPTORS_S, self._resume)
                    self._refuse("no descriptors left")
                return
            self._admit(connection, unmapped(peer[0]))

    def _admit(self, connection: socket.socket, address: str) -> None:
        is_balancer = address in self.balancers
        kept_for = is_balancer or address in _THIS_HOST
        if self.open >= self.limits.connections + (_RESERVE if kept_for else 0) and not self._make_room():
            connection.close()
            self._refuse("too many connections in all", address)
            return
        if not is_balancer and self._by_address[source_of(address)] >= self.limits.connections_per_address:
            connection.close()
            self._refuse("too many connections of one address", address)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if _NOT_SENT is not None:
            # What is on its way may be as much as the way holds; what waits to be sent is memory, megabytes of it.
            connection.setsockopt(socket.IPPROTO_TCP, _NOT_SENT, _NOT_SENT_BYTES)
        self.open += 1
        task = self._loop.create_task(self._serve(connection, address, is_balancer), name=f"handshake {address}")
        self._handshakes[task] = not kept_for

        def ended(task: asyncio.Task[None]) -> None:
            del self._handshakes[task]
            if task.cancelled():
                # Before its first step, so that nothing of it has run.
                connection.close()
                self._lost("")

        task.add_done_callback(ended)

    def _enter_as_client(self) -> None:
        """Have the connection of this task count as a client's.

        Raises:
            Rejected: clients have all the places they may have, and no handshake of theirs makes room.
        """
        if self.open > self.limits.connections and not self._make_room():
            raise Rejected("too many connections in all")
        task = asyncio.current_task()
        if task in self._handshakes:
            # The last of them, as if it had come only now.
            del self._handshakes[task]
            self._handshakes[task] = True

    def _make_room(self) -> bool:
        """End the oldest handshake that is not finished; whether there was one. Who means it needs milliseconds."""
        oldest = next((task for task, may_end in self._handshakes.items() if may_end), None)
        if oldest is None:
            return False
        # Its place is free once it has ended, which is in this turn of the loop; until then it is nobody's to end again.
        self._handshakes[oldest] = False
        oldest.cancel()
        return True

    async def _serve(self, connection: socket.socket, address: str, is_balancer: bool) -> None:
        counted = ""
        protocol: MemberProtocol | None = None
        try:
            async with asyncio.timeout(self.limits.handshake_timeout_s):
                origin = await self._origin(connection) if is_balancer else None
            if origin is not None:
                # From here on it is a client's: the balancer's own places are for what it asks itself.
                address = origin.address
                self._enter_as_client()
            source = source_of(address)
            if (origin or not is_balancer) and self._by_address[source] >= self.limits.connections_per_address:
                raise Rejected("too many connections of one address")
            protocol = self.make_protocol()
            protocol.origin = (origin.address, origin.port) if origin else None
            self._by_address[source] += 1
            counted = source
            protocol.on_lost = lambda: self._lost(counted)
            made = protocol
            if self.context is None:
                await self._loop.connect_accepted_socket(lambda: made, connection)
            else:
                accepted.set(connection)
                protocol.trust = self.trust
                await self._loop.connect_accepted_socket(
                    lambda: made,
                    connection,
                    ssl=self.context,
                    ssl_handshake_timeout=self.limits.handshake_timeout_s,
                    # A silent peer's missing close_notify would otherwise hold a drain for 30 s.
                    ssl_shutdown_timeout=_SHUTDOWN_TIMEOUT_S,
                )
        except (OSError, ssl.SSLError, TimeoutError, Rejected) as e:
            connection.close()
            self._lost(counted)
            self._refuse(_why(e), address)
        except asyncio.CancelledError:
            if protocol is not None and protocol.transport is not None:
                # It finished in this very moment, and counts from now on as the protocol says.
                return
            connection.close()
            self._lost(counted)
            self._refuse("an unfinished handshake made room", address)

    async def _origin(self, connection: socket.socket) -> proxy_protocol.Origin | None:
        mode = self.limits.proxy_protocol
        if mode == "off":
            return None
        if await proxy_protocol.has_header(connection):
            return await proxy_protocol.read(connection)
        if mode == "required":
            raise Rejected("a balancer's connection without PROXY header")
        return None

    def _lost(self, address: str) -> None:
        self.open -= 1
        if address:
            self._by_address[address] -= 1
            if self._by_address[address] <= 0:
                del self._by_address[address]

    def _refuse(self, why: str, address: str = "-") -> None:
        self.metrics.refused.labels(self.name, why.partition(":")[0][:60]).inc()
        # An attacker chooses how often this happens; the log must not let him.
        now = time.monotonic()
        if now - self._said_at < 1.0:
            self._unsaid += 1
            return
        _log.info("Connection closed before a request", listener=self.name, client=address, why=why, more=self._unsaid)
        self._said_at, self._unsaid = now, 0


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "handshake or PROXY header took too long"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"client certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS handshake failed: {error.reason or error}"
    if isinstance(error, Rejected):
        return str(error)
    return "closed by the client during the handshake"
