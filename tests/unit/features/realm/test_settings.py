from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.features.realm.manifest import FEATURE
from muster.features.realm.settings import ADSettings, FreeIPASettings, RealmSettings

KERBEROS = {"keytab_path": "/etc/muster/realm.keytab", "principal": "muster@EXAMPLE.COM"}
AD = {**KERBEROS, "realm": "EXAMPLE.COM", "domain_controller": "dc1.example.com"}


def test_rubys_words_are_understood() -> None:
    settings = RealmSettings.model_validate(
        {"use_provider": "realm_ad", "ad": {**AD, "computername_prefix": "L-", "computername_hash": True}}
    )
    assert settings.provider == "ad"
    assert settings.ad is not None
    assert settings.ad.domain_controller == ("dc1.example.com",)
    assert FEATURE.exposed(settings) == {"use_provider": "realm_ad"}
    assert FEATURE.exposed(None) == {"use_provider": None}


def test_several_domain_controllers_stand_in_a_list() -> None:
    settings = ADSettings.model_validate({**AD, "domain_controller": ["dc1.example.com", "2001:db8::1"]})
    assert settings.domain_controller == ("dc1.example.com", "2001:db8::1")


@pytest.mark.parametrize("provider", ["freeipa", "ad", "smart_proxy"])
def test_a_provider_without_its_settings_is_refused(provider: str) -> None:
    with pytest.raises(ValidationError, match=f"provider {provider} needs {provider}"):
        RealmSettings.model_validate({"provider": provider})


@pytest.mark.parametrize(
    "principal", ["muster", "muster@EXAMPLE.COM", "HTTP/proxy01.example.com@EXAMPLE.COM", "PROXY01$@EXAMPLE.COM"]
)
def test_principals(principal: str) -> None:
    assert FreeIPASettings.model_validate({**KERBEROS, "principal": principal}).principal == principal


# They become words of a command line.
@pytest.mark.parametrize(
    "change",
    [
        {"principal": ""},
        {"principal": "-c"},
        {"principal": "muster@"},
        {"principal": "a b@EXAMPLE.COM"},
        {"principal": "muster\n@EXAMPLE.COM"},
        {"principal": "muster@EXAMPLE.COM\n"},
        {"keytab_path": "realm.keytab"},
        {"keytab_path": "/etc/a\nb"},
        {"krb5_config": "-x"},
        {"domain_controller": "-x"},
        {"domain_controller": []},
        {"ou": "OU=a\nOU=b"},
        {"ou": "Linux"},
        {"computername_prefix": "-L"},
        {"computername_prefix": "L)(x=*"},
        {"computername_prefix": "fifteen-letters"},
        {"realm": "EXAMPLE COM"},
        {"timeout_s": 0},
    ],
)
def test_what_no_command_line_may_have_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADSettings.model_validate({**AD, **change})


def test_the_service_behind_it_is_registered() -> None:
    [one] = RealmSettings.model_validate({"provider": "ad", "ad": AD}).registered()
    assert one.control_url == "ldap://dc1.example.com:389"
    assert RealmSettings.model_validate({"provider": "memory"}).registered() == ()
