"""Routes of the Facts feature (docs/facts/smart-proxy-protocol.md §17)."""

from __future__ import annotations

from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.facts.service import Facts


async def every(facts: Facts, _request: Request) -> Reply:
    return json_reply(await facts.every())


async def one(facts: Facts, request: Request) -> Reply:
    name = request.arguments["name"]
    return json_reply({name: await facts.one(name)})


MOUNT = Mount(
    "/facts",
    (
        Route("GET", "/", Access.TRUSTED, every),
        Route("GET", "/{name}", Access.TRUSTED, one),
    ),
)
