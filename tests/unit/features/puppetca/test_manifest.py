from __future__ import annotations

from typing import Any

import pytest

from muster.features.puppetca.manifest import FEATURE
from muster.features.puppetca.settings import PuppetCASettings

SERVER = {"url": "https://puppet.example.net:8140", "certificate": "/c", "key": "/k", "ca": "/ca"}


@pytest.mark.parametrize(
    ("given", "url", "autosigner"),
    [
        ({"provider": "puppetserver", "puppetserver": SERVER}, SERVER["url"], "puppetca_hostname_whitelisting"),
        (
            {"provider": "puppetserver", "puppetserver": SERVER, "autosigner": "tokens"},
            SERVER["url"],
            "puppetca_token_whitelisting",
        ),
        # The cluster's own CA answers under the proxy's name, which is what Foreman takes when it is told none.
        ({"provider": "authority"}, None, "puppetca_hostname_whitelisting"),
        ({"provider": "authority", "puppetserver": SERVER}, None, "puppetca_hostname_whitelisting"),
    ],
)
def test_foreman_is_told_where_the_ca_is(given: dict[str, Any], url: str | None, autosigner: str) -> None:
    shown = FEATURE.exposed(PuppetCASettings.model_validate(given))
    assert shown == {"puppet_url": url, "use_provider": [autosigner, "puppetca_http_api"]}
    assert list(shown) == ["puppet_url", "use_provider"]


def test_a_feature_that_is_off_has_no_provider_and_no_url() -> None:
    assert FEATURE.exposed(None) == {"use_provider": None}
