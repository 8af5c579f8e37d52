"""The DHCP feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings
from muster.features.dhcp.api import MOUNT
from muster.features.dhcp.files_api import MOUNT as FILES
from muster.features.dhcp.settings import DHCPSettings

if TYPE_CHECKING:
    from muster.features.dhcp.service import DHCP


def _exposed(settings: DHCPSettings | None) -> dict[str, Any]:
    return {"use_provider": f"dhcp_{settings.provider}" if settings else None}


async def _reached(dhcp: DHCP) -> None:
    await dhcp.reached()


@asynccontextmanager
async def _opened(settings: DHCPSettings, around: Surroundings) -> AsyncIterator[DHCP]:
    from muster.features.dhcp import service

    async with service.opened(settings, around) as dhcp:
        yield dhcp


FEATURE = Feature(
    name="dhcp",
    label="DHCP",
    settings=DHCPSettings,
    mounts=(MOUNT, FILES),
    exposed=_exposed,
    opened=_opened,
    # A reservation's boot loader may be for a next server that is a name, or an address.
    capabilities=("dhcp_filename_hostname", "dhcp_filename_ipv4"),
    reached=_reached,
)
