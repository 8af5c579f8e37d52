"""The ways to keep addresses, by their word in the settings. What a provider needs is imported when it opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.externalipam.contract import IPAMProvider
from muster.features.externalipam.settings import ExternalIPAMSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.log import logger

_log = logger("features")
Opening = AbstractAsyncContextManager[IPAMProvider]

UNPROVEN: Mapping[str, str] = {
    "netbox": "it was written from NetBox' documentation and tried on a stand-in alone",
    "phpipam": "it was written from phpIPAM's documentation and tried on a stand-in alone",
}
"""Providers that were never tried on the IPAM they are for, and why; doctor and the log say so."""


def opened(settings: ExternalIPAMSettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    if (why := UNPROVEN.get(settings.provider)) is not None:
        _log.warning(f"IPAM provider {settings.provider} is unproven: {why}")
    return PROVIDERS[settings.provider](settings, around)


def _claims(settings: ExternalIPAMSettings, around: Surroundings) -> Opening:
    from muster.features.externalipam.providers import claims

    if around.store is None:
        raise Misconfigured("IPAM provider claims needs the store")
    return nullcontext(claims.ClaimedIPAM(around.store, settings.claims))


def _netbox(settings: ExternalIPAMSettings, _around: Surroundings) -> Opening:
    from muster.features.externalipam.providers import netbox

    if settings.netbox is None:
        raise Misconfigured(f"IPAM provider {settings.provider} has no settings")
    return netbox.opened(settings.netbox)


def _phpipam(settings: ExternalIPAMSettings, _around: Surroundings) -> Opening:
    from muster.features.externalipam.providers import phpipam

    if settings.phpipam is None:
        raise Misconfigured(f"IPAM provider {settings.provider} has no settings")
    return phpipam.opened(settings.phpipam)


def _smart_proxy(settings: ExternalIPAMSettings, around: Surroundings) -> Opening:
    from muster.features.externalipam.providers import smart_proxy

    if settings.smart_proxy is None:
        raise Misconfigured(f"IPAM provider {settings.provider} has no settings")
    return smart_proxy.opened(settings.smart_proxy, around)


def _memory(settings: ExternalIPAMSettings, _around: Surroundings) -> Opening:
    from muster.features.externalipam.providers import memory

    return nullcontext(memory.MemoryIPAM(settings.memory))


PROVIDERS: Mapping[str, Callable[[ExternalIPAMSettings, Surroundings], Opening]] = {
    "claims": _claims,
    "netbox": _netbox,
    "phpipam": _phpipam,
    "smart_proxy": _smart_proxy,
    "memory": _memory,
}
