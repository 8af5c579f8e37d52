"""The ways to keep DNS records, by their word in the settings. A provider's library is imported when it opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.dns.contract import DNSProvider
from muster.features.dns.settings import DNSSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.log import logger

_log = logger("features")
Opening = AbstractAsyncContextManager[DNSProvider]


UNPROVEN: Mapping[str, str] = {
    "infoblox": "it was written from Infoblox' documentation and tried on a stand-in alone",
    "route53": "it was written from Amazon's documentation and tried on a stand-in alone",
}
"""Providers that were never tried on the server they are for, and why; doctor and the log say so."""


def opened(settings: DNSSettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work: a key file that cannot be read, a certificate that does not load.
    """
    if (why := UNPROVEN.get(settings.provider)) is not None:
        _log.warning(f"DNS provider {settings.provider} is unproven: {why}")
    return PROVIDERS[settings.provider](settings, around)


def _nsupdate(settings: DNSSettings, _around: Surroundings) -> Opening:
    from muster.features.dns.providers import nsupdate

    return nsupdate.opened(settings.nsupdate, settings.ttl_s)


def _nsupdate_gss(settings: DNSSettings, _around: Surroundings) -> Opening:
    from muster.features.dns.providers import nsupdate_gss

    return nsupdate_gss.opened(settings.nsupdate_gss, settings.ttl_s)


def _powerdns(settings: DNSSettings, around: Surroundings) -> Opening:
    from muster.features.dns.providers import powerdns

    return powerdns.opened(settings.powerdns, settings.ttl_s, around.store, around.provider)


def _infoblox(settings: DNSSettings, around: Surroundings) -> Opening:
    from muster.features.dns.providers import infoblox

    if settings.infoblox is None:
        raise Misconfigured(f"DNS provider {settings.provider} has no settings")
    return infoblox.opened(settings.infoblox, settings.ttl_s, around.store, around.provider)


def _route53(settings: DNSSettings, _around: Surroundings) -> Opening:
    from muster.features.dns.providers import route53

    if settings.route53 is None:
        raise Misconfigured(f"DNS provider {settings.provider} has no settings")
    return route53.opened(settings.route53, settings.ttl_s)


def _libvirt(settings: DNSSettings, around: Surroundings) -> Opening:
    from muster.features.dns.providers import libvirt

    return libvirt.opened(settings.libvirt, around.store, around.provider)


def _smart_proxy(settings: DNSSettings, around: Surroundings) -> Opening:
    from muster.features.dns.providers import smart_proxy

    if settings.smart_proxy is None:
        raise Misconfigured(f"DNS provider {settings.provider} has no settings")
    return smart_proxy.opened(settings.smart_proxy, around)


def _memory(settings: DNSSettings, _around: Surroundings) -> Opening:
    from muster.features.dns.providers.memory import MemoryDNS

    return nullcontext(MemoryDNS(settings.memory.zones))


PROVIDERS: Mapping[str, Callable[[DNSSettings, Surroundings], Opening]] = {
    "nsupdate": _nsupdate,
    "nsupdate_gss": _nsupdate_gss,
    "powerdns": _powerdns,
    "infoblox": _infoblox,
    "route53": _route53,
    "libvirt": _libvirt,
    "smart_proxy": _smart_proxy,
    "memory": _memory,
}
