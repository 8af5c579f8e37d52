"""Routes of External IPAM (docs/facts/externalipam.md §2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from muster.edge.replies import JSON, SERVER_HEADER, Reply, json_reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Endpoint, Mount, Route
from muster.features.externalipam import asked, shapes
from muster.features.externalipam.service import ExternalIPAM
from muster.kernel.errors import MusterError
from muster.kernel.log import logger

_log = logger("features")

Answered = Callable[[ExternalIPAM, Request], Awaitable[Reply]]


async def groups(ipam: ExternalIPAM, _request: Request) -> Reply:
    return json_reply([shapes.of_group(g) for g in await ipam.groups()])


async def group(ipam: ExternalIPAM, request: Request) -> Reply:
    return json_reply(shapes.of_group(await ipam.group(_group(request))))


async def subnets(ipam: ExternalIPAM, request: Request) -> Reply:
    return json_reply([shapes.of_subnet(s) for s in await ipam.subnets(_group(request))])


async def subnet(ipam: ExternalIPAM, request: Request) -> Reply:
    return json_reply(shapes.of_subnet(await ipam.subnet(*await _subnet(request))))


async def next_ip(ipam: ExternalIPAM, request: Request) -> Reply:
    given = await request.text_params("mac")
    found = await ipam.next_ip(*await _subnet(request), given["mac"])
    if found is None:
        address, prefix = request.arguments["address"], request.arguments["prefix"]
        return json_reply({"error": f"The IPAM has no free address in {address}/{prefix}"}, 404)
    return json_reply({"data": str(found)})


async def holds(ipam: ExternalIPAM, request: Request) -> Reply:
    address, prefix, named = await _subnet(request)
    return json_reply(await ipam.holds(address, prefix, request.arguments["ip"], named))


async def add(ipam: ExternalIPAM, request: Request) -> Reply:
    address, prefix, named = await _subnet(request)
    await ipam.add(address, prefix, request.arguments["ip"], named)
    return reply(201, b"", JSON)


async def remove(ipam: ExternalIPAM, request: Request) -> Reply:
    address, prefix, named = await _subnet(request)
    await ipam.remove(address, prefix, request.arguments["ip"], named)
    return Reply(204, b"", [(b"content-type", JSON), SERVER_HEADER])


async def _subnet(request: Request) -> tuple[str, str, str | None]:
    given = await request.text_params("group")
    return request.arguments["address"], request.arguments["prefix"], given["group"]


def _group(request: Request) -> str:
    return asked.group_in_path(request.raw_path, request.arguments["group"])


def _in_json(endpoint: Answered) -> Endpoint:
    """Say a refusal as this feature's clients know it: in JSON, under ``error``."""

    async def answered(ipam: ExternalIPAM, request: Request) -> Reply:
        try:
            return await endpoint(ipam, request)
        except MusterError as e:
            place = f" ({e.place})" if e.place else ""
            level = _log.error if e.status >= 500 else _log.warning
            level(f"{e}{place}", status=e.status, error=type(e).__name__)
            return json_reply({"error": str(e)}, e.status)

    return answered


_ADDRESS = "/subnet/{address}/{prefix}/{ip}"

MOUNT = Mount(
    "/ipam",
    (
        Route("GET", "/groups", Access.TRUSTED, _in_json(groups)),
        Route("GET", "/groups/{group}", Access.TRUSTED, _in_json(group)),
        Route("GET", "/groups/{group}/subnets", Access.TRUSTED, _in_json(subnets)),
        Route("GET", "/subnet/{address}/{prefix}", Access.TRUSTED, _in_json(subnet)),
        # Before the next one, which has the same shape.
        Route("GET", "/subnet/{address}/{prefix}/next_ip", Access.TRUSTED, _in_json(next_ip)),
        Route("GET", _ADDRESS, Access.TRUSTED, _in_json(holds)),
        Route("POST", _ADDRESS, Access.TRUSTED, _in_json(add)),
        Route("DELETE", _ADDRESS, Access.TRUSTED, _in_json(remove)),
    ),
)
