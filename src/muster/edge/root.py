"""``/features``, ``/version`` and ``/v2/features``: what this proxy is (docs/facts/smart-proxy-protocol.md §5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import lru_cache

from muster.edge.feature import Features
from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.secrets import Secret


async def features(served: Features, _: Request) -> Reply:
    return json_reply(sorted(served.running()))


async def version(served: Features, _: Request) -> Reply:
    return _version(served.version, tuple(served.running()))


# Foreman and every monitoring asks it; it changes only when a feature starts or stops.
@lru_cache(maxsize=8)
def _version(version: str, running: tuple[str, ...]) -> Reply:
    return json_reply({"version": version, "modules": dict.fromkeys(running, version)})


async def features_v2(served: Features, request: Request) -> Reply:
    await asyncio.gather(*(s.refresh() for s in served.served.values()))
    return json_reply({name: s.as_json(secrets_for(request)) for name, s in served.served.items()})


def secrets_for(request: Request) -> Callable[[Secret], str | None]:
    """Return what a trusted caller is shown of settings that are secrets: themselves to one with a certificate.

    Over plain HTTP a caller is trusted by its address' name, and everybody on the way reads along.
    """
    may_know = request.over_tls and request.peer.certificate is not None
    return Secret.reveal if may_know else lambda _: None


ROOT = Mount(
    "",
    (
        Route("GET", "/features", Access.OPEN, features),
        Route("GET", "/version", Access.OPEN, version),
    ),
)
V2 = Mount("/v2", (Route("GET", "/features", Access.TRUSTED, features_v2),))
