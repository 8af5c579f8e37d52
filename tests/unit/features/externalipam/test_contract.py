from __future__ import annotations

import random
from ipaddress import ip_address, ip_network

import pytest

from muster.features.externalipam.contract import Subnet, lowest
from muster.features.externalipam.promises import address, key


@pytest.mark.parametrize(
    ("network", "first", "last"),
    [
        ("192.0.2.0/29", "192.0.2.1", "192.0.2.6"), ("192.0.2.0/31", "192.0.2.0", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1", "192.0.2.1"), ("2001:db8::/64", "2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff"),
        ("2001:db8::/127", "2001:db8::", "2001:db8::1"), ("0.0.0.0/0", "0.0.0.1", "255.255.255.254"),
    ],
)  # fmt: skip
def test_what_hosts_can_have_is_offered(network: str, first: str, last: str) -> None:
    subnet = Subnet(ip_network(network), "")
    assert [str(subnet.address(n)) for n in subnet.span] == [first, last]


def test_what_is_taken_or_excluded_or_outside_is_not_offered() -> None:
    ips = [ip_address(f"192.0.2.{n}") for n in range(16)]
    subnet = Subnet(ip_network("192.0.2.0/28"), "", first=ips[3], last=ips[8], excluded=frozenset({ips[4]}))
    assert lowest(subnet, {ips[3], ips[6]}, 10) == [ips[5], ips[7], ips[8]]
    assert lowest(subnet, {ips[3]}, 1) == [ips[5]]
    assert lowest(subnet, (), 10, since=ips[8]) == [ips[8]]
    assert lowest(subnet, ips, 10) == []


def test_keys_stand_in_the_order_of_addresses() -> None:
    chance = random.Random(7)
    four = [ip_address(chance.getrandbits(32)) for _ in range(50)]
    six = [ip_address(chance.getrandbits(128) | 1 << 127) for _ in range(50)]
    ordered = [*sorted(four, key=int), *sorted(six, key=int)]
    assert sorted(map(key, [*six, *four])) == [key(ip) for ip in ordered]
    assert [address(key(ip)) for ip in ordered] == ordered
