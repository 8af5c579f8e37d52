"""The Realm feature as Foreman sees it."""

from __future__ import annotations

from typing import Any

from muster.edge.feature import Feature
from muster.features.realm.api import MOUNT
from muster.features.realm.service import Realm, opened
from muster.features.realm.settings import RealmSettings


def _exposed(settings: RealmSettings | None) -> dict[str, Any]:
    return {"use_provider": f"realm_{settings.provider}" if settings else None}


FEATURE = Feature(
    name="realm",
    label="Realm",
    settings=RealmSettings,
    mounts=(MOUNT,),
    exposed=_exposed,
    opened=opened,
    reached=Realm.reached,
)
