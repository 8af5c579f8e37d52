"""The BMC feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.bmc.api import MOUNT
from muster.features.bmc.service import BMC, exposed, opened
from muster.features.bmc.settings import BMCSettings


def _exposed(settings: BMCSettings | None) -> dict[str, Any]:
    return exposed(settings.bmc_default_provider, settings.redfish_verify_ssl) if settings else exposed(None, None)


FEATURE = Feature(
    name="bmc",
    label="BMC",
    settings=BMCSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
    # What needs nothing that may be absent; a feature that runs says which others it found.
    capabilities=("redfish", "shell"),
    reached=BMC.reached,
    told=BMC.told,
)
