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


AKIA = "AKIAIOSFODNN7EXAMPLE"
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"provider": "bind"}, "provider"),
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
    ({"provider": "powerdns"}, "needs powerdns.rest_api_key or powerdns.rest_api_key_file"),
    ({"powerdns": {"rest_api_key": "k", "rest_api_key_file": "/k"}}, "exclude each other"),
    ({"powerdns": {"rest_api_key": "a\r\nX: 1"}}, "fits in a header"),
    ({"powerdns": {"rest_url": "http://h:8081"}}, "does not end as the API of one server"),
    ({"powerdns": {"rest_url": "http://h/api/v1/servers/localhost/"}}, "does not end as the API of one server"),
    ({"powerdns": {"servers": [{"server": "a", "url": "http://h:8081/"}]}}, "does not end as the API of one server"),
    ({"powerdns": {"servers": [{"server": "a b"}]}}, "Invalid DNS name"),
    ({"provider": "infoblox"}, "needs infoblox.url"),
    ({"infoblox": {"url": "http://grid.test", "username": "a", "password": "b"}}, "must begin with https"),
    ({"infoblox": {"url": "https://grid.test", "username": "a"}}, "one of password and password_file"),
    ({"infoblox": {"url": "https://grid.test", "username": "a", "password": "b", "dns_view": ""}}, "dns_view"),
    ({"provider": "route53"}, "needs route53.aws_access_key"),
    ({"route53": {"aws_access_key": AKIA}}, "one of aws_secret_key and aws_secret_key_file"),
    ({"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40, "aws_secret_key_file": "/k"}}, "one of"),
    ({"route53": {"aws_access_key": "AKIA\r\nX: 1234567890", "aws_secret_key": "s" * 40}}, "aws_access_key"),
    ({"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40 + "\n"}}, "aws_secret_key is none"),
    ({"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40, "zone_ids": ["../Z1"]}}, "zone_ids"),
    ({"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40, "zone_ids": ["Z1", "Z1"]}}, "names a zone twice"),
    (
        {"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40, "url": "http://h.test"}},
        "must begin with https",
    ),
    ({"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40, "url": "https://h.test/x"}}, "url has no path"),
    ({"route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40, "region": "us-east-1/x"}}, "region"),
    ({"libvirt": {"url": "qemu+ssh://host/system"}}, "url"),
    ({"libvirt": {"network": "--help"}}, "network"),
    ({"provider": "nsupdate_gss"}, "needs nsupdate_gss.service"),
    ({"provider": "nsupdate_gss", "nsupdate_gss": {"server": "192.0.2.1"}}, "needs nsupdate_gss.service"),
    ({"nsupdate_gss": {"tsig_principal": "a b@C"}}, "tsig_principal"),
    ({"nsupdate_gss": {"tsig_principal": "a\\/b@C"}}, "tsig_principal"),
    ({"nsupdate_gss": {"service": "DNS/a@B\n"}}, "service"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_setting_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        DNSSettings.model_validate(given)


@pytest.mark.parametrize(
    ("given", "provider"),
    [
        ({"use_provider": "dns_nsupdate"}, "nsupdate"),
        ({"provider": "dns_memory"}, "memory"),
        ({"use_provider": "dns_route53", "route53": {"aws_access_key": AKIA, "aws_secret_key": "s" * 40}}, "route53"),
        ({"use_provider": "dns_libvirt", "libvirt": {"url": "qemu:///system", "network": "default"}}, "libvirt"),
        ({"use_provider": "dns_powerdns", "powerdns": {"rest_api_key": "k"}}, "powerdns"),
    ],
)
def test_rubys_words_for_providers_are_understood(given: dict[str, Any], provider: str) -> None:
    assert DNSSettings.model_validate(given).provider == provider


@pytest.mark.parametrize(
    ("given", "principal"),
    [
        ({"server": "ns.example.com"}, "DNS/ns.example.com"),
        ({"server": "ns.example.com", "service": "DNS/a.example.com@B"}, "DNS/a.example.com@B"),
        ({"server": "192.0.2.1"}, None),
        ({"server": "localhost"}, None),
    ],
)
def test_a_servers_principal_follows_from_its_name(given: dict[str, Any], principal: str | None) -> None:
    assert DNSSettings.model_validate({"nsupdate_gss": given}).nsupdate_gss.server_principal == principal


def test_where_a_provider_keeps_its_records_is_registered() -> None:
    given: dict[str, Any] = {
        "provider": "powerdns",
        "powerdns": {"rest_api_key": "hunter2", "rest_url": "https://pdns.test/api/v1/servers/localhost"},
        "nsupdate_gss": {"server": "ns.example.com"},
    }
    settings = DNSSettings.model_validate(given)
    assert [s.control_url for s in settings.registered()] == ["https://pdns.test/api/v1/servers/localhost"]
    assert "hunter2" not in repr(settings) + settings.model_dump_json()
    amazon = {"aws_access_key": AKIA, "aws_secret_key": "hunter2/hunter2/hunter2"}
    by_amazon = DNSSettings.model_validate({**given, "provider": "route53", "route53": amazon})
    assert [s.control_url for s in by_amazon.registered()] == ["https://route53.amazonaws.com"]
    assert "hunter2" not in repr(by_amazon) + by_amazon.model_dump_json()
    by_kerberos = DNSSettings.model_validate({**given, "provider": "nsupdate_gss"})
    assert [s.control_url for s in by_kerberos.registered()] == ["dns://ns.example.com:53"]
