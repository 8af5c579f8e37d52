from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.features.dhcp import asked
from muster.features.dhcp.contract import Subnet
from muster.kernel.errors import Rejected

SUBNET = Subnet(IPv4Network("192.168.120.0/24"))
FORM: dict[str, Any] = {"name": "h1.example.com", "ip": "192.168.120.5", "mac": "52:54:00:AA:00:1"}
INFINIBAND = ":".join(["a0"] * 20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("52:54:00:aa:00:01", "52:54:00:aa:00:01"),
        ("52:54:00:AA:00:01", "52:54:00:aa:00:01"),
        ("0:1:2:3:4:5", "00:01:02:03:04:05"),
        (INFINIBAND, INFINIBAND),
    ],
)
def test_a_hardware_address_is_known_however_it_is_written(text: str, expected: str) -> None:
    assert asked.mac(text) == expected


@pytest.mark.parametrize(
    "text",
    [None, "", "nomac", "52:54:00", "52-54-00-aa-00-01", "52:54:00:aa:00:01\n", ":".join(["a0"] * 8), "52:54:00:aa:00:0g",
     "٥2:54:00:aa:00:01"],
)  # fmt: skip
def test_what_is_no_hardware_address_is_refused_in_the_ruby_proxys_words(text: str | None) -> None:
    with pytest.raises(Rejected, match=r"^Invalid MAC "):
        asked.mac(text)


@pytest.mark.parametrize(
    "text",
    [None, "", "abc", "192.168.120", "192.168.120.256", "010.020.000.000", "2001:db8::", "::1", "192.168.120.0\n",
     "1.2.3.4/8", "１.2.3.4"],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_the_ruby_proxys_words(text: str | None) -> None:
    with pytest.raises(Rejected, match=r"^Invalid IP Address "):
        asked.address(text)


def test_a_form_is_a_reservation() -> None:
    found = asked.wanted(
        {**FORM, "hostname": "h.example.com", "filename": "grub2/grubx64.efi", "nextServer": "10.0.0.1"}
    )
    reservation = found.within(SUBNET)
    assert (reservation.name, str(reservation.ip), reservation.mac) == (
        "h1.example.com",
        "192.168.120.5",
        "52:54:00:aa:00:01",
    )
    assert list(reservation.options.items()) == [
        ("hostname", "h.example.com"), ("filename", "grub2/grubx64.efi"), ("nextServer", "10.0.0.1"),
    ]  # fmt: skip
    assert str(reservation) == "h1.example.com (192.168.120.5 / 52:54:00:aa:00:01)"


def test_one_of_name_and_hostname_is_enough() -> None:
    bare = {k: v for k, v in FORM.items() if k != "name"}
    for form in (bare | {"name": "n"}, bare | {"hostname": "n"}, bare | {"hostname": "n", "name": None}):
        found = asked.wanted(form)
        assert (found.name, found.options) == ("n", {"hostname": "n"})


def test_related_hardware_addresses_are_a_list_one_text_or_a_bare_key() -> None:
    assert asked.wanted({**FORM, "related_macs": None}).related == frozenset()
    assert asked.wanted({**FORM, "related_macs": ["52:54:00:AA:00:02"]}).related == {"52:54:00:aa:00:02"}
    assert asked.wanted({**FORM, "related_macs": "0:1:2:3:4:5"}).related == {"00:01:02:03:04:05"}


def test_other_keys_are_options_and_words_of_a_record_are_not() -> None:
    form = {
        **FORM,
        "type": "x",
        "subnet": "y",
        "network": "z",
        "hardware_type": "ethernet",
        "deleteable": "1",
        "bare": None,
    }
    form |= {
        "ztp_vendor": "huawei",
        "ztp_firmware": {"core": "a", "web": "b"},
        "<Sun-Fire-V210>root_path_name": "/vol/x",
    }
    assert asked.wanted(form).options == {
        "hostname": "h1.example.com", "ztp_vendor": "huawei", "ztp_firmware": {"core": "a", "web": "b"},
        "<Sun-Fire-V210>root_path_name": "/vol/x",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mac": None, "ip": None, "name": None}, "Invalid MAC "),
        ({"ip": None, "name": None}, "Invalid IP Address "),
        ({"name": None}, "Must provide hostname"),
        ({"name": ""}, "Must provide hostname"),
        ({"name": "a b"}, "Invalid DNS name a b"),
        ({"name": "a\nb"}, r"Invalid DNS name a\\nb"),
        ({"hostname": 'a"; }'}, "Invalid DNS name"),
        ({"mac": ["52:54:00:aa:00:01"]}, "Invalid parameter mac: one text is expected, not a list"),
        ({"filename": 'a"b'}, "Invalid filename"),
        ({"filename": "a\\b"}, "Invalid filename"),
        ({"filename": "a\nb"}, "Invalid filename"),
        ({"filename": "ä"}, "Invalid filename"),
        ({"filename": "a" * 256}, "Invalid filename"),
        ({"nextServer": "2001:db8::1"}, "Invalid next server 2001:db8::1"),
        ({"nextServer": "a b"}, "Invalid next server a b"),
        ({"nextServer": "1.2.3"}, "Invalid next server 1.2.3"),
        ({"related_macs": ["x"]}, "Invalid MAC x"),
        ({"related_macs": {"a": "b"}}, "Invalid parameter related_macs"),
        ({"x": 'a"b'}, "Invalid x"),
        ({"x;y": "a"}, "Invalid parameter x;y"),
        ({"<a\n>y": "a"}, "Invalid parameter"),
        ({"z": {"a;": "b"}}, r"Invalid parameter z\[a;\]"),
        ({"z": {"a": ["b"]}}, r"Invalid z\[a\]"),
        ({f"x{n}": "a" for n in range(65)}, "too many"),
    ],
)
def test_a_form_that_is_no_reservation_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Rejected, match=words):
        asked.wanted(FORM | change)


@pytest.mark.parametrize("ip", ["10.99.0.1", "192.168.120.0", "192.168.120.255", "192.168.121.1"])
def test_an_address_that_no_host_of_the_subnet_can_have_is_refused(ip: str) -> None:
    with pytest.raises(Rejected, match=rf"^{ip} is no address of a host in 192.168.120.0/255.255.255.0$"):
        asked.wanted(FORM | {"ip": ip}).within(SUBNET)


def test_of_a_point_to_point_link_both_addresses_are_hosts() -> None:
    for ip in ("192.0.2.0", "192.0.2.1"):
        assert asked.wanted(FORM | {"ip": ip}).within(Subnet(IPv4Network("192.0.2.0/31"))).ip == IPv4Address(ip)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (None, None, ("192.168.120.1", "192.168.120.254")),
        ("192.168.120.10", "192.168.120.20", ("192.168.120.10", "192.168.120.20")),
        ("192.168.120.0", "192.168.120.255", ("192.168.120.1", "192.168.120.254")),
        ("192.168.120.30", None, ("192.168.120.30", "192.168.120.254")),
        (None, "192.168.120.30", ("192.168.120.1", "192.168.120.30")),
    ],
)
def test_a_range_is_within_what_hosts_can_have(first: str | None, last: str | None, expected: tuple[str, str]) -> None:
    assert tuple(str(a) for a in asked.span(SUBNET, first, last)) == expected


@pytest.mark.parametrize(
    ("first", "last", "words"),
    [
        ("192.168.120.40", "192.168.120.35",
         "192.168.120.40 can't be lower IP address than 192.168.120.35 - change the order?"),
        ("192.168.121.1", "192.168.121.5", "Range does not belong to provided subnet"),
        ("192.168.120.1", "192.168.121.5", "Range does not belong to provided subnet"),
        ("abc", "192.168.120.5", "Invalid IP Address abc"),
        ("", "", "Invalid IP Address "),
        ("192.168.120.0", "192.168.120.0", "Zero or negative number of indices"),
        ("192.168.120.255", "192.168.120.255", "Zero or negative number of indices"),
        ("192.168.121.9", None, "Zero or negative number of indices"),
    ],
)  # fmt: skip
def test_a_range_that_is_none_is_refused(first: str | None, last: str | None, words: str) -> None:
    with pytest.raises(Rejected) as raised:
        asked.span(SUBNET, first, last)
    assert str(raised.value) == words


@pytest.mark.parametrize("prefix", [31, 32])
def test_a_network_without_addresses_between_has_no_range(prefix: int) -> None:
    with pytest.raises(Rejected, match=r"^Zero or negative number of indices$"):
        asked.span(Subnet(IPv4Network(f"192.0.2.0/{prefix}")), None, None)


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["name", "hostname", "ip", "mac", "filename", "nextServer", "related_macs", "x"]),
        st.one_of(st.none(), st.text(max_size=300), st.lists(st.text(max_size=8), max_size=3)),
    )
)
def test_no_form_is_more_than_refused(form: dict[str, Any]) -> None:
    try:
        said = [str(v) for v in asked.wanted(FORM | form).options.values()]
    except Rejected as e:
        said = [str(e)]
    assert not [text for text in said if "\n" in text]
