"""Routes of the Registration feature (docs/facts/smart-proxy-protocol.md §16). Hosts are the clients, and show nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.edge.replies import Reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route

if TYPE_CHECKING:
    from muster.features.registration.service import Registration


async def script(registration: Registration, request: Request) -> Reply:
    return await registration.answered(request, registration.script(request))


async def register(registration: Registration, request: Request) -> Reply:
    return await registration.answered(request, registration.registered(request))


MOUNT = Mount(
    "/register",
    (
        Route("GET", "/", Access.OPEN, script),
        Route("POST", "/", Access.OPEN, register),
    ),
)
