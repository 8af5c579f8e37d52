from __future__ import annotations

from typing import Any

import pytest

from muster.features.realm.active_directory import names
from muster.features.realm.settings import ADSettings
from muster.kernel.names import FQDN


def settings(**change: Any) -> ADSettings:
    given = {"realm": "EXAMPLE.COM", "keytab_path": "/k", "principal": "muster", "domain_controller": "dc1.example.com"}
    return ADSettings.model_validate({**given, **change})


@pytest.mark.parametrize(
    ("host", "change", "expected"),
    [
        ("host.example.com", {}, "HOST"),
        ("HOST.example.com", {}, "HOST"),
        ("superlonghostname.example.com", {}, "SUPERLONGHOSTNA"),
        ("host.example.com", {"computername_prefix": "org-"}, "ORG-HOST"),
        ("ORG-host.example.com", {"computername_prefix": "org-"}, "ORG-HOST"),
        ("host.example.com", {"computername_hash": True}, "4740AE6347B0172"),
        ("host.example.com", {"computername_hash": True, "computername_prefix": "47"}, "474740AE6347B01"),
        ("host.example.com", {"computername_hash": True, "computername_use_fqdn": True}, "B0732F0121F2C3D"),
        ("host.example.com", {"computername_use_fqdn": True}, "HOST.EXAMPLE.CO"),
    ],
)
def test_the_name_of_an_account(host: str, change: dict[str, Any], expected: str) -> None:
    assert names.account(FQDN(host), settings(**change)) == expected


def test_the_name_of_a_domain() -> None:
    assert names.base(FQDN("AD.Example.COM")) == "DC=ad,DC=example,DC=com"
