from __future__ import annotations

from typing import Any

import pytest

from muster.features.discovery.settings import DiscoverySettings
from tests.unit.content.test_handed import cluster


@pytest.mark.parametrize(
    ("foreman", "doubts"), [({}, 1), ({"url": "http://foreman.test"}, 1), ({"url": "https://foreman.test"}, 0)]
)
def test_it_needs_a_foreman_over_tls(foreman: dict[str, Any], doubts: int) -> None:
    found = DiscoverySettings().doubts(cluster(**foreman))
    assert len(found) == doubts
    assert all("foreman.url" in sentence for sentence in found)


@pytest.mark.parametrize(
    "given",
    [
        {"node_scheme": "ftp"}, {"node_port": 0}, {"node_networks": ["192.0.2.1/24"]}, {"node_networks": ["x"]},
        {"facts_at_once": 0}, {"facts_per_minute": 0}, {"node_timeout_s": 0}, {"node_user": "x"},
        {"node_scheme": "http", "node_ca_file": "/ca.pem"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        DiscoverySettings.model_validate(given)


def test_ruby_s_settings_have_ruby_s_defaults() -> None:
    settings = DiscoverySettings()
    assert (settings.node_scheme, settings.node_port, settings.enabled) == ("https", 8443, "https")
