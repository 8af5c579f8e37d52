"""Routes of the container gateway: those that Foreman calls, and beside them a registry.

Source: docs/facts/smart-proxy-protocol.md §18.1.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from muster.edge.replies import Reply, Streamed, json_reply
from muster.edge.request import NotUnderstood, Request
from muster.edge.routes import Access, Mount, Route
from muster.features.container_gateway import mapping

if TYPE_CHECKING:
    from muster.features.container_gateway.service import Gateway

T = TypeVar("T")

_PREFIX = "/container_gateway"
# Thousands of hosts that may read hundreds of images each; `edge.memory_bytes` bounds it, too.
_LARGEST_FORM = 64 << 20


async def users(gateway: Gateway, _request: Request) -> Reply:
    return json_reply({"users": await gateway.grants.users()})


async def repository_list(gateway: Gateway, request: Request) -> Reply:
    await gateway.grants.list_repositories(await _read(mapping.repositories, request))
    return json_reply({})


async def user_repository_mapping(gateway: Gateway, request: Request) -> Reply:
    await gateway.grants.replace("user", await _read(partial(mapping.granted, of="users"), request))
    return json_reply({})


async def update_hosts(gateway: Gateway, request: Request) -> Reply:
    await gateway.grants.list_hosts(await _read(mapping.uuids, request))
    return json_reply({})


async def host_repository_mapping(gateway: Gateway, request: Request) -> Reply:
    await gateway.grants.replace("host", await _read(partial(mapping.granted, of="hosts"), request))
    return json_reply({})


async def update_host_repositories(gateway: Gateway, request: Request) -> Reply:
    await gateway.grants.set_each("host", await _read(partial(mapping.granted, of="hosts"), request))
    return json_reply({})


async def below(gateway: Gateway, request: Request) -> Reply | Streamed:
    path = request.raw_path.decode("latin-1")
    return await gateway.answer(path[path.find(_PREFIX) + len(_PREFIX) :], request)


async def _read(form: Callable[[bytes], T], request: Request) -> T:
    """Return what a form says; in a thread, for reading a long one takes as long as hundreds of calls."""
    kind = (request.header(b"content-type") or "application/x-www-form-urlencoded").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise NotUnderstood("A urlencoded form is expected, as Foreman sends it")
    request.body_limit_bytes = max(request.body_limit_bytes, _LARGEST_FORM)
    return await asyncio.to_thread(form, await request.body())


MOUNT = Mount(
    _PREFIX,
    (
        Route("GET", "/users[/]", Access.TRUSTED, users),
        Route("PUT", "/repository_list[/]", Access.TRUSTED, repository_list),
        Route("PUT", "/user_repository_mapping[/]", Access.TRUSTED, user_repository_mapping),
        Route("PUT", "/update_hosts[/]", Access.TRUSTED, update_hosts),
        Route("PUT", "/host_repository_mapping[/]", Access.TRUSTED, host_repository_mapping),
        Route("PUT", "/update_host_repositories[/]", Access.TRUSTED, update_host_repositories),
    ),
    unrouted=below,
)
