"""The member's listeners as one thing that is opened, drained and closed."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from email.utils import formatdate
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from muster.cluster.sections import Edge as Limits
from muster.edge.application import Application
from muster.edge.handshake import TellingSSLObject
from muster.edge.listener import Listener, bound
from muster.edge.metrics import EdgeMetrics
from muster.edge.protocol import Deadlines, MemberProtocol
from muster.kernel import log
from muster.pki.trust import Trust

_log = log.logger("edge")
_SWEEP_S = 0.5
# A client that has not asked for so long gets its connection closed while the member drains. Shorter would meet requests
# that are under way; the idle timeout is as long as a drain may take.
_PARTING_S = 5.0
_LAST_S = 0.5


class Server:
    """Serves one application on any number of sockets. Use :func:`opened`."""

    def __init__(
        self, application: Application, limits: Limits, metrics: EdgeMetrics, balancers: frozenset[str]
    ) -> None:
        self.application = application
        self.limits = limits
        self.metrics = metrics
        self._balancers = balancers
        self._state = ServerState()
        self._config = _configured(application)
        self._applications = [application]
        self._listeners: list[Listener] = []

    def listen(
        self,
        name: str,
        address: str,
        port: int,
        context: ssl.SSLContext | None = None,
        application: Application | None = None,
        trust: Trust | None = None,
    ) -> Listener:
        """Start accepting on one address; TLS when a context is given; another application when one is.

        Raises:
            Misconfigured: the address or port cannot be had.
        """
        listener = self.listen_on(bound(address, port), name, context, application, trust)
        _log.info("Listening", listener=name, address=address, port=listener.port)
        return listener

    def listen_on(
        self,
        sock: socket.socket,
        name: str,
        context: ssl.SSLContext | None = None,
        application: Application | None = None,
        trust: Trust | None = None,
        *,
        shared: bool = False,
    ) -> Listener:
        """As :meth:`listen`, on a socket that listens already; ``shared``: other processes accept from it, too."""
        deadlines = Deadlines(
            self.limits.header_timeout_s,
            self.limits.idle_timeout_s,
            self.limits.connection_age_s,
            self.limits.write_timeout_s,
        )
        config = self._config
        if application is not None:
            config = _configured(application)
            self._applications.append(application)
        make: Any = partial(
            MemberProtocol, config, self._state, {}, deadlines=deadlines, budget=self.application.budget
        )
        if context is not None:
            context.sslobject_class = TellingSSLObject
        listener = Listener(name, sock, self.limits, make, self.metrics, context, trust, self._balancers, shared)
        listener.start()
        self._listeners.append(listener)
        return listener

    @property
    def listeners(self) -> Sequence[Listener]:
        return self._listeners

    def present(self, name: str, context: ssl.SSLContext, trust: Trust | None = None) -> None:
        """Give every new connection of the listener of that name this context; those in progress keep theirs.

        ``trust`` is the CAs it verifies clients against: what was taken under others is judged again, call by call.
        """
        context.sslobject_class = TellingSSLObject
        for listener in self._listeners:
            if listener.name == name and listener.context is not None:
                listener.context, listener.trust = context, trust

    def drain(self, draining: bool) -> None:
        """Let every reply close its connection, or no longer; those that wait for a request wait ``_PARTING_S`` at most."""
        for application in self._applications:
            application.draining = draining
        if not draining:
            return
        latest = asyncio.get_running_loop().time() + _PARTING_S
        for connection in self._state.connections:
            if isinstance(connection, MemberProtocol):
                connection.part_by(latest)

    def trust(self, balancers: frozenset[str]) -> None:
        """Take PROXY headers from these addresses from now on, and from no others."""
        self._balancers = balancers
        for listener in self._listeners:
            listener.balancers = balancers

    @property
    def connections(self) -> int:
        return len(self._state.connections)

    async def stop(self) -> None:
        """Close the listeners, finish what runs within ``stop_timeout_s``, then close what is left."""
        self.drain(True)
        for listener in self._listeners:
            await listener.stop()
        for connection in list(self._state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.limits.stop_timeout_s):
                while self._state.connections or self._state.tasks:
                    await asyncio.sleep(0.02)
        except TimeoutError:
            _log.warning("Calls in flight were cut", calls=len(self._state.tasks), waited_s=self.limits.stop_timeout_s)
            for connection in list(self._state.connections):
                connection.transport.abort()
            # What only waited for its client has ended by itself then, and complains of nothing.
            late: set[asyncio.Task[None]] = set(self._state.tasks)
            if late:
                _, late = await asyncio.wait(late, timeout=_LAST_S)
            for task in late:
                task.cancel()

    def tick(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]

    async def sweep(self) -> None:
        """Close expired connections and renew the Date header, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            self.tick()
            now = loop.time()
            for connection in list(self._state.connections):
                if not isinstance(connection, MemberProtocol):
                    continue
                if connection.stalled(now):
                    connection.transport.abort()
                elif connection.expired(now):
                    # An idle connection is closed politely; one that is still sending its headers gets no more time. One
                    # that still takes its reply is no idle one: it has as long as it goes on.
                    if connection.cycle is None or not connection.cycle.response_complete:
                        connection.transport.abort()
                    elif not connection.has_unsent:
                        connection.transport.close()
            self.metrics.held.set(self.application.budget.held_bytes)
            for listener in self._listeners:
                self.metrics.connections.labels(listener.name).set(listener.open)
            await asyncio.sleep(_SWEEP_S)


def _configured(application: Application) -> Config:
    # uvicorn believes X-Forwarded-* of loopback clients by default, scheme included: anybody on this host could call an
    # HTTPS connection HTTP and need no certificate. Only a PROXY header speaks for a client here.
    config = Config(
        application, http=MemberProtocol, lifespan="off", log_config=None, access_log=False, proxy_headers=False
    )
    config.load()
    return config


@contextlib.asynccontextmanager
async def opened(
    application: Application, limits: Limits, metrics: EdgeMetrics, balancers: frozenset[str] = frozenset()
) -> AsyncIterator[Server]:
    """Yield a server; on leaving, its listeners are closed and calls in flight finished."""
    server = Server(application, limits, metrics, balancers)
    server.tick()
    sweeper = asyncio.create_task(server.sweep(), name="edge sweep")
    try:
        yield server
    finally:
        try:
            await server.stop()
        finally:
            sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweeper
