from __future__ import annotations

from muster.edge.feature import FOREMAN_PREFIXES
from muster.edge.routes import Access, RouteTable
from muster.features.externalipam.api import MOUNT
from muster.features.externalipam.manifest import FEATURE
from muster.features.externalipam.settings import ExternalIPAMSettings


def test_foreman_finds_the_feature_by_its_name_and_label() -> None:
    assert (FEATURE.name, FEATURE.label.lower().replace(" ", ""), FEATURE.capabilities) == (
        "externalipam", "externalipam", (),
    )  # fmt: skip
    assert [FOREMAN_PREFIXES[m.prefix] for m in FEATURE.mounts] == ["externalipam"]
    assert MOUNT.access is Access.TRUSTED


def test_the_provider_is_exposed_and_null_while_disabled() -> None:
    assert FEATURE.exposed(ExternalIPAMSettings()) == {"use_provider": "externalipam_claims"}
    assert FEATURE.exposed(None) == {"use_provider": None}


def test_the_next_address_is_no_address() -> None:
    found = RouteTable(MOUNT.routes).find("GET", "/subnet/192.0.2.0/24/next_ip")
    assert found is not None
    assert found[1] == {"address": "192.0.2.0", "prefix": "24"}
