from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.infoblox.objects import lease, only, reservation, subnets, used, wanted
from muster.kernel.names import MACAddress

MAC = MACAddress.parse("52:54:00:aa:00:01")
SUBNET = Subnet(IPv4Network("192.0.2.0/24"))
NOW = datetime(2026, 11, 30, tzinfo=UTC)
ONE = Reservation(
    "web.example.com", IPv4Address("192.0.2.5"), MAC, SUBNET, {"hostname": "web.example.com", "filename": "a.0"}
)


def test_a_reservation_is_a_fixed_address_or_a_host() -> None:
    assert wanted(ONE, "fixedaddress", network_view="v", dns_view=None) == (
        "fixedaddress",
        {"ipv4addr": "192.0.2.5", "mac": str(MAC), "bootfile": "a.0", "use_bootfile": True, "name": "web.example.com",
         "network_view": "v", "match_client": "MAC_ADDRESS"},
    )  # fmt: skip
    kind, host = wanted(ONE, "host", network_view="v", dns_view="d")
    assert (kind, host["view"], host["configure_for_dns"], host["ipv4addrs"][0]["configure_for_dhcp"]) == (
        "record:host", "d", True, True,
    )  # fmt: skip
    assert wanted(ONE, "host", network_view="v", dns_view=None)[1]["configure_for_dns"] is False


@pytest.mark.parametrize(
    "change", [{"mac": ""}, {"mac": None}, {"mac": 5}, {"ipv4addr": "x"}, {"ipv4addr": 3232235777}, {"mac": "00:00"}]
)
def test_what_is_for_no_machine_is_no_reservation(change: dict[str, Any]) -> None:
    given = {"ipv4addr": "192.0.2.5", "mac": str(MAC).upper(), "name": "web", **change}
    assert reservation(given, "fixedaddress", SUBNET, deletable=True) is None


def test_what_the_network_decides_is_not_told_as_the_reservations() -> None:
    given = {
        "ipv4addr": "192.0.2.5",
        "mac": str(MAC),
        "bootfile": "n.0",
        "use_bootfile": False,
        "nextserver": "192.0.2.7",
    }
    found = reservation(given, "fixedaddress", SUBNET, deletable=True)
    assert found is not None
    assert ("filename" in found.options, found.options["nextServer"], found.name) == (
        False,
        "192.0.2.7",
        "52-54-00-aa-00-01",
    )


def test_a_hosts_address_that_is_not_for_dhcp_is_no_reservation() -> None:
    given = {"ipv4addr": "192.0.2.5", "mac": str(MAC), "host": "web", "configure_for_dhcp": False}
    assert reservation(given, "host", SUBNET, deletable=True) is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "2026-12-01"), ({"never_ends": True}, "2038-01-19"), ({"ends": "what"}, "2038-01-19"),
        ({"ends": 1}, None), ({"binding_state": "FREE"}, None), ({"hardware": ""}, None), ({"address": None}, None),
    ],
)  # fmt: skip
def test_a_lease_is_one_as_long_as_it_is(change: dict[str, Any], expected: str | None) -> None:
    given = {"address": "192.0.2.9", "hardware": str(MAC), "binding_state": "ACTIVE", "ends": 1796100000, **change}
    found = lease(given, SUBNET, NOW)
    assert (None if found is None else f"{found.ends:%Y-%m-%d}") == expected


def test_odd_answers_are_no_networks_and_no_addresses() -> None:
    networks = [{"network": "2001:db8::/64"}, {}, {"network": "192.0.2.0/24", "options": "what"}]
    assert [str(s.network) for s in subnets(networks, [{}])] == ["192.0.2.0/24"]
    assert used(
        [{"status": "USED", "ip_address": "192.0.2.5"}, {"status": "UNUSED", "ip_address": "192.0.2.6"}, {}]
    ) == {IPv4Address("192.0.2.5")}
    two = {"ipv4addrs": [{"ipv4addr": "192.0.2.5"}, {"ipv4addr": "192.0.2.6"}]}
    assert only([two, {}, {"ipv4addrs": "x"}], IPv4Address("192.0.2.5")) is None
