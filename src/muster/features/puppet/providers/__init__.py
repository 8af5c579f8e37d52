"""The Puppet servers, by their word in the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.features.puppet.contract import PuppetProvider
from muster.features.puppet.settings import PuppetSettings
from muster.kernel.errors import Misconfigured

Opening = AbstractAsyncContextManager[PuppetProvider]


def opened(settings: PuppetSettings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    return PROVIDERS[settings.provider](settings)


def _puppetserver(settings: PuppetSettings) -> Opening:
    from muster.features.puppet.providers import puppetserver

    if settings.puppetserver is None:
        raise Misconfigured(f"Puppet provider {settings.provider} has no settings")
    return puppetserver.opened(settings.puppetserver, settings.classes_timeout_s)


def _memory(_settings: PuppetSettings) -> Opening:
    from muster.features.puppet.providers.memory import MemoryPuppet

    return nullcontext(MemoryPuppet())


PROVIDERS: Mapping[str, Callable[[PuppetSettings], Opening]] = {
    "puppetserver": _puppetserver,
    "memory": _memory,
}
