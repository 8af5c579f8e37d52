"""The Openscap feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings
from muster.features.openscap.api import IMPORTER, MOUNT
from muster.features.openscap.settings import OpenscapSettings

if TYPE_CHECKING:
    from muster.features.openscap.service import Compliance


def _exposed(_settings: OpenscapSettings | None) -> dict[str, Any]:
    return {}


@asynccontextmanager
async def _opened(settings: OpenscapSettings, around: Surroundings) -> AsyncIterator[Compliance]:
    # Members without it do not pay for an HTTP client.
    from muster.features.openscap import service

    async with service.opened(settings, around) as compliance:
        yield compliance


FEATURE = Feature(
    name="openscap",
    label="Openscap",
    settings=OpenscapSettings,
    mounts=(MOUNT, IMPORTER),
    exposed=_exposed,
    opened=_opened,
    is_plugin=True,
)
