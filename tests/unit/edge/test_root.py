from __future__ import annotations

import json

from muster.edge import root
from muster.edge.feature import Features, State
from muster.edge.routes import Access
from tests.unit.edge.calls import request
from tests.unit.edge.features_for_tests import feature, served

FEATURES = Features(
    {
        "tftp": served(feature("tftp", "/tftp")),
        "dns": served(feature("dns", "/dns"), enabled="https"),
        "bmc": served(feature("bmc", "/bmc"), State.FAILED, reason="no ipmitool"),
        "dhcp": served(feature("dhcp", "/dhcp"), State.DISABLED),
        "logs": served(feature("logs", "/logs"), State.DRAINING),
    },
    "3.14.2",
)


async def test_features_are_the_sorted_names_of_what_runs_on_either_listener() -> None:
    assert (await root.features(FEATURES, request())).body == b'["dns","logs","tftp"]'


async def test_the_version_and_its_modules_are_plausible_to_foreman_and_in_load_order() -> None:
    shown = json.loads((await root.version(FEATURES, request())).body)
    assert list(shown) == ["version", "modules"]
    assert shown["version"] == "3.14.2"
    assert list(shown["modules"]) == ["tftp", "dns", "logs"]
    assert set(shown["modules"].values()) == {shown["version"]}


async def test_the_second_version_shows_also_what_does_not_run() -> None:
    shown = json.loads((await root.features_v2(FEATURES, request())).body)
    assert list(shown) == ["tftp", "dns", "bmc", "dhcp", "logs"]
    assert {name: one["state"] for name, one in shown.items()} == {
        "tftp": "running",
        "dns": "running",
        "bmc": "failed",
        "dhcp": "disabled",
        "logs": "running",
    }
    assert (shown["dns"]["http_enabled"], shown["dns"]["https_enabled"]) == (False, True)


def test_only_the_second_version_is_protected() -> None:
    assert root.ROOT.access is Access.OPEN
    assert root.V2.access is Access.TRUSTED
