"""What is written down of reservations, which changes bear upon each other, and what several servers say together."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network

import pytest

from muster.features.dhcp.contract import DHCPProvider, Lease, Records, Reservation, Subnet
from muster.features.dhcp.several import GROUPABLE, Reservations
from muster.kernel.names import MACAddress
from muster.policy.groups.journal import Written
from muster.policy.marks import operations

CODEC = Reservations()
ADD, REMOVE = (next(o for o in operations(DHCPProvider) if o.name == name) for name in ("add", "remove"))
SUBNET = Subnet(IPv4Network("192.0.2.0/24"), {"routers": ["192.0.2.254"]})
MACS = [MACAddress.parse(f"52:54:00:00:00:0{n}") for n in range(4)]


def of(address: int, mac: int, name: str = "web") -> Reservation:
    return Reservation(name, IPv4Address(f"192.0.2.{address}"), MACS[mac], SUBNET, {"hostname": name})


def add(one: Reservation) -> Written:
    return CODEC.written(ADD, (one,), {"related": [MACS[3]]})


def remove(one: Reservation) -> Written:
    return CODEC.written(REMOVE, (one,), {})


def lease(address: int, mac: int) -> Lease:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Lease(IPv4Address(f"192.0.2.{address}"), MACS[mac], SUBNET, now, now)


def test_what_is_written_is_read_again() -> None:
    assert CODEC.read(add(of(1, 1))) == ((of(1, 1),), {"related": [MACS[3]]})
    assert CODEC.read(remove(of(1, 1))) == ((of(1, 1),), {})


def test_of_an_address_and_a_machine_the_last_word_counts() -> None:
    one, renamed = of(1, 1), of(1, 1, "other")
    assert CODEC.settles(remove(one), add(one))
    assert CODEC.settles(remove(one), remove(one))
    assert CODEC.settles(add(renamed), add(one))
    assert not CODEC.settles(add(one), remove(one))
    assert CODEC.follows(add(one), remove(one))


def test_two_machines_of_one_address_are_apart_and_in_order() -> None:
    one, other, moved = of(1, 1), of(1, 2), of(2, 1)
    assert not CODEC.settles(remove(other), add(one))
    assert not CODEC.settles(add(other), add(one))
    assert not CODEC.follows(add(other), remove(one))
    assert CODEC.touches(add(one)) & CODEC.touches(add(other))
    # A machine that gets another address: the removal comes first.
    assert CODEC.touches(remove(one)) & CODEC.touches(add(moved))
    assert not CODEC.touches(add(of(1, 2))) & CODEC.touches(add(of(2, 1, "other")))
    # So does that of one whose name another one gets.
    assert CODEC.touches(remove(one)) & CODEC.touches(add(of(2, 2, "WEB")))


@pytest.mark.parametrize("arguments", [None, [], "x", {}, {"mac": None}])
def test_what_another_version_wrote_bears_on_nothing(arguments: object) -> None:
    strange = Written("192.0.2.1", "rename", arguments)
    assert not CODEC.settles(add(of(1, 1)), strange)
    assert not CODEC.settles(strange, add(of(1, 1)))
    assert not CODEC.follows(add(of(1, 1)), strange)
    assert CODEC.touches(strange)
    with pytest.raises(ValueError, match=r"."):
        CODEC.read(strange)


def test_a_server_that_is_behind_shows_no_reservation_that_was_removed_and_its_leases() -> None:
    merges = GROUPABLE.merges
    said = {"isc": [], "kea": [of(1, 1), lease(2, 2)]}
    assert merges["at"](said, ()) == [of(1, 1), lease(2, 2)]
    assert merges["at"](said, {"kea"}) == [lease(2, 2)]
    assert merges["of"]({"isc": None, "kea": of(1, 1)}, {"kea"}) is None
    assert merges["of"]({"isc": None, "kea": lease(2, 2)}, {"kea"}) == lease(2, 2)
    assert merges["of"]({"isc": lease(2, 2), "kea": of(1, 2)}, ()) == of(1, 2)
    records = {"isc": Records(), "kea": Records([of(1, 1)], [lease(2, 2)])}
    assert merges["records"](records, {"kea"}) == Records([], [lease(2, 2)])
    # What is in use anywhere is not free.
    assert merges["taken"]({"isc": [], "kea": [IPv4Address("192.0.2.1")]}, {"kea"}) == {IPv4Address("192.0.2.1")}
    assert merges["subnets"]({"isc": [SUBNET], "kea": [SUBNET]}, {"kea"}) == [SUBNET]
