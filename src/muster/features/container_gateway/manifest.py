"""The container gateway as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.container_gateway.api import MOUNT
from muster.features.container_gateway.service import opened
from muster.features.container_gateway.settings import ContainerGatewaySettings


def _exposed(_settings: ContainerGatewaySettings | None) -> dict[str, Any]:
    return {}


FEATURE = Feature(
    name="container_gateway",
    label="Container_Gateway",
    settings=ContainerGatewaySettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
)
