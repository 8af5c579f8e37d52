"""Routes of the HTTPBoot feature (docs/facts/smart-proxy-protocol.md §10). Firmware is the client, and shows nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.edge.replies import Reply, Streamed
from muster.edge.request import Request
from muster.edge.routes import Mount

if TYPE_CHECKING:
    from muster.features.httpboot.service import HTTPBoot


async def below(httpboot: HTTPBoot, request: Request) -> Reply | Streamed:
    return await httpboot.answer(request)


MOUNT = Mount("/httpboot", (), unrouted=below, busy=True)
EFI = Mount("/EFI", (), unrouted=below, busy=True)
