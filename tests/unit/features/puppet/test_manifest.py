from __future__ import annotations

from muster.features.puppet.manifest import FEATURE
from muster.features.puppet.settings import PuppetSettings

SERVER = {"url": "https://puppet.example.net:8140", "certificate": "/c", "key": "/k", "ca": "/ca"}


def test_foreman_is_told_where_the_server_is() -> None:
    shown = FEATURE.exposed(PuppetSettings.model_validate({"puppetserver": SERVER}))
    assert shown == {"puppet_url": SERVER["url"], "use_provider": ["puppet_proxy_puppet_api"]}
    assert FEATURE.exposed(PuppetSettings(provider="memory"))["puppet_url"] is None


def test_a_feature_that_is_off_has_no_provider_and_no_url() -> None:
    assert FEATURE.exposed(None) == {"use_provider": None}
