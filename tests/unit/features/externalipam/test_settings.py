from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.features.externalipam.settings import ExternalIPAMSettings

NETBOX = {"url": "https://netbox.example.net", "token": "secret-token"}
PHPIPAM = {"url": "https://phpipam.example.net/ipam", "user": "foreman", "password": "secret-password"}


def parsed(**given: Any) -> ExternalIPAMSettings:
    return ExternalIPAMSettings.model_validate(given)


@pytest.mark.parametrize("word", ["netbox", "phpipam"])
def test_rubys_words_are_understood(word: str) -> None:
    assert parsed(use_provider=f"externalipam_{word}", netbox=NETBOX, phpipam=PHPIPAM).provider == word


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"provider": "netbox"}, "provider netbox needs netbox.url"),
        ({"provider": "smart_proxy"}, "provider smart_proxy needs smart_proxy.url"),
        ({"netbox": {**NETBOX, "url": "http://netbox.example.net"}}, "a secret goes there"),
        ({"netbox": {**NETBOX, "token_file": "/t"}}, "one of token and token_file"),
        ({"netbox": {"url": NETBOX["url"]}}, "one of token and token_file"),
        ({"phpipam": {**PHPIPAM, "url": "http://phpipam.example.net"}}, "a secret goes there"),
        ({"phpipam": {**PHPIPAM, "password": None}}, "one of password and password_file"),
        ({"phpipam": {**PHPIPAM, "user": "a b/.."}}, "app is needed"),
        ({"phpipam": {**PHPIPAM, "app": "../x"}}, "app"),
        ({"claims": {"subnets": [{"network": "192.0.2.1/24"}]}}, "host bits"),
        ({"claims": {"subnets": [{"network": "192.0.2.0/24", "first": "198.51.100.1"}]}}, "no address of 192.0.2.0/24"),
        ({"claims": {"subnets": [{"network": "192.0.2.0/24", "excluded": ["2001:db8::1"]}]}}, "no address of"),
        (
            {"claims": {"subnets": [{"network": "192.0.2.0/24", "first": "192.0.2.9", "last": "192.0.2.8"}]}},
            "lies behind last",
        ),
        (
            {"claims": {"subnets": [{"network": "192.0.2.0/24"}, {"network": "192.0.2.128/25"}]}},
            "192.0.2.128/25 and 192.0.2.0/24 overlap",
        ),
        ({"claims": {"subnets": [{"network": "192.0.2.0/24", "group": "a\nb"}]}}, "group"),
        ({"claims": {"subnets": [{"network": "192.0.2.0/24", "group": "a\x85b"}]}}, "group"),
        ({"claims": {"subnets": [{"network": 5}]}}, "no network such as"),
        ({"claims": {"subnets": [{"network": "fe80::%eth0/64"}]}}, "no network such as"),
        ({"claims": {"subnets": [{"network": "0.0.0.0/24", "first": 5}]}}, "no address such as"),
        ({"claims": {"subnets": [{"network": "192.0.2.0/24", "first": "192.0.2.255"}]}}, "leave none"),
        ({"claims": {"subnets": [{"network": "192.0.2.0/32", "excluded": ["192.0.2.0"]}]}}, "leave none"),
        # Shorter than a call may take, it would have ended before Foreman hears of it.
        ({"promise_minutes": 0.001}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_work_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said.replace(".", r"\.")):
        parsed(**given)


def test_subnets_of_two_groups_may_overlap_and_of_two_families_do_not() -> None:
    subnets = [{"network": "192.0.2.0/24"}, {"network": "192.0.2.0/24", "group": "lab"}, {"network": "2001:db8::/64"}]
    assert len(parsed(claims={"subnets": subnets}).claims.subnets) == 3


def test_secrets_show_themselves_nowhere() -> None:
    settings = parsed(netbox=NETBOX, phpipam=PHPIPAM)
    assert "secret-" not in f"{settings!r} {settings.model_dump_json()}"


def test_the_ipam_is_a_service_of_the_register() -> None:
    (one,) = parsed(provider="netbox", netbox=NETBOX, readiness="essential").registered()
    assert (one.name, one.control_url, one.weight) == ("externalipam", NETBOX["url"], "essential")
    assert parsed().registered() == ()
