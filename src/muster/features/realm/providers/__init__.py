"""The ways to keep a realm's hosts, by their word in the settings. What a provider needs is loaded when it opens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.realm.contract import RealmProvider
from muster.features.realm.settings import RealmSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.log import logger

_log = logger("features")
Opening = AbstractAsyncContextManager[tuple[RealmProvider, str | None]]
"""A provider and its realm; None: it is somebody else's to know."""

UNPROVEN: Mapping[str, str] = {
    "freeipa": "it was written from FreeIPA's documentation and tried on a stand-in alone, with a real KDC",
}
"""Providers that were never tried on the server they are for, and why; doctor and the log say so."""


def opened(settings: RealmSettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name, and its realm.

    Raises:
        Misconfigured: its settings cannot work.
    """
    if (why := UNPROVEN.get(settings.provider)) is not None:
        _log.warning(f"Realm provider {settings.provider} is unproven: {why}")
    return PROVIDERS[settings.provider](settings, around)


def _freeipa(settings: RealmSettings, _around: Surroundings) -> Opening:
    from muster.features.realm.providers import freeipa

    if settings.freeipa is None:
        raise Misconfigured(f"Realm provider {settings.provider} has no settings")
    return freeipa.opened(settings.freeipa)


def _ad(settings: RealmSettings, _around: Surroundings) -> Opening:
    from muster.features.realm.providers import ad

    if settings.ad is None:
        raise Misconfigured(f"Realm provider {settings.provider} has no settings")
    return ad.opened(settings.ad)


@asynccontextmanager
async def _smart_proxy(settings: RealmSettings, around: Surroundings) -> AsyncIterator[tuple[RealmProvider, None]]:
    from muster.features.realm.providers import smart_proxy

    if settings.smart_proxy is None:
        raise Misconfigured(f"Realm provider {settings.provider} has no settings")
    async with smart_proxy.opened(settings.smart_proxy, around) as provider:
        yield provider, None


def _memory(settings: RealmSettings, _around: Surroundings) -> Opening:
    from muster.features.realm.providers.memory import MemoryRealm

    return nullcontext((MemoryRealm(), str(settings.memory.realm)))


PROVIDERS: Mapping[str, Callable[[RealmSettings, Surroundings], Opening]] = {
    "freeipa": _freeipa,
    "ad": _ad,
    "smart_proxy": _smart_proxy,
    "memory": _memory,
}
