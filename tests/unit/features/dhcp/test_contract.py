from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

import pytest

from muster.features.dhcp.contract import DHCPProvider, Lease, Records, Reservation, Subnet, ordered, same
from muster.kernel.names import MACAddress
from muster.policy.marks import operations

SUBNET = Subnet(IPv4Network("192.168.120.0/24"))
ONE = Reservation(
    "h.example.com", IPv4Address("192.168.120.5"), MACAddress.parse("52:54:00:aa:00:01"), SUBNET,
    {"hostname": "h.example.com", "filename": "pxelinux.0", "nextServer": "10.0.0.1"},
)  # fmt: skip
LEASE = Lease(ONE.ip, ONE.mac, SUBNET, datetime.now(UTC), datetime.now(UTC))


def test_whatever_the_server_adds_is_no_difference() -> None:
    assert same(
        replace(ONE, options={**ONE.options, "hardware_type": "ethernet", "uid": [["x"]]}, deletable=False), ONE
    )
    assert same(replace(ONE, name="H.example.com"), ONE)
    assert same(ONE, replace(ONE, options={k: v for k, v in ONE.options.items() if k != "hostname"}))


@pytest.mark.parametrize(
    "other",
    [
        replace(ONE, name="other"),
        replace(ONE, ip=IPv4Address("192.168.120.6")),
        replace(ONE, mac=MACAddress.parse("52:54:00:aa:00:02")),
        replace(ONE, options={**ONE.options, "filename": "other.0"}),
        replace(ONE, options={**ONE.options, "hostname": "other"}),
        replace(ONE, options={k: v for k, v in ONE.options.items() if k != "nextServer"}),
    ],
)
def test_another_value_of_what_foreman_gives_is_a_difference(other: Reservation) -> None:
    assert not same(other, ONE)
    assert not same(ONE, other)


def test_an_option_that_the_server_dropped_is_no_difference_and_another_value_is_one() -> None:
    wanted = replace(ONE, options={**ONE.options, "<Sun-Fire>root_path_name": "/vol", "ztp_firmware": {"core": "a"}})
    assert same(ONE, wanted)
    assert same(replace(ONE, options={**ONE.options, "root_path_name": "/vol", "ztp_firmware": {"core": "a"}}), wanted)
    assert not same(replace(ONE, options={**ONE.options, "root_path_name": "/other"}), wanted)


def test_options_are_told_in_one_order_and_absent_ones_are_not() -> None:
    assert list(ordered({"x": 1, "nextServer": "a", "filename": None, "hostname": "h"})) == [
        "hostname",
        "nextServer",
        "x",
    ]


def test_records_are_reservations_and_then_leases() -> None:
    assert list(Records([ONE], [LEASE])) == [ONE, LEASE]
    assert (LEASE.name, str(LEASE)) == ("lease-525400aa0001", "192.168.120.5 / 52:54:00:aa:00:01")


def test_every_operation_may_be_repeated() -> None:
    assert all(o.repeatable for o in operations(DHCPProvider))
