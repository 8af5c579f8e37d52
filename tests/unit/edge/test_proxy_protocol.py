from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.edge.proxy_protocol import SIGNATURE, Origin, parsed
from muster.kernel.errors import Rejected


def header(version_and_command: int = 0x21, family: int = 0x11, length: int = 12) -> bytes:
    return SIGNATURE + bytes([version_and_command, family]) + length.to_bytes(2, "big")


def addresses(source: str, port: int) -> bytes:
    packed = ipaddress.ip_address(source).packed
    return packed + bytes(len(packed)) + port.to_bytes(2, "big") + b"\x00\x50"


@pytest.mark.parametrize(
    ("family", "source", "shown"),
    [
        (0x11, "192.0.2.9", "192.0.2.9"),
        (0x21, "2001:db8::9", "2001:db8::9"),
        (0x21, "::ffff:192.0.2.9", "192.0.2.9"),
    ],
)
def test_the_clients_address_and_port_are_read(family: int, source: str, shown: str) -> None:
    body = addresses(source, 50123)
    assert parsed(header(family=family), body) == Origin(shown, 50123)
    assert parsed(header(family=family), body + b"\x03\x00\x04abcd") == Origin(shown, 50123)


def test_a_balancers_own_connection_has_no_client() -> None:
    assert parsed(header(0x20, 0x00), b"") is None
    assert parsed(header(0x20, 0x11), addresses("192.0.2.9", 1)) is None


@pytest.mark.parametrize("family", [0x00, 0x12, 0x22, 0x31])
def test_an_address_family_without_a_tcp_address_has_no_client(family: int) -> None:
    assert parsed(header(family=family), b"\x00" * 216) is None


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (header()[:15], b""),
        (header() + b"\x00", b""),
        (b"PROXY TCP4 192.0", b""),
        (b"\r\n\r\n\x00\r\nQUIT\r" + header()[12:], addresses("192.0.2.9", 1)),
        (header(0x11), addresses("192.0.2.9", 1)),
        (header(0x31), addresses("192.0.2.9", 1)),
        (header(0x22), addresses("192.0.2.9", 1)),
        (header(), addresses("192.0.2.9", 1)[:11]),
        (header(family=0x21), addresses("2001:db8::9", 1)[:35]),
        (header(), b""),
    ],
)
def test_a_malformed_header_is_rejected(head: bytes, body: bytes) -> None:
    with pytest.raises(Rejected, match="PROXY"):
        parsed(head, body)


@given(st.integers(0, 255), st.integers(0, 255), st.binary(max_size=60))
def test_any_header_is_an_origin_none_or_rejected(command: int, family: int, body: bytes) -> None:
    try:
        found = parsed(header(command, family), body)
    except Rejected:
        return
    if found is not None:
        ipaddress.ip_address(found.address)
