"""The ways to keep DNS records, by their word in the settings. A provider's library is imported when it opens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muster.edge.feature import Surroundings
from muster.features.dns.contract import DNSProvider
from muster.features.dns.settings import DNSSettings
from muster.kernel.errors import Misconfigured


@asynccontextmanager
async def opened(settings: DNSSettings, around: Surroundings) -> AsyncIterator[DNSProvider]:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work: a key file that cannot be read, a certificate that does not load.
    """
    if settings.provider == "nsupdate":
        from muster.features.dns.providers import nsupdate

        async with nsupdate.opened(settings.nsupdate, settings.ttl_s) as updater:
            yield updater
    elif settings.provider == "memory":
        from muster.features.dns.providers.memory import MemoryDNS

        yield MemoryDNS(settings.memory.zones)
    elif settings.smart_proxy is not None:
        from muster.features.dns.providers import smart_proxy

        async with smart_proxy.opened(settings.smart_proxy, around) as other:
            yield other
    else:
        raise Misconfigured(f"DNS provider {settings.provider} has no settings")
