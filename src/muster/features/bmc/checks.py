"""What the doctor can find out about BMCs: does a call without a provider find one, and is what the cluster wants here.

No BMC is asked: which there are, and their passwords, Foreman knows.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.cluster.file import ClusterFile
from muster.features.bmc import providers
from muster.features.bmc.settings import BMCSettings
from muster.kernel.errors import Misconfigured
from muster.kernel.findings import Check, Finding

_PLACE = "feature bmc"


def checks(settings: BMCSettings, cluster: ClusterFile) -> list[Check]:
    """Return the checks of a feature that is enabled."""

    async def found() -> Sequence[Finding]:
        return [*_default(settings, cluster), *await _absent(settings)]

    return [Check(_PLACE, found)]


def _default(settings: BMCSettings, cluster: ClusterFile) -> list[Finding]:
    if settings.bmc_default_provider is None:
        return [
            Finding(
                "BMC-NO-DEFAULT",
                _PLACE,
                "bmc_default_provider is not set: calls for hosts whose BMC speaks IPMI are refused",
                "Foreman names a provider for Redfish alone.",
                "Set features: bmc: bmc_default_provider: ipmitool (or freeipmi, pyghmi, redfish).",
                "warning",
            )
        ]
    if settings.bmc_default_provider == "shell" and len(cluster.members) > 1:
        return [
            Finding(
                "BMC-SHELL",
                _PLACE,
                "bmc_default_provider is shell, and the cluster has several members",
                "Provider shell starts the host anew on which the call is answered, which may be any member's.",
                "Set bmc_default_provider to a provider that asks BMCs.",
                "warning",
            )
        ]
    return []


async def _absent(settings: BMCSettings) -> list[Finding]:
    """Say why the provider of the settings cannot be used on this host, or the one that Foreman names itself."""
    wanted = {settings.bmc_default_provider or "redfish", "redfish"} - {"memory"}
    found = []
    for word in sorted(wanted):
        try:
            async with providers.opened(word, settings):
                pass
        except Misconfigured as e:
            is_default = word == settings.bmc_default_provider
            found.append(
                Finding(
                    "BMC-PROVIDER-ABSENT",
                    _PLACE,
                    f"The BMC provider {word} cannot be used on this host: {e}",
                    "Members need its program or library each; elsewhere than on a member nothing is wrong.",
                    "Install it on every member and restart them.",
                    "error" if is_default else "warning",
                )
            )
    return found
