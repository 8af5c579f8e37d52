"""Routes of the Realm feature (docs/facts/smart-proxy-protocol.md §14)."""

from __future__ import annotations

import json
from typing import Any

from muster.edge.replies import JSON, Reply, empty_reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.realm.service import Realm
from muster.kernel.errors import Rejected


async def enrol(realm: Realm, request: Request) -> Reply:
    given = await request.text_params("hostname", "userclass", "rebuild", "update")
    if given["hostname"] is None:
        raise Rejected("'create' requires the hostname parameter")
    told = await realm.enrol(
        request.arguments["realm"],
        given["hostname"],
        given["userclass"],
        is_rebuilt=given["rebuild"] == "true",
        is_update=given["update"] == "true",
    )
    return _pretty(told)


async def remove(realm: Realm, request: Request) -> Reply:
    told = await realm.remove(request.arguments["realm"], request.arguments["hostname"])
    return empty_reply(JSON) if told is None else _pretty(told)


def _pretty(told: Any) -> Reply:
    # As Ruby's pretty JSON: two blanks a level.
    return reply(200, json.dumps(told, indent=2, ensure_ascii=False).encode("utf-8", "replace"), JSON)


MOUNT = Mount(
    "/realm",
    (
        Route("POST", "/{realm}[/]", Access.TRUSTED, enrol),
        Route("DELETE", "/{realm}/{hostname}[/]", Access.TRUSTED, remove),
    ),
)
