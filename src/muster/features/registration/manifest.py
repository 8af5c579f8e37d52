"""The Registration feature as Foreman sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from muster.edge.feature import Feature, Surroundings, Told
from muster.features.registration.api import MOUNT
from muster.features.registration.settings import RegistrationSettings

if TYPE_CHECKING:
    from muster.features.registration.service import Registration


def _exposed(settings: RegistrationSettings | None) -> dict[str, Any]:
    # Of a feature that runs its service says what follows from the cluster file, too.
    return {"registration_url": settings.registration_url if settings is not None else None}


def _told(registration: Registration) -> Told:
    return registration.told()


@asynccontextmanager
async def _opened(settings: RegistrationSettings, around: Surroundings) -> AsyncIterator[Registration]:
    # Members without it do not pay for an HTTP client and ciphers.
    from muster.features.registration import service

    async with service.opened(settings, around) as registration:
        yield registration


FEATURE = Feature(
    name="registration",
    label="Registration",
    settings=RegistrationSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=_opened,
    told=_told,
)
