"""What the benchmark of DHCP makes up is what it says: leases that are read, a range around them, addresses for hosts."""

from __future__ import annotations

from datetime import UTC, datetime
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from bench import dhcp
from bench.__main__ import BENCHMARKS

from muster.features.dhcp import asked
from muster.features.dhcp.isc import followed
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SIZE = 1_000


async def test_all_of_its_leases_are_read_and_lie_in_the_range_of_its_configuration(tmp_path: Path) -> None:
    conf, leases = tmp_path / "dhcpd.conf", tmp_path / "dhcpd.leases"
    conf.write_text(dhcp.conf_of(SIZE))
    leases.write_text(dhcp.leases_of(SIZE, NOW))
    async with followed.opened(conf, leases, clock=FakeClock(NOW)) as known:
        (subnet,) = known.subnets
        found = known.records(subnet).leases
        range_of: Any = subnet.options["range"]
    assert len(found) == len({one.mac for one in found}) == SIZE
    first, last = (IPv4Address(a) for a in range_of)
    assert {one.ip for one in found} == {dhcp.address_of(n) for n in range(SIZE)}
    assert all(first <= one.ip <= last for one in found)
    # A fifth of the range is left for new hosts.
    assert int(last) - int(first) + 1 - SIZE == pytest.approx(SIZE / 4, abs=1)


def test_ranges_have_nothing_in_common_and_free_addresses_each() -> None:
    leased = {dhcp.address_of(n) for n in range(SIZE)}
    ends = [end for found in dhcp.ranges_of(SIZE, 4) for end in found]
    assert ends == sorted(set(ends))
    assert (ends[0], ends[-1] <= dhcp.address_of(SIZE - 1)) == (dhcp.address_of(0), True)
    for first, last in dhcp.ranges_of(SIZE, 4):
        free = {IPv4Address(n) for n in range(int(first), int(last) + 1)} - leased
        assert len(free) > 50


def test_hosts_are_reservations_that_no_lease_and_no_other_host_is_in_the_way_of() -> None:
    wanted = [asked.wanted(dhcp.host_of(n)) for n in range(4_000)]
    for what in ("ip", "mac", "name"):
        assert len({getattr(one, what) for one in wanted}) == 4_000
    assert min(one.ip for one in wanted) > dhcp.address_of(100_000 - 1)
    hostname = {"hostname": "new00000.example.net"}
    assert dict(wanted[0].options) == {**hostname, "nextServer": "192.0.2.7", "filename": "pxelinux.0"}


def test_an_answer_that_says_nothing_of_its_length_is_none() -> None:
    assert dhcp.length_of(b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n") == 12
    with pytest.raises(Unavailable, match="nothing of its length"):
        dhcp.length_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")


def test_the_command_has_it() -> None:
    assert BENCHMARKS["dhcp"] is dhcp.measured
