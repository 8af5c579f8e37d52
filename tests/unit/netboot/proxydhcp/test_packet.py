import struct
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.kernel.errors import Rejected
from muster.netboot.proxydhcp import packet as dhcp
from muster.netboot.proxydhcp.packet import (
    LIMIT_BYTES,
    Packet,
    architectures,
    encapsulated,
    parsed,
    suboptions,
    user_classes,
    written,
)

HEAD = 240
CODES = st.integers(1, 254).filter(lambda code: code != dhcp.OVERLOAD)
ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
PACKETS = st.builds(
    Packet,
    operation=st.sampled_from([dhcp.REQUEST, dhcp.REPLY]),
    transaction=st.integers(0, 2**32 - 1),
    hardware_address=st.binary(max_size=16),
    options=st.dictionaries(CODES, st.binary(max_size=300), max_size=3),
    hardware_type=st.integers(0, 255),
    hops=st.integers(0, 255),
    seconds=st.integers(0, 65535),
    flags=st.integers(0, 65535),
    ciaddr=ADDRESSES,
    yiaddr=ADDRESSES,
    siaddr=ADDRESSES,
    giaddr=ADDRESSES,
    server_name=st.binary(max_size=63).filter(lambda b: b"\0" not in b),
    file=st.binary(max_size=127).filter(lambda b: b"\0" not in b),
)


def raw(options: bytes, *, name: bytes = b"", file: bytes = b"", length: int = 6) -> bytes:
    head = struct.pack(
        "!BBBBIHH16x16s64s128s4s", 1, 1, length, 0, 7, 0, 0, b"\x52\x54\0\0\0\1", name, file, b"\x63\x82\x53\x63"
    )
    return head + options


@given(PACKETS)
def test_what_is_written_is_read(packet: Packet) -> None:
    datagram = written(packet)
    assert len(datagram) >= 300
    assert parsed(datagram) == packet


@given(st.binary(max_size=LIMIT_BYTES + 10))
def test_of_any_bytes_there_is_a_packet_or_a_refusal(content: bytes) -> None:
    for datagram in (content, raw(content)):
        try:
            found = parsed(datagram)
        except Rejected:
            continue
        assert len(datagram) <= LIMIT_BYTES
        assert sum(map(len, found.options.values())) <= len(datagram)


@given(st.binary(max_size=300))
def test_of_any_option_there_are_suboptions_classes_and_architectures_or_none(value: bytes) -> None:
    assert all(0 <= number < 65536 for number in architectures(value))
    assert value in user_classes(value) or not value
    try:
        found = suboptions(value)
    except Rejected:
        return
    assert sum(map(len, found.values())) <= len(value)


@given(PACKETS, st.data())
def test_a_packet_cut_off_is_refused_or_less(packet: Packet, data: st.DataObject) -> None:
    whole = written(packet)
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    try:
        found = parsed(cut)
    except Rejected:
        return
    assert all(packet.options[code].startswith(value) for code, value in found.options.items())


def test_parts_of_a_long_option_are_one_wherever_they_stand() -> None:
    # RFC 3396 §7: options, then file, then sname.
    datagram = raw(b"\x34\x01\x03" + b"\x43\x02ab" + b"\xff", file=b"\x43\x02cd\xff", name=b"\0\x43\x01e\xff")
    found = parsed(datagram)
    assert found.options == {67: b"abcde"}
    assert (found.file, found.server_name) == (b"", b"")


def test_fields_are_names_where_no_option_says_otherwise() -> None:
    found = parsed(raw(b"\x34\x01\x01\xff", name=b"server\0left over", file=b"\x35\x01\x01\xff"))
    assert (found.server_name, found.file, found.type) == (b"server", b"", dhcp.DISCOVER)


def test_a_message_without_its_end_is_read_as_far_as_it_goes() -> None:
    assert parsed(raw(b"\0\0\x35\x01\x01")).type == dhcp.DISCOVER


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        raw(b"")[: HEAD - 1],
        raw(b"\xff") + b"\0" * LIMIT_BYTES,
        raw(b"\xff").replace(b"\x63\x82\x53\x63", b"\x63\x82\x53\x64"),
        raw(b"\xff", length=17),
        raw(b"\x35"),
        raw(b"\x35\x02\x01"),
        raw(b"\x34\x01\x01\xff", file=b"\x43\xff" + b"x" * 126),
    ],
    ids=["empty", "short", "long", "another cookie", "hardware", "no length", "beyond the end", "beyond the field"],
)
def test_what_is_no_message_is_refused(datagram: bytes) -> None:
    with pytest.raises(Rejected):
        parsed(datagram)


def test_the_type_stands_first_and_what_a_relay_said_last() -> None:
    options = {dhcp.RELAY_INFORMATION: b"\x01\x02ab", dhcp.BOOT_FILE_NAME: b"x" * 300, dhcp.MESSAGE_TYPE: b"\x02"}
    said = written(Packet(dhcp.REPLY, 1, b"\x52\x54\0\0\0\1", options))[HEAD:]
    assert said.startswith(b"\x35\x01\x02\x43\xff")
    assert said.rstrip(b"\0").endswith(b"x\x52\x04\x01\x02ab\xff")


def test_suboptions_of_pxe_are_read_as_they_are_written() -> None:
    given = {
        dhcp.PXE_DISCOVERY_CONTROL: b"\x08",
        dhcp.PXE_BOOT_SERVERS: b"\x80\0\x01\x0a\0\0\x01",
        dhcp.PXE_BOOT_MENU: b"\x80\0\x04Boot",
        dhcp.PXE_MENU_PROMPT: b"\0Boot",
    }
    assert encapsulated(given) == b"\x06\x01\x08\x08\x07\x80\0\x01\x0a\0\0\x01\x09\x07\x80\0\x04Boot\x0a\x05\0Boot\xff"
    assert suboptions(encapsulated(given)) == given


@pytest.mark.parametrize("value", [b"iPXE", b"\x04iPXE", b"\x03abc\x04iPXE"])
def test_ipxe_is_a_user_class_in_either_form(value: bytes) -> None:
    assert b"iPXE" in user_classes(value)


@pytest.mark.parametrize("value", [b"", b"iPXE2", b"\x05iPXE2", b"\x03iPXE"])
def test_other_words_are_not_ipxe(value: bytes) -> None:
    assert b"iPXE" not in user_classes(value)


def test_architectures_are_pairs_of_bytes() -> None:
    assert architectures(b"\0\x07\0\x09") == (7, 9)
    assert architectures(b"\0\x07\0") == architectures(b"") == ()


def test_only_an_ethernet_has_a_hardware_address_of_six_bytes() -> None:
    assert parsed(raw(b"\xff")).mac == "52:54:00:00:00:01"
    assert parsed(raw(b"\xff", length=5)).mac is None


@pytest.mark.parametrize("field", ["hardware_address", "server_name", "file"])
def test_what_is_too_long_for_its_field_is_not_written(field: str) -> None:
    more = {field: b"x" * 128}
    with pytest.raises(ValueError, match="too long"):
        written(Packet(**{"operation": 2, "transaction": 1, "hardware_address": b"", **more}))  # type: ignore[arg-type]
