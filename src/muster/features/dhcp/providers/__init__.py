"""The ways to keep reservations, by their word in the settings. A provider's library is imported when it opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.dhcp.contract import DHCPProvider
from muster.features.dhcp.settings import DHCPSettings
from muster.kernel.errors import Misconfigured

Opening = AbstractAsyncContextManager[DHCPProvider]


def opened(settings: DHCPSettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    return PROVIDERS[settings.provider](settings, around)


def _isc(settings: DHCPSettings, around: Surroundings) -> Opening:
    from muster.features.dhcp.providers import isc

    return isc.opened(settings.isc, around)


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
    "smart_proxy": _smart_proxy,
    "memory": _memory,
}
