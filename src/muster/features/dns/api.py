"""Routes of the DNS feature (docs/facts/smart-proxy-protocol.md §7.1)."""

from __future__ import annotations

from muster.edge.replies import Reply, empty_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.dns.service import DNS
from muster.kernel.errors import Rejected


async def create(dns: DNS, request: Request) -> Reply:
    given = await request.text_params("fqdn", "value", "type")
    fqdn, value, kind = given["fqdn"], given["value"], given["type"]
    if fqdn is None or value is None or kind is None:
        raise Rejected("'create' requires fqdn, value, and type parameters")
    await dns.create(fqdn, value, kind)
    return empty_reply()


async def delete(dns: DNS, request: Request) -> Reply:
    await dns.delete(request.arguments["value"], request.arguments.get("type"))
    return empty_reply()


MOUNT = Mount(
    "/dns",
    (
        Route("POST", "/", Access.TRUSTED, create),
        Route("DELETE", "/{value}[/]", Access.TRUSTED, delete),
        Route("DELETE", "/{value}/{type}", Access.TRUSTED, delete),
    ),
)
