"""External IPAM as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings
from muster.features.externalipam.api import MOUNT
from muster.features.externalipam.settings import ExternalIPAMSettings

if TYPE_CHECKING:
    from muster.features.externalipam.service import ExternalIPAM


def _exposed(settings: ExternalIPAMSettings | None) -> dict[str, Any]:
    return {"use_provider": f"externalipam_{settings.provider}" if settings else None}


async def _reached(ipam: ExternalIPAM) -> None:
    await ipam.reached()


@asynccontextmanager
async def _opened(settings: ExternalIPAMSettings, around: Surroundings) -> AsyncIterator[ExternalIPAM]:
    from muster.features.externalipam import service

    async with service.opened(settings, around) as ipam:
        yield ipam


FEATURE = Feature(
    name="externalipam",
    label="External IPAM",
    settings=ExternalIPAMSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=_opened,
    reached=_reached,
    is_plugin=True,
)
