from __future__ import annotations

from muster.edge.feature import FOREMAN_PREFIXES
from muster.features.realm.manifest import FEATURE


def test_foreman_finds_the_feature_by_its_name_and_label() -> None:
    assert (FEATURE.name, FEATURE.label, FEATURE.capabilities) == ("realm", "Realm", ())
    assert [FOREMAN_PREFIXES[m.prefix] for m in FEATURE.mounts] == ["realm"]
