"""The Pulpcore feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.pulpcore.api import MOUNT, RECORD
from muster.features.pulpcore.service import Pulpcore, opened
from muster.features.pulpcore.settings import PulpcoreSettings

_TOLD = ("pulp_url", "mirror", "content_app_url", "username", "password", "client_authentication", "rhsm_url")


def _exposed(_settings: PulpcoreSettings | None) -> dict[str, Any]:
    # Of a feature that runs its service says more: where a Pulp is may have changed since the settings were read.
    return dict.fromkeys(_TOLD)


FEATURE = Feature(
    name="pulpcore",
    label="Pulpcore",
    settings=PulpcoreSettings,
    mounts=(MOUNT, RECORD),
    exposed=_exposed,
    opened=opened,
    reached=Pulpcore.reached,
    refreshed=Pulpcore.refresh,
    told=Pulpcore.told,
    is_essential=lambda pulp: pulp.is_essential,
    observed=Pulpcore.observed,
    is_plugin=True,
)
