"""The DNS feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.dns.api import MOUNT
from muster.features.dns.service import DNS, opened
from muster.features.dns.settings import DNSSettings


def _exposed(settings: DNSSettings | None) -> dict[str, Any]:
    return {"use_provider": f"dns_{settings.provider}" if settings else None}


FEATURE = Feature(
    name="dns",
    label="DNS",
    settings=DNSSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
    reached=DNS.reached,
)
