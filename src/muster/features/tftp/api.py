"""Routes of the TFTP feature (docs/facts/smart-proxy-protocol.md §9.1)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from muster.edge.replies import HTML, Reply, empty_reply, json_reply, reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.features.tftp import shapes

if TYPE_CHECKING:
    from muster.features.tftp.service import TFTP

# Of forms from before there were other boot loaders.
_OLD = "Syslinux"
_CONFIG = ("pxeconfig", "syslinux_config", "targetos", "release", "arch", "bootfile_suffix")
# A file of the longest kind as a form writes it at worst, three characters a byte, and the other parameters.
_FORM_BYTES = 3 * shapes.LIMIT_BYTES + (64 << 10)


async def config(tftp: TFTP, request: Request) -> Reply:
    return reply(200, await tftp.config(request.arguments["variant"], request.arguments["mac"]), HTML)


async def set_config(tftp: TFTP, request: Request) -> Reply:
    variant, mac = request.arguments.get("variant", _OLD), request.arguments["mac"]
    # Before the form is read, which may be long: this is what is looked at first.
    shapes.mac(mac)
    shapes.variant(variant)
    await tftp.set_config(variant, mac, await _given(request, *_CONFIG))
    return empty_reply()


async def remove_config(tftp: TFTP, request: Request) -> Reply:
    await tftp.remove_config(request.arguments.get("variant", _OLD), request.arguments["mac"])
    return empty_reply()


async def set_default(tftp: TFTP, request: Request) -> Reply:
    variant = request.arguments.get("variant", _OLD)
    shapes.variant(variant)
    given = await _given(request, "menu")
    await tftp.set_default(variant, given["menu"])
    return empty_reply()


async def fetch_boot_file(tftp: TFTP, request: Request) -> Reply:
    given = await _given(request, "prefix", "path")
    await tftp.fetch(given["prefix"], given["path"])
    return empty_reply()


async def server_name(tftp: TFTP, _request: Request) -> Reply:
    # JSON that says it is a page, as recorded.
    return reply(200, json.dumps({"serverName": tftp.server_name}, separators=(",", ":")).encode(), HTML)


async def fetches(tftp: TFTP, _request: Request) -> Reply:
    return json_reply([shapes.of_fetch(one) for one in await tftp.fetches()])


async def _given(request: Request, *names: str) -> dict[str, str | None]:
    request.body_limit_bytes = max(request.body_limit_bytes, _FORM_BYTES)
    return await request.text_params(*names)


MOUNT = Mount(
    "/tftp",
    (
        Route("POST", "/fetch_boot_file", Access.TRUSTED, fetch_boot_file),
        Route("POST", "/{variant}/create_default", Access.TRUSTED, set_default),
        Route("GET", "/{variant}/{mac}", Access.TRUSTED, config),
        Route("POST", "/{variant}/{mac}", Access.TRUSTED, set_config),
        Route("DELETE", "/{variant}/{mac}", Access.TRUSTED, remove_config),
        Route("POST", "/create_default", Access.TRUSTED, set_default),
        Route("POST", "/{mac}", Access.TRUSTED, set_config),
        Route("DELETE", "/{mac}", Access.TRUSTED, remove_config),
        Route("GET", "/serverName", Access.TRUSTED, server_name),
        # Ours: what is under way, for people.
        Route("GET", "/fetches", Access.TRUSTED, fetches),
    ),
)
