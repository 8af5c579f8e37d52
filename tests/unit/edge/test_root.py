from __future__ import annotations

import json
from dataclasses import replace

import pytest

from muster.edge import root
from muster.edge.feature import Features, State, Told
from muster.edge.request import Peer
from muster.edge.routes import Access
from muster.kernel.secrets import Secret
from tests.unit.edge.calls import peer, request
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


PULP = "s3cret-of-pulp"


def told(_: object) -> Told:
    return Told({"pulp_url": "https://pulp.test", "password": Secret(PULP)}, ("rpm", "core"))


async def test_a_service_that_runs_says_itself_what_it_is_and_is_asked_first() -> None:
    asked = []

    async def refreshed(service: object) -> None:
        asked.append(service)

    running = replace(feature("pulpcore", "/pulpcore"), told=told, refreshed=refreshed)
    many = Features({"pulpcore": served(running), "dns": served(feature("dns", "/dns"))})
    by = request(by=peer())
    shown = json.loads((await root.features_v2(many, by)).body)["pulpcore"]
    assert len(asked) == 1
    assert shown["settings"] == {"pulp_url": "https://pulp.test", "password": PULP}
    assert shown["capabilities"] == ["core", "rpm"]
    off = Features({"pulpcore": served(running, State.FAILED, reason="x")})
    assert json.loads((await root.features_v2(off, by)).body)["pulpcore"]["settings"] == {
        "use_provider": "pulpcore_memory"
    }
    assert len(asked) == 1


@pytest.mark.parametrize(("scheme", "by"), [("http", None), ("http", peer()), ("https", None)])
async def test_a_password_is_told_to_nobody_without_a_certificate(scheme: str, by: Peer | None) -> None:
    one = Features({"pulpcore": served(replace(feature("pulpcore", "/pulpcore"), told=told))})
    body = (await root.features_v2(one, request(scheme=scheme, by=by))).body.decode()
    assert PULP not in body
    assert json.loads(body)["pulpcore"]["settings"]["password"] is None
    assert PULP not in str(one.served["pulpcore"].as_json())


def test_only_the_second_version_is_protected() -> None:
    assert root.ROOT.access is Access.OPEN
    assert root.V2.access is Access.TRUSTED
