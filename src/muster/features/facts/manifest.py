"""The Facts feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.facts.api import MOUNT
from muster.features.facts.service import opened
from muster.features.facts.settings import FactsSettings


def _exposed(_settings: FactsSettings | None) -> dict[str, Any]:
    return {}


FEATURE = Feature(
    name="facts",
    label="Facts",
    settings=FactsSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
)
