from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.features.dns.settings import DNSSettings


def test_the_defaults_are_the_ruby_proxys() -> None:
    settings = DNSSettings()
    assert (settings.provider, settings.ttl_s, settings.enabled) == ("nsupdate", 86400, "https")
    assert (settings.nsupdate.server, settings.nsupdate.port, settings.nsupdate.key_file) == ("localhost", 53, None)
    assert settings.smart_proxy is None


def test_a_key_may_stand_in_the_settings_and_is_not_shown() -> None:
    given = {"nsupdate": {"key_name": "rndc-key.", "key_algorithm": "hmac-sha512", "key_secret": "aHVudGVyMg=="}}
    settings = DNSSettings.model_validate(given)
    assert settings.nsupdate.key_secret is not None
    assert settings.nsupdate.key_secret.reveal() == "aHVudGVyMg=="
    assert "aHVudGVyMg" not in repr(settings) + settings.model_dump_json()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"provider": "infoblox"}, "provider"),
    ({"ttl_s": -1}, "ttl_s"),
    ({"ttl_s": 2**31}, "ttl_s"),
    ({"enabled": "yes please"}, "enabled"),
    ({"nsupdate": {"server": "a b"}}, "Invalid DNS name"),
    ({"nsupdate": {"port": 0}}, "port"),
    ({"nsupdate": {"key_name": "a\nb", "key_secret": "x"}}, "key_name"),
    ({"nsupdate": {"key_name": "a", "key_secret": "x", "key_algorithm": "md5"}}, "key_algorithm"),
    ({"nsupdate": {"key_name": "a"}}, "key_name and key_secret go together"),
    ({"nsupdate": {"key_secret": "x"}}, "key_name and key_secret go together"),
    ({"nsupdate": {"key_file": "/k", "key_secret": "x", "key_name": "a"}}, "exclude each other"),
    ({"nsupdate": {"timeout_s": 0}}, "timeout_s"),
    ({"memory": {"zones": ["a b"]}}, "Invalid DNS name"),
    ({"provider": "smart_proxy"}, "provider smart_proxy needs smart_proxy.url"),
    ({"smart_proxy": {"url": "https://h/\nx"}}, "url"),
    ({"smart_proxy": {"url": "file:///etc/passwd"}}, "url"),
    ({"dns_ttl": 5}, "dns_ttl"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_setting_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DNSSettings.model_validate(given)
