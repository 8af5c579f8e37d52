"""The ways to keep reservations, by their word in the settings. A provider's library is imported when it opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.dhcp.contract import DHCPProvider
from muster.features.dhcp.settings import DHCPSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.log import logger

_log = logger("features")
Opening = AbstractAsyncContextManager[DHCPProvider]


UNPROVEN: Mapping[str, str] = {
    "infoblox": "it was written from Infoblox' documentation and tried on a stand-in alone",
}
"""Providers that were never tried on the server they are for, and why; doctor and the log say so."""


def opened(settings: DHCPSettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    if (why := UNPROVEN.get(settings.provider)) is not None:
        _log.warning(f"DHCP provider {settings.provider} is unproven: {why}")
    return PROVIDERS[settings.provider](settings, around)


def _isc(settings: DHCPSettings, around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import isc

    return isc.opened(settings.isc, around)


def _kea(settings: DHCPSettings, around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import kea

    return kea.opened(settings.kea, around)


def _dnsmasq(settings: DHCPSettings, _around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import dnsmasq

    return dnsmasq.opened(settings.dnsmasq, settings.subnets)


def _infoblox(settings: DHCPSettings, _around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import infoblox

    if settings.infoblox is None:
        raise Misconfigured(f"DHCP provider {settings.provider} has no settings")
    return infoblox.opened(settings.infoblox)


def _libvirt(settings: DHCPSettings, _around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import libvirt

    return libvirt.opened(settings.libvirt)


def _smart_proxy(settings: DHCPSettings, around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import smart_proxy

    if settings.smart_proxy is None:
        raise Misconfigured(f"DHCP provider {settings.provider} has no settings")
    return smart_proxy.opened(settings.smart_proxy, around)


def _memory(settings: DHCPSettings, _around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import memory

    return nullcontext(memory.of(settings.memory))


PROVIDERS: Mapping[str, Callable[[DHCPSettings, Surroundings], Opening]] = {
    "isc": _isc,
    "kea": _kea,
    "dnsmasq": _dnsmasq,
    "infoblox": _infoblox,
    "libvirt": _libvirt,
    "smart_proxy": _smart_proxy,
    "memory": _memory,
}
