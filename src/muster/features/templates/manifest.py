"""The Templates feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings, Told
from muster.features.templates.api import UNATTENDED, USERDATA
from muster.features.templates.settings import TemplatesSettings

if TYPE_CHECKING:
    from muster.features.templates.service import Templates


def _exposed(settings: TemplatesSettings | None) -> dict[str, Any]:
    # Of a feature that runs its service says what follows from the cluster file, too.
    return {"template_url": settings.template_url if settings is not None else None}


def _told(templates: Templates) -> Told:
    return templates.told()


@asynccontextmanager
async def _opened(settings: TemplatesSettings, around: Surroundings) -> AsyncIterator[Templates]:
    # Members without it do not pay for an HTTP client.
    from muster.features.templates import service

    async with service.opened(settings, around) as templates:
        yield templates


FEATURE = Feature(
    name="templates",
    label="Templates",
    settings=TemplatesSettings,
    mounts=(UNATTENDED, USERDATA),
    exposed=_exposed,
    opened=_opened,
    told=_told,
)
