from __future__ import annotations

import pytest

from muster.features.externalipam import asked
from muster.kernel.errors import Rejected


@pytest.mark.parametrize(
    ("address", "prefix", "network"),
    [("192.0.2.0", "24", "192.0.2.0/24"), ("0.0.0.0", "0", "0.0.0.0/0"), ("2001:DB8::", "64", "2001:db8::/64")],
)
def test_a_subnet_is_read(address: str, prefix: str, network: str) -> None:
    assert str(asked.network(address, prefix)) == network


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("192.0.2.1", "24"), ("192.0.2.0", "33"), ("192.0.2.0", "024"), ("192.0.2.0", "24\n"), ("192.0.2.0", "²4"),
        ("192.0.2.0", "255.255.255.0"), ("192.0.2.0", "-1"), ("192.0.2.0", ""), ("2001:db8::", "129"), ("fe80::%1", "64"),
        ("192.0.2.0\n", "24"), ("", "24"),
    ],
)  # fmt: skip
def test_what_is_no_subnet_is_refused(address: str, prefix: str) -> None:
    with pytest.raises(Rejected):
        asked.network(address, prefix)


def test_an_address_is_one_of_its_subnet() -> None:
    subnet = asked.network("192.0.2.0", "29")
    assert str(asked.within("192.0.2.7", subnet)) == "192.0.2.7"
    for ip in ("192.0.2.8", "2001:db8::1", "next", "192.0.2.1%25"):
        with pytest.raises(Rejected):
            asked.within(ip, subnet)


@pytest.mark.parametrize("text", ["a\nb", "\x00", "x" * 256, "a\x85", "a\u2028"])
def test_what_can_be_no_group_is_refused(text: str) -> None:
    with pytest.raises(Rejected):
        asked.group(text)


@pytest.mark.parametrize(
    ("raw", "decoded", "group"),
    [
        (b"/ipam/groups/My+Group", "My+Group", "My Group"),
        (b"/ipam/groups/a%2Bb/subnets", "a+b", "a+b"),
        (b"/ipam/groups/B%C3%BCro%20%26%20Co", "Büro & Co", "Büro & Co"),
        (b"//ipam/./groups/x", "x", "x"),
    ],
)
def test_a_group_in_a_path_is_read_as_foreman_wrote_it(raw: bytes, decoded: str, group: str) -> None:
    assert asked.group_in_path(raw, decoded) == group
