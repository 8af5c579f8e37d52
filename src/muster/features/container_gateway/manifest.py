"""The container gateway as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings
from muster.features.container_gateway.api import MOUNT
from muster.features.container_gateway.settings import ContainerGatewaySettings

if TYPE_CHECKING:
    from muster.features.container_gateway.service import Gateway


def _exposed(_settings: ContainerGatewaySettings | None) -> dict[str, Any]:
    return {}


@asynccontextmanager
async def _opened(settings: ContainerGatewaySettings, around: Surroundings) -> AsyncIterator[Gateway]:
    # Members without it do not pay for an HTTP client and signatures.
    from muster.features.container_gateway import service

    async with service.opened(settings, around) as gateway:
        yield gateway


FEATURE = Feature(
    name="container_gateway",
    label="Container_Gateway",
    settings=ContainerGatewaySettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=_opened,
    is_plugin=True,
)
