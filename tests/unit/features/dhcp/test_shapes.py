from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from muster.features.dhcp import shapes
from muster.features.dhcp.contract import Lease, Reservation, Subnet
from muster.kernel.errors import Unavailable
from muster.kernel.names import MACAddress

SUBNET = Subnet(IPv4Network("192.168.50.0/24"), {"routers": ["192.168.50.1"], "interface_mtu": 1500})
MAC = MACAddress.parse("00:11:22:33:44:02")
RESERVED = Reservation(
    "dyn1", IPv4Address("192.168.50.12"), MAC, SUBNET, {"hostname": "dyn1", "filename": "pxelinux.0"}
)
LEASED = Lease(
    IPv4Address("192.168.50.101"), MAC, SUBNET, datetime(2026, 11, 19, 10, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC), options={"next_state": "free", "client_hostname": '"lease1"'},
)  # fmt: skip
WHOSE = "What https://other answered to GET /dhcp"


def test_shapes_are_the_recorded_ones_key_by_key() -> None:
    assert json.dumps(shapes.of_subnet(SUBNET)) == (
        '{"network": "192.168.50.0", "netmask": "255.255.255.0", '
        '"options": {"routers": ["192.168.50.1"], "interface_mtu": 1500}}'
    )
    assert shapes.encoded([RESERVED, LEASED]).decode() == (
        '{"name":"dyn1","ip":"192.168.50.12","mac":"00:11:22:33:44:02","subnet":"192.168.50.0/255.255.255.0",'
        '"type":"reservation","deleteable":true,"hostname":"dyn1","filename":"pxelinux.0"},'
        '{"name":"lease-001122334402","ip":"192.168.50.101","mac":"00:11:22:33:44:02",'
        '"subnet":"192.168.50.0/255.255.255.0","starts":"2026-11-19 10:00:00 UTC","ends":"2038-01-19 03:14:07 UTC",'
        '"state":"active","type":"lease","next_state":"free","client_hostname":"\\"lease1\\""}'
    )


def test_what_is_written_is_read_back() -> None:
    assert shapes.to_subnets([shapes.of_subnet(SUBNET)], WHOSE) == [SUBNET]
    for record in (RESERVED, LEASED):
        assert shapes.to_record(shapes.of_record(record), SUBNET, WHOSE) == record
    whole = {"reservations": [shapes.of_record(RESERVED)], "leases": [shapes.of_record(LEASED)]}
    found = shapes.to_records(whole, SUBNET, WHOSE)
    assert (found.reservations, found.leases) == ([RESERVED], [LEASED])
    assert shapes.to_list([shapes.of_record(LEASED)], SUBNET, WHOSE) == [LEASED]


def test_a_proxy_that_says_nothing_of_the_type_means_a_reservation() -> None:
    told = shapes.of_record(RESERVED)
    del told["type"], told["deleteable"]
    assert shapes.to_record(told, SUBNET, WHOSE) == RESERVED


@pytest.mark.parametrize("content", [None, [], 5, "x", {}, {"reservations": None, "leases": []}])
def test_what_is_no_answer_of_a_proxy_is_one_sentence(content: Any) -> None:
    words = r"^What https://other answered to GET /dhcp is not what a Smart Proxy says of DHCP"
    with pytest.raises(Unavailable, match=words):
        shapes.to_records(content, SUBNET, WHOSE)
    with pytest.raises(Unavailable):
        shapes.to_subnets(5, WHOSE)
    with pytest.raises(Unavailable):
        shapes.to_list({"x": 1}, SUBNET, WHOSE)


@pytest.mark.parametrize(
    "odd",
    [
        1, {}, {"ip": "192.168.50.7"}, {"name": "n", "ip": "1.2.3", "mac": "00:11:22:33:44:02"},
        {"name": "n", "ip": 5, "mac": "00:11:22:33:44:02"}, {"name": "n", "ip": "192.168.50.7", "mac": "x"},
        {"name": "n", "ip": "192.168.50.7", "mac": "00:11:22:33:44:02", "type": "lease", "starts": "x", "ends": "y"},
    ],
)  # fmt: skip
def test_one_record_that_is_none_hides_no_other(odd: Any) -> None:
    told = shapes.of_record(RESERVED), shapes.of_record(LEASED)
    found = shapes.to_records({"reservations": [odd, told[0]], "leases": [told[1], odd]}, SUBNET, WHOSE)
    assert RESERVED in found.reservations
    assert LEASED in found.leases
    with pytest.raises(Unavailable):
        shapes.to_record(odd, SUBNET, WHOSE)


def test_one_subnet_that_is_none_hides_no_other() -> None:
    odd: list[Any] = [1, {"network": "x", "netmask": "y"}, {"network": "10.0.0.1", "netmask": "255.0.0.0"}]
    assert shapes.to_subnets([*odd, shapes.of_subnet(SUBNET)], WHOSE) == [SUBNET]


def test_a_ruby_proxys_short_octets_and_absent_times_are_read() -> None:
    told = shapes.of_record(LEASED) | {"mac": "0:11:22:33:44:2", "starts": None, "ends": None}
    found = shapes.to_record(told, SUBNET, WHOSE)
    assert isinstance(found, Lease)
    assert (found.mac, found.ends) == (MAC, LEASED.ends)
