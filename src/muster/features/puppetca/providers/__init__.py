"""The Puppet CAs, by their word in the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muster.edge.feature import Surroundings
from muster.features.puppetca.contract import CAProvider
from muster.features.puppetca.settings import PuppetCASettings
from muster.kernel.errors import Misconfigured


@asynccontextmanager
async def opened(settings: PuppetCASettings, around: Surroundings) -> AsyncIterator[CAProvider]:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    if settings.provider == "authority":
        from muster.features.puppetca.providers.authority import OwnCA

        if around.authority is None:
            raise Misconfigured(
                "Provider authority needs an authority: section in the cluster file and signer: any; "
                "with a puppetserver use provider puppetserver"
            )
        yield OwnCA(around.authority)
    elif settings.provider == "memory":
        from muster.features.puppetca.providers.memory import MemoryCA

        yield MemoryCA()
    elif settings.puppetserver is not None:
        from muster.features.puppetca.providers import puppetserver

        async with puppetserver.opened(settings.puppetserver) as other:
            yield other
    else:
        raise Misconfigured(f"Puppet CA provider {settings.provider} has no settings")
