from __future__ import annotations

from typing import Literal

import pytest

from muster.edge.feature import FOREMAN_PREFIXES, WIRE_STATE, Features, State
from tests.unit.edge.features_for_tests import feature, served

DNS = feature("dns", "/dns", capabilities=("b", "a"))


@pytest.mark.parametrize(
    ("state", "word", "answers"),
    [
        (State.DISABLED, "disabled", False),
        (State.STARTING, "starting", False),
        (State.RUNNING, "running", True),
        (State.DRAINING, "running", True),
        (State.STOPPED, "disabled", False),
        (State.FAILED, "failed", False),
    ],
)
def test_each_state_has_foremans_word(state: State, word: str, answers: bool) -> None:
    one = served(DNS, state)
    assert one.answers is answers
    shown = one.as_json()
    assert list(shown) == ["http_enabled", "https_enabled", "settings", "state", "capabilities"]
    assert shown["state"] == word
    assert shown["http_enabled"] is shown["https_enabled"] is answers
    assert shown["capabilities"] == ["a", "b"]
    assert shown["settings"] == {"use_provider": None if state is State.DISABLED else "dns_memory"}


def test_every_state_has_a_word() -> None:
    assert set(WIRE_STATE) == set(State)


@pytest.mark.parametrize(
    ("enabled", "http", "https"),
    [(True, True, True), (False, False, False), ("http", True, False), ("https", False, True)],
)
def test_a_feature_is_on_where_its_setting_says(
    enabled: bool | Literal["http", "https"], http: bool, https: bool
) -> None:
    one = served(DNS, enabled=enabled)
    assert (one.on("http"), one.on("https")) == (http, https)
    assert (one.as_json()["http_enabled"], one.as_json()["https_enabled"]) == (http, https)


def test_an_absent_feature_says_why() -> None:
    features = Features(
        {
            "dns": served(DNS, enabled="https"),
            "dhcp": served(feature("dhcp", "/dhcp"), State.FAILED, reason="the key file is missing"),
            "tftp": served(feature("tftp", "/tftp"), State.STARTING),
            "bmc": served(feature("bmc", "/bmc"), State.DRAINING),
        }
    )
    assert features.why_absent("dns", "https") is None
    assert features.why_absent("dns", "http") == "Feature dns is served over https only"
    assert features.why_absent("dhcp", "https") == "Feature dhcp failed on this member: the key file is missing"
    assert features.why_absent("tftp", "https") == "Feature tftp is starting on this member"
    assert features.why_absent("bmc", "https") is None
    assert features.why_absent("realm", "https") == "Feature realm is not configured on this member"
    assert features.running() == ["dns", "bmc"]
    assert features.failed() == {"dhcp": "the key file is missing"}


def test_every_prefix_of_the_protocol_is_known() -> None:
    of_the_protocol = {
        "/logs", "/dns", "/dhcp", "/tftp", "/httpboot", "/EFI", "/facts", "/puppet", "/puppet/ca", "/bmc", "/realm",
        "/unattended", "/userdata", "/register",
    }  # fmt: skip
    assert of_the_protocol <= set(FOREMAN_PREFIXES)
    assert all(p.startswith("/") and not p.endswith("/") for p in FOREMAN_PREFIXES)
