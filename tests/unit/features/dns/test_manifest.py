from __future__ import annotations

from muster.edge.feature import FOREMAN_PREFIXES
from muster.features.dns.manifest import FEATURE
from muster.features.dns.settings import DNSSettings


def test_foreman_finds_the_feature_by_its_name_and_label() -> None:
    assert (FEATURE.name, FEATURE.label, FEATURE.capabilities) == ("dns", "DNS", ())
    assert [FOREMAN_PREFIXES[m.prefix] for m in FEATURE.mounts] == ["dns"]


def test_the_provider_is_exposed_and_null_while_disabled() -> None:
    assert FEATURE.exposed(DNSSettings()) == {"use_provider": "dns_nsupdate"}
    assert FEATURE.exposed(None) == {"use_provider": None}
