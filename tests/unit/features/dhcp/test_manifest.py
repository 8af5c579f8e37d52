from __future__ import annotations

from muster.edge.feature import FOREMAN_PREFIXES
from muster.edge.routes import Access
from muster.features.dhcp.manifest import FEATURE
from muster.features.dhcp.settings import DHCPSettings


def test_foreman_finds_the_feature_by_its_name_and_label() -> None:
    assert (FEATURE.name, FEATURE.label) == ("dhcp", "DHCP")
    assert FEATURE.capabilities == ("dhcp_filename_hostname", "dhcp_filename_ipv4")
    assert [FOREMAN_PREFIXES[m.prefix] for m in FEATURE.mounts] == ["dhcp"]
    assert all(m.access is Access.TRUSTED for m in FEATURE.mounts)


def test_the_provider_is_exposed_and_null_while_disabled() -> None:
    assert FEATURE.exposed(DHCPSettings(provider="memory")) == {"use_provider": "dhcp_memory"}
    assert FEATURE.exposed(None) == {"use_provider": None}
