from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

import pytest

from muster.features.dhcp.contract import Subnet
from muster.features.dhcp.kea.leases import NEVER, is_taken, lease

SUBNET = Subnet(IPv4Network("192.0.2.0/24"))
NOW = datetime(2026, 11, 30, 8, 0, tzinfo=UTC)
CLTT = int(NOW.timestamp()) - 100


def told(**change: Any) -> dict[str, Any]:
    one = {"ip-address": "192.0.2.9", "hw-address": "52:54:00:00:00:01", "cltt": CLTT, "valid-lft": 3600, "state": 0}
    return {**one, **change}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({}, "active"),
        ({"state": 1}, "declined"),
        ({"state": 2}, None),
        ({"state": 3}, None),
        ({"valid-lft": 100}, None),
        ({"valid-lft": 101}, "active"),
        ({"valid-lft": 0xFFFFFFFF}, "active"),
    ],
)
def test_a_lease_is_one_while_it_holds_its_address(change: dict[str, Any], state: str | None) -> None:
    found = lease(told(**change), SUBNET, NOW)
    assert is_taken(told(**change), NOW) == (state is not None)
    assert (None if found is None else found.state) == state


def test_times_and_names_are_told() -> None:
    found = lease(told(hostname="h.test"), SUBNET, NOW)
    assert found is not None
    assert ((NOW - found.starts).seconds, (found.ends - found.starts).seconds) == (100, 3600)
    assert found.options == {"client_hostname": "h.test"}
    for_ever = lease(told(**{"valid-lft": 0xFFFFFFFF}), SUBNET, NOW)
    assert for_ever is not None
    assert for_ever.ends == NEVER
    assert is_taken(told(**{"valid-lft": 0xFFFFFFFE, "cltt": 1 << 60}), NOW)


def test_whose_hardware_address_nobody_knows_holds_its_address_all_the_same() -> None:
    for address in ("", "01:02:03"):
        one = told(**{"hw-address": address})
        assert lease(one, SUBNET, NOW) is None
        assert is_taken(one, NOW)
