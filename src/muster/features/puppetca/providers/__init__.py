"""The Puppet CAs, by their word in the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.puppetca.contract import CAProvider
from muster.features.puppetca.settings import PuppetCASettings
from muster.kernel.errors import Misconfigured

Opening = AbstractAsyncContextManager[CAProvider]


def opened(settings: PuppetCASettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    return PROVIDERS[settings.provider](settings, around)


def _authority(_settings: PuppetCASettings, around: Surroundings) -> Opening:
    from muster.features.puppetca.providers.authority import OwnCA

    if around.authority is None:
        raise Misconfigured(
            "Provider authority needs an authority: section in the cluster file and signer: any; "
            "with a puppetserver use provider puppetserver"
        )
    return nullcontext(OwnCA(around.authority))


def _puppetserver(settings: PuppetCASettings, _around: Surroundings) -> Opening:
    from muster.features.puppetca.providers import puppetserver

    if settings.puppetserver is None:
        raise Misconfigured(f"Puppet CA provider {settings.provider} has no settings")
    return puppetserver.opened(settings.puppetserver)


def _memory(_settings: PuppetCASettings, _around: Surroundings) -> Opening:
    from muster.features.puppetca.providers.memory import MemoryCA

    return nullcontext(MemoryCA())


PROVIDERS: Mapping[str, Callable[[PuppetCASettings, Surroundings], Opening]] = {
    "authority": _authority,
    "puppetserver": _puppetserver,
    "memory": _memory,
}
