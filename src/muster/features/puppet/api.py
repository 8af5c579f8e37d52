"""Routes of the Puppet feature (docs/facts/smart-proxy-protocol.md §11)."""

from __future__ import annotations

from muster.edge.replies import Reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.puppet.service import Puppet
from muster.kernel.errors import Unsupported


async def environments(puppet: Puppet, _request: Request) -> Reply:
    return json_reply(await puppet.environments())


async def environment(puppet: Puppet, request: Request) -> Reply:
    return json_reply(await puppet.environment(request.arguments["environment"]))


async def classes(puppet: Puppet, request: Request) -> Reply:
    return json_reply(await puppet.classes(request.arguments["environment"]))


async def classes_and_errors(puppet: Puppet, request: Request) -> Reply:
    return json_reply(await puppet.classes_and_errors(request.arguments["environment"]))


async def run(_puppet: Puppet, _request: Request) -> Reply:
    raise Unsupported("Puppetrun support has been removed in version 2.3")


MOUNT = Mount(
    "/puppet",
    (
        Route("GET", "/environments", Access.TRUSTED, environments),
        Route("GET", "/environments/{environment}", Access.TRUSTED, environment),
        Route("GET", "/environments/{environment}/classes", Access.TRUSTED, classes),
        Route("GET", "/environments/{environment}/classes_and_errors", Access.TRUSTED, classes_and_errors),
        Route("POST", "/run", Access.TRUSTED, run),
    ),
)
