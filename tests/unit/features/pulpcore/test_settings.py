from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from muster.features.pulpcore.settings import PulpcoreSettings

WHERE = {"pulp_url": "https://{member}", "content_app_url": "https://smartproxy.example.net/pulp/content"}


def parsed(**more: Any) -> PulpcoreSettings:
    return PulpcoreSettings.model_validate({**WHERE, **more})


def test_the_names_of_the_ruby_plugin_are_ours() -> None:
    ruby = {
        **WHERE, "rhsm_url": "https://smartproxy.example.net:443/rhsm", "mirror": True, "username": "admin",
        "password": "s", "client_authentication": ["client_certificate"], "enabled": "https",
    }  # fmt: skip
    found = parsed(**ruby)
    assert (found.mirror, found.username, found.client_authentication) == (True, "admin", ("client_certificate",))
    assert "'s'" not in repr(found)


def test_what_ruby_has_by_itself_is_so_here() -> None:
    found = parsed()
    assert (found.mirror, found.client_authentication) == (False, ("password", "client_certificate"))
    assert (found.username, found.password, found.rhsm_url) == (None, None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"pulp_url": None}, {"content_app_url": None}, {"password": "a", "password_file": "/p"},
        {"client_authentication": []}, {"client_authentication": ["kerberos"]}, {"username": "a:b"},
        {"username": "a\n"}, {"pulp_url": "https://u:p@pulp.test"}, {"pulp_url": "https://pulp.test/a/../b"},
        {"pulp_url": "https://pulp.test\n"}, {"pulp_url": "ftp://pulp.test"}, {"pulp_url": "https://pulp.test?x=1"},
        {"pulp_url": "https://{host}"}, {"pulp_url": "https://pulp.test:0"}, {"rhsm_url": "pulp.test"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        parsed(**wrong)


def test_one_that_is_off_or_in_memory_needs_no_place() -> None:
    assert PulpcoreSettings(enabled=False).pulp_url is None
    assert PulpcoreSettings(provider="memory").pulp_url is None
