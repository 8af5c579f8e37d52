"""The ways to speak to BMCs, by their word in calls and settings; library or program is looked for when one opens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext

from muster.features.bmc.contract import BMCProvider
from muster.features.bmc.settings import BMCSettings

Opening = AbstractAsyncContextManager[BMCProvider]


def opened(word: str, settings: BMCSettings) -> Opening:
    """Yield the provider of that word.

    Raises:
        Misconfigured: its library or its program is not on this host, or a file of its settings cannot be read.
    """
    return PROVIDERS[word](settings)


def _redfish(settings: BMCSettings) -> Opening:
    from muster.features.bmc.providers import redfish

    return redfish.opened(settings)


def _ipmitool(settings: BMCSettings) -> Opening:
    from muster.features.bmc.providers import ipmitool

    return nullcontext(ipmitool.found(settings.ipmi))


def _freeipmi(settings: BMCSettings) -> Opening:
    from muster.features.bmc.providers import freeipmi

    return nullcontext(freeipmi.found(settings.ipmi))


def _pyghmi(settings: BMCSettings) -> Opening:
    from muster.features.bmc.providers import pyghmi

    return nullcontext(pyghmi.found(settings))


def _shell(_settings: BMCSettings) -> Opening:
    from muster.features.bmc.providers import shell

    return shell.opened()


def _memory(_settings: BMCSettings) -> Opening:
    from muster.features.bmc.providers.memory import MemoryBMC

    return nullcontext(MemoryBMC())


PROVIDERS: Mapping[str, Callable[[BMCSettings], Opening]] = {
    "redfish": _redfish,
    "ipmitool": _ipmitool,
    "freeipmi": _freeipmi,
    "pyghmi": _pyghmi,
    "shell": _shell,
    "memory": _memory,
}
IPMI = ("freeipmi", "ipmitool", "pyghmi")
"""Those that speak IPMI, in the order in which one of them stands in for a word that is none of ours."""
