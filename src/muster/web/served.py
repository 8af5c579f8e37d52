"""The page on an administrator's own host: over plain HTTP on loopback, for the one browser that has opened its address.

The address that is printed has a secret in it, which opens once: it gives the browser a cookie, and is worth nothing after.
Who else on this host asks, by whatever name, is refused.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry

from muster.cluster.sections import Edge as Limits
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Callers, Gate
from muster.edge.feature import Features
from muster.edge.metrics import EdgeMetrics
from muster.edge.replies import TEXT, Reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.edge.server import opened as server_opened
from muster.kernel.errors import Denied
from muster.kernel.rings import LogRings
from muster.kernel.secrets import Secret
from muster.web import api
from muster.web.assets import PREFIX
from muster.web.live import Looked

HOST = "127.0.0.1"
_BITS = 256
_LISTENER = "page"


@dataclass
class _Door(Gate):
    """Lets the browser in that has opened the address; every call must name this host's loopback address."""

    port: int = 0
    once: Secret | None = field(default_factory=lambda: Secret(secrets.token_urlsafe(_BITS // 8)))
    cookie: Secret = field(default_factory=lambda: Secret(secrets.token_urlsafe(_BITS // 8)))

    @property
    def cookie_name(self) -> str:
        # Browsers do not tell ports apart: two such pages must not take each other's.
        return f"muster_{self.port}"

    async def admit(self, access: Access, request: Request) -> None:
        """Return when the caller is that browser.

        Raises:
            Denied: it is not.
        """
        self.refuse_other_names(request)
        if access is not Access.OPEN and not self._shows_cookie(request):
            raise Denied("Open the address that muster status --serve has printed; it lets one browser in, once")

    def refuse_other_names(self, request: Request) -> None:
        """Refuse a call to another name: a page elsewhere may have given this address one of its own.

        Raises:
            Denied: it is such a call.
        """
        if request.header(b"host") != f"{HOST}:{self.port}":
            raise Denied(f"This page is at http://{HOST}:{self.port} only")

    async def enter(self, request: Request) -> Reply:
        """Give the browser its cookie, once, and send it to the page."""
        self.refuse_other_names(request)
        once = self.once
        if once is None or not _same(request.arguments["once"], once):
            raise Denied(
                "This address has been opened already, or never was one; stop muster status --serve and start anew"
            )
        if request.method != "GET":
            raise Denied("This address is opened with GET")
        self.once = None
        given = f"{self.cookie_name}={self.cookie.reveal()}; Path={PREFIX}/; HttpOnly; SameSite=Strict"
        kept = ((b"set-cookie", given.encode()), (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"))
        return reply(303, b"", TEXT, (b"location", f"{PREFIX}/".encode()), *kept)

    def _shows_cookie(self, request: Request) -> bool:
        given = [
            value
            for name, raw in request.sent_headers
            if name == b"cookie"
            for part in raw.decode("latin-1").split(";")
            for key, _, value in [part.strip().partition("=")]
            if key == self.cookie_name
        ]
        return len(given) == 1 and _same(given[0], self.cookie)


def _same(given: str, right: Secret) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), right.reveal().encode())


@contextlib.asynccontextmanager
async def opened(watch: Looked, port: int = 0) -> AsyncIterator[str]:
    """Serve the page on loopback and yield the address that opens once; a ``port`` of 0 is any that is free.

    Raises:
        Misconfigured: the port cannot be had.
    """
    door = _Door(Callers())
    metrics = EdgeMetrics(CollectorRegistry())
    entrance = Mount("", (Route("GET", "/{once}[/]", Access.OPEN, _enter),))
    limits = Limits(proxy_protocol="off")
    application = Application(
        gate=door,
        features=Features(),
        mounts=(),
        limits=limits,
        rings=LogRings(1, 0),
        metrics=metrics,
        foreman=False,
    )
    viewing = api.Viewing(watch, None, lambda: application.draining)
    application.mount([Mounted(entrance, door), Mounted(api.MOUNT, viewing)])
    async with server_opened(application, limits, metrics) as server:
        listener = server.listen(_LISTENER, HOST, port)
        door.port = listener.port
        assert door.once is not None  # noqa: S101 - nobody has come yet
        yield f"http://{HOST}:{listener.port}/{door.once.reveal()}/"


async def _enter(door: _Door, request: Request) -> Reply:
    return await door.enter(request)
