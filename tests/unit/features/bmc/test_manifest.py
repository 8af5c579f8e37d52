from __future__ import annotations

from muster.edge.feature import FOREMAN_PREFIXES
from muster.features.bmc.manifest import FEATURE
from muster.features.bmc.settings import BMCSettings


def test_foreman_finds_the_feature_by_its_name_and_label() -> None:
    assert (FEATURE.name, FEATURE.label) == ("bmc", "BMC")
    assert [FOREMAN_PREFIXES[m.prefix] for m in FEATURE.mounts] == ["bmc"]


def test_the_default_is_exposed_and_null_while_disabled() -> None:
    shown = FEATURE.exposed(BMCSettings(bmc_default_provider="redfish", redfish_verify_ssl=False))
    assert shown == {"bmc_default_provider": "redfish", "redfish_verify_ssl": False}
    assert FEATURE.exposed(None) == {"bmc_default_provider": None, "redfish_verify_ssl": None}


def test_nothing_is_repeated_unless_it_is_asked_for() -> None:
    assert (BMCSettings().policies.deadline_s, BMCSettings().policies.retry.attempts) == (30, 1)
