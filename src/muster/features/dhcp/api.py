"""Routes of the DHCP feature (docs/facts/smart-proxy-protocol.md §8.1)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from muster.edge.replies import JSON, SERVER_HEADER, Reply, Streamed, empty_reply, json_reply, not_found, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Record, Records
from muster.features.dhcp.service import DHCP

# More are sent piece by piece, so that other calls are answered between two of them.
_AT_ONCE = 500
_METHODS = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "LINK", "UNLINK"})
_METHOD_HEADER = b"x-http-method-override"


async def subnets(dhcp: DHCP, _request: Request) -> Reply:
    return json_reply([shapes.of_subnet(s) for s in await dhcp.subnets()])


async def records(dhcp: DHCP, request: Request) -> Reply:
    found = await dhcp.records(request.arguments["network"])
    return await _whole(found)


async def streamed(dhcp: DHCP, request: Request) -> Reply | Streamed:
    found = await dhcp.records(request.arguments["network"])
    if len(found.reservations) + len(found.leases) <= _AT_ONCE:
        return await _whole(found)
    headers = [(b"content-type", JSON), (b"x-content-type-options", b"nosniff"), SERVER_HEADER]
    return Streamed(200, headers, _pieces(found))


async def unused_ip(dhcp: DHCP, request: Request) -> Reply:
    given = await request.text_params("mac", "from", "to")
    found = await dhcp.unused(request.arguments["network"], given["mac"], given["from"], given["to"])
    return json_reply({"ip": str(found) if found is not None else None})


async def at(dhcp: DHCP, request: Request) -> Reply:
    found = await dhcp.at(request.arguments["network"], request.arguments["ip"])
    return json_reply([shapes.of_record(r) for r in found])


async def of(dhcp: DHCP, request: Request) -> Reply:
    return json_reply(shapes.of_record(await dhcp.of(request.arguments["network"], request.arguments["mac"])))


async def create(dhcp: DHCP, request: Request) -> Reply:
    if await _method(request) != "POST":
        return not_found()
    await dhcp.create(request.arguments["network"], await request.params())
    return empty_reply(JSON)


async def delete_at(dhcp: DHCP, request: Request) -> Reply:
    await dhcp.delete_at(request.arguments["network"], request.arguments["ip"])
    return empty_reply()


async def delete_of(dhcp: DHCP, request: Request) -> Reply:
    await dhcp.delete_of(request.arguments["network"], request.arguments["mac"])
    return empty_reply()


async def posted_at(dhcp: DHCP, request: Request) -> Reply:
    return await delete_at(dhcp, request) if await _method(request) == "DELETE" else not_found()


async def posted_of(dhcp: DHCP, request: Request) -> Reply:
    return await delete_of(dhcp, request) if await _method(request) == "DELETE" else not_found()


async def _method(request: Request) -> str:
    """Return the method that a POST stands for: here, and nowhere else, a form may name another.

    Source: docs/facts/smart-proxy-protocol.md §2.1.
    """
    given = (await request.form()).get("_method") or request.header(_METHOD_HEADER)
    method = given.upper() if isinstance(given, str) else "POST"
    return method if method in _METHODS else "POST"


async def _whole(found: Records) -> Reply:
    return reply(200, b"".join([piece async for piece in _pieces(found)]), JSON)


async def _pieces(found: Records) -> AsyncGenerator[bytes, None]:
    yield b'{"reservations":['
    async for piece in _list(found.reservations):
        yield piece
    yield b'],"leases":['
    async for piece in _list(found.leases):
        yield piece
    yield b"]}"


async def _list(records: Sequence[Record]) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(records), _AT_ONCE):
        yield (b"," if start else b"") + shapes.encoded(records[start : start + _AT_ONCE])
        await asyncio.sleep(0)


MOUNT = Mount(
    "/dhcp",
    (
        Route("GET", "/", Access.TRUSTED, subnets),
        Route("GET", "/{network}", Access.TRUSTED, records, streamed),
        Route("GET", "/{network}/unused_ip", Access.TRUSTED, unused_ip),
        Route("GET", "/{network}/ip/{ip}", Access.TRUSTED, at),
        Route("GET", "/{network}/mac/{mac}", Access.TRUSTED, of),
        Route("POST", "/{network}", Access.TRUSTED, create),
        Route("DELETE", "/{network}/ip/{ip}", Access.TRUSTED, delete_at),
        Route("DELETE", "/{network}/mac/{mac}", Access.TRUSTED, delete_of),
        Route("POST", "/{network}/ip/{ip}", Access.TRUSTED, posted_at),
        Route("POST", "/{network}/mac/{mac}", Access.TRUSTED, posted_of),
    ),
)
