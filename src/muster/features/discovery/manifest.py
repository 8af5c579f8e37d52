"""The Discovery feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings
from muster.features.discovery.api import MOUNT
from muster.features.discovery.settings import DiscoverySettings

if TYPE_CHECKING:
    from muster.features.discovery.service import Discovery


def _exposed(_settings: DiscoverySettings | None) -> dict[str, Any]:
    return {}


@asynccontextmanager
async def _opened(settings: DiscoverySettings, around: Surroundings) -> AsyncIterator[Discovery]:
    # Members without it do not pay for an HTTP client.
    from muster.features.discovery import service

    async with service.opened(settings, around) as discovery:
        yield discovery


FEATURE = Feature(
    name="discovery",
    label="Discovery",
    settings=DiscoverySettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=_opened,
    is_plugin=True,
)
