"""The TFTP feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings
from muster.features.tftp.api import MOUNT
from muster.features.tftp.settings import TFTPSettings

if TYPE_CHECKING:
    from muster.features.tftp.service import TFTP


def _exposed(settings: TFTPSettings | None) -> dict[str, Any]:
    return {"tftp_servername": settings.tftp_servername if settings is not None else None}


@asynccontextmanager
async def _opened(settings: TFTPSettings, around: Surroundings) -> AsyncIterator[TFTP]:
    from muster.features.tftp import service

    async with service.opened(settings, around) as tftp:
        yield tftp


FEATURE = Feature(
    name="tftp",
    label="TFTP",
    settings=TFTPSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=_opened,
)
