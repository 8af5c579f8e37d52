"""Routes of the Templates feature (docs/facts/smart-proxy-protocol.md §15). Hosts are the clients, and show nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote_plus

from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.names import shown

if TYPE_CHECKING:
    from muster.features.templates.service import Templates


async def template_server(templates: Templates, _request: Request) -> Reply:
    return json_reply({"templateServer": templates.url})


async def template(templates: Templates, request: Request) -> Reply:
    kind = request.arguments["kind"]
    return await templates.fetched(request, f"/unattended/{quote_plus(kind)}", f"Failed to proxy /{shown(kind)}")


async def template_of_hostgroup(templates: Templates, request: Request) -> Reply:
    parts = (request.arguments[name] for name in ("kind", "template", "hostgroup"))
    what = f"Failed to retrieve {shown(request.arguments['kind'])} hostgroup template"
    return await templates.fetched(request, f"/unattended/{'/'.join(map(quote_plus, parts))}", what)


async def report(templates: Templates, request: Request) -> Reply:
    kind = request.arguments["kind"]
    return await templates.reported(request, f"/unattended/{quote_plus(kind)}", f"Failed to proxy /{shown(kind)}")


async def userdata(templates: Templates, request: Request) -> Reply:
    parts = (value for name in ("mac", "kind") if (value := request.arguments.get(name)) is not None)
    what = f"Failed to retrieve {shown(request.arguments['kind'])} userdata template"
    return await templates.fetched(request, f"/userdata/{'/'.join(map(quote_plus, parts))}", what)


UNATTENDED = Mount(
    "/unattended",
    (
        Route("GET", "/templateServer", Access.OPEN, template_server),
        Route("GET", "/{kind}", Access.OPEN, template),
        Route("GET", "/{kind}/{template}/{hostgroup}", Access.OPEN, template_of_hostgroup),
        Route("POST", "/{kind}", Access.OPEN, report),
    ),
)

USERDATA = Mount(
    "/userdata",
    (
        Route("GET", "/{kind}", Access.OPEN, userdata),
        Route("GET", "/{mac}/{kind}", Access.OPEN, userdata),
    ),
)
