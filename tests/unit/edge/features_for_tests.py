"""Features in every state, whose endpoints do what the path says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from muster.edge.feature import Feature, FeatureSettings, Served, State, Surroundings
from muster.edge.replies import Reply, empty_reply, json_reply
from muster.edge.request import Request
from muster.edge.routes import Access, Mount, Route
from muster.kernel.errors import Conflict, Unavailable


class Bug(Exception):
    """What nobody expected."""


async def greeting(service: Any, request: Request) -> Reply:
    return json_reply({"service": service, **request.arguments})


async def accepted(_: Any, request: Request) -> Reply:
    await request.params()
    return empty_reply()


async def conflict(_: Any, __: Request) -> Reply:
    raise Conflict("'a.example.com 'is already in use")


async def bug(_: Any, __: Request) -> Reply:
    raise Bug("secret detail of the bug")


async def gone(_: Any, __: Request) -> Reply:
    e = Unavailable("Pulp cannot be reached: Connection refused")
    e.place = "http://192.0.2.9:24816"
    raise e


def routes(access: Access) -> tuple[Route, ...]:
    return (
        Route("GET", "/", access, greeting),
        Route("GET", "/hello/{name}", access, greeting),
        Route("POST", "/", access, accepted),
        Route("GET", "/conflict", access, conflict),
        Route("GET", "/bug", access, bug),
        Route("GET", "/gone", access, gone),
    )


@asynccontextmanager
async def opened(_: FeatureSettings, __: Surroundings) -> AsyncIterator[None]:
    yield None


def feature(name: str, prefix: str, access: Access = Access.TRUSTED, capabilities: tuple[str, ...] = ()) -> Feature:
    return Feature(
        name=name,
        label=name.upper(),
        settings=FeatureSettings,
        mounts=(Mount(prefix, routes(access)),),
        exposed=lambda s: {"use_provider": f"{name}_memory" if s else None},
        opened=opened,
        capabilities=capabilities,
    )


def served(
    made: Feature,
    state: State = State.RUNNING,
    *,
    enabled: bool | Literal["http", "https"] = True,
    reason: str | None = None,
) -> Served:
    return Served(made, FeatureSettings(enabled=enabled), state, reason, service=f"the {made.name} service")
