"""``/features``, ``/version`` and ``/v2/features``: what this proxy is (docs/facts/smart-proxy-protocol.md §5)."""

from __future__ import annotations

from functools import lru_cache

from muster.edge.feature import Features
from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route


async def features(served: Features, _: Request) -> Reply:
    return json_reply(sorted(served.running()))


async def version(served: Features, _: Request) -> Reply:
    return _version(served.version, tuple(served.running()))


# Foreman and every monitoring asks it; it changes only when a feature starts or stops.
@lru_cache(maxsize=8)
def _version(version: str, running: tuple[str, ...]) -> Reply:
    return json_reply({"version": version, "modules": dict.fromkeys(running, version)})


async def features_v2(served: Features, _: Request) -> Reply:
    return json_reply({name: s.as_json() for name, s in served.served.items()})


ROOT = Mount(
    "",
    (
        Route("GET", "/features", Access.OPEN, features),
        Route("GET", "/version", Access.OPEN, version),
    ),
)
V2 = Mount("/v2", (Route("GET", "/features", Access.TRUSTED, features_v2),))
