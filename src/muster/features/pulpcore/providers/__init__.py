"""The Pulps, by their word in the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.edge.feature import Surroundings
from muster.features.pulpcore.contract import PulpProvider
from muster.features.pulpcore.settings import PulpcoreSettings

Opening = AbstractAsyncContextManager[PulpProvider]


def opened(settings: PulpcoreSettings, around: Surroundings) -> Opening:
    """Yield the provider the settings name.

    Raises:
        Misconfigured: its settings cannot work.
    """
    return PROVIDERS[settings.provider](settings, around)


def _pulp(settings: PulpcoreSettings, around: Surroundings) -> Opening:
    from muster.features.pulpcore.providers import pulp

    return pulp.opened(settings, around)


def _memory(_settings: PulpcoreSettings, _around: Surroundings) -> Opening:
    from muster.features.pulpcore.providers.memory import MemoryPulp

    return nullcontext(MemoryPulp())


PROVIDERS: Mapping[str, Callable[[PulpcoreSettings, Surroundings], Opening]] = {
    "pulp": _pulp,
    "memory": _memory,
}
