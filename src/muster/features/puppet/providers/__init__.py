"""The Puppet servers, by their word in the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muster.features.puppet.contract import PuppetProvider
from muster.features.puppet.settings import PuppetSettings
from muster.kernel.errors import Misconfigured


@asynccontextmanager
async def opened(settings: PuppetSettings) -> AsyncIterator[PuppetProvider]:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    if settings.provider == "memory":
        from muster.features.puppet.providers.memory import MemoryPuppet

        yield MemoryPuppet()
    elif settings.puppetserver is not None:
        from muster.features.puppet.providers import puppetserver

        async with puppetserver.opened(settings.puppetserver, settings.classes_timeout_s) as server:
            yield server
    else:
        raise Misconfigured(f"Puppet provider {settings.provider} has no settings")
