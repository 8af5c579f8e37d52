"""Routes of the Discovery feature (docs/facts/smart-proxy-protocol.md §18.3): one for machines, the others for Foreman."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.edge.replies import Reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route

if TYPE_CHECKING:
    from muster.features.discovery.service import Discovery


async def create(discovery: Discovery, request: Request) -> Reply:
    return await discovery.created(request)


async def inventory(discovery: Discovery, request: Request) -> Reply:
    return await discovery.inventory(request)


async def facts(discovery: Discovery, request: Request) -> Reply:
    return await discovery.facts(request)


async def reboot(discovery: Discovery, request: Request) -> Reply:
    return await discovery.reboot(request)


async def kexec(discovery: Discovery, request: Request) -> Reply:
    return await discovery.kexec(request)


async def cycle(discovery: Discovery, request: Request) -> Reply:
    return await discovery.cycle(request)


MOUNT = Mount(
    "/discovery",
    (
        Route("POST", "/create", Access.OPEN, create),
        Route("GET", "/{ip}/inventory/facter", Access.TRUSTED, inventory),
        Route("GET", "/{ip}/facts", Access.TRUSTED, facts),
        Route("PUT", "/{ip}/power/reboot", Access.TRUSTED, reboot),
        Route("PUT", "/{ip}/power/kexec", Access.TRUSTED, kexec),
        Route("PUT", "/{ip}/reboot", Access.TRUSTED, cycle),
    ),
)
