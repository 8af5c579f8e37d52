from __future__ import annotations

from muster.edge.feature import FOREMAN_PREFIXES
from muster.edge.routes import Access
from muster.features.dhcp.manifest import FEATURE
from muster.features.dhcp.settings import DHCPSettings


def test_foreman_finds_the_feature_by_its_name_and_label() -> None:
    assert (FEATURE.name, FEATURE.label) == ("dhcp", "DHCP")
    assert FEATURE.capabilities == ("dhcp_filename_hostname", "dhcp_filename_ipv4")
    foremans, _ = FEATURE.mounts
    assert FOREMAN_PREFIXES[foremans.prefix] == "dhcp"
    assert foremans.access is Access.TRUSTED


def test_what_members_ask_each_other_is_for_the_cluster_alone_and_no_matter_of_foremans() -> None:
    _, members = FEATURE.mounts
    assert members.prefix not in FOREMAN_PREFIXES
    assert members.access is Access.CLUSTER


def test_the_provider_is_exposed_and_null_while_disabled() -> None:
    assert FEATURE.exposed(DHCPSettings(provider="memory")) == {"use_provider": "dhcp_memory"}
    assert FEATURE.exposed(None) == {"use_provider": None}
