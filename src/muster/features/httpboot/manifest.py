"""The HTTPBoot feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings, Told
from muster.features.httpboot.api import EFI, MOUNT
from muster.features.httpboot.settings import HTTPBootSettings

if TYPE_CHECKING:
    from muster.features.httpboot.service import HTTPBoot


def _exposed(_settings: HTTPBootSettings | None) -> dict[str, Any]:
    # Of a feature that runs its service says what follows from the cluster file.
    return {"http_port": None, "https_port": None}


def _told(httpboot: HTTPBoot) -> Told:
    return httpboot.told()


@asynccontextmanager
async def _opened(settings: HTTPBootSettings, around: Surroundings) -> AsyncIterator[HTTPBoot]:
    from muster.features.httpboot import service

    async with service.opened(settings, around) as httpboot:
        yield httpboot


FEATURE = Feature(
    name="httpboot",
    label="HTTPBoot",
    settings=HTTPBootSettings,
    mounts=(MOUNT, EFI),
    exposed=_exposed,
    opened=_opened,
    told=_told,
)
