"""DHCP messages: read whole, bounded and in linear time, and written.

Source: RFC 2131 §2 (fields), RFC 2132 (options), RFC 3396 (long options), RFC 4578 (93, 94, 97), RFC 3004 (77).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress

LIMIT_BYTES = 1500
"""Of a datagram that is read: nothing that boots sends what does not fit an Ethernet frame."""

REQUEST, REPLY = 1, 2
DISCOVER, OFFER, ASKED, ACK, INFORM = 1, 2, 3, 5, 8

# Options, by their names in RFC 2132 and RFC 4578.
VENDOR_OPTIONS = 43
OVERLOAD = 52
MESSAGE_TYPE = 53
SERVER_IDENTIFIER = 54
VENDOR_CLASS = 60
TFTP_SERVER_NAME = 66
BOOT_FILE_NAME = 67
USER_CLASS = 77
RELAY_INFORMATION = 82
ARCHITECTURE = 93
MACHINE_IDENTIFIER = 97

# Options within option 43 of vendor class PXEClient (PXE 2.1, table 2-1).
PXE_DISCOVERY_CONTROL = 6
PXE_BOOT_SERVERS = 8
PXE_BOOT_MENU = 9
PXE_MENU_PROMPT = 10

_NOWHERE = IPv4Address(0)
_HEADER = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s4s")
_COOKIE = b"\x63\x82\x53\x63"
_PAD, _END = 0, 255
_ETHERNET = 1
_LONGEST_PART = 255
# Relays and firmware of old drop less (RFC 1542 §2.1).
_SHORTEST = 300
_IN_FILE, _IN_NAME = 1, 2
# Relays have it back as the last (RFC 3046 §2.2), firmware looks for the type first.
_ORDER: Mapping[int, int] = {MESSAGE_TYPE: 0, SERVER_IDENTIFIER: 1, RELAY_INFORMATION: 1000}


@dataclass(frozen=True, slots=True)
class Packet:
    """One DHCP message.

    Attributes:
        operation: :data:`REQUEST` or :data:`REPLY`.
        hardware_type: as ARP has it; 1 is Ethernet.
        hardware_address: at most 16 bytes; empty where the network has none.
        siaddr: the next server: from where the boot file comes.
        server_name, file: without the zeros behind them; empty where they held options.
        options: by their numbers, each whole, however many parts it came in.
    """

    operation: int
    transaction: int
    hardware_address: bytes
    options: Mapping[int, bytes] = field(default_factory=dict)
    hardware_type: int = _ETHERNET
    hops: int = 0
    seconds: int = 0
    flags: int = 0
    ciaddr: IPv4Address = _NOWHERE
    yiaddr: IPv4Address = _NOWHERE
    siaddr: IPv4Address = _NOWHERE
    giaddr: IPv4Address = _NOWHERE
    server_name: bytes = b""
    file: bytes = b""

    @property
    def type(self) -> int:
        """The message's type, 0 where it has none: BOOTP."""
        value = self.options.get(MESSAGE_TYPE, b"")
        return value[0] if len(value) == 1 else 0

    @property
    def mac(self) -> MACAddress | None:
        """The hardware address of an Ethernet; None: it is another network."""
        if self.hardware_type != _ETHERNET or len(self.hardware_address) != 6:
            return None
        return MACAddress.parse(self.hardware_address.hex(":"))


def parsed(datagram: bytes) -> Packet:
    """Return the message that a datagram is.

    Raises:
        Rejected: it is none: too short or long, without the cookie, or with an option that leads beyond its end.
    """
    if not _HEADER.size <= len(datagram) <= LIMIT_BYTES:
        raise Rejected(f"a datagram of {len(datagram)} bytes is no DHCP message")
    operation, kind, length, hops, transaction, seconds, flags, *rest = _HEADER.unpack_from(datagram)
    ciaddr, yiaddr, siaddr, giaddr, hardware, name, file, cookie = rest
    if cookie != _COOKIE or length > len(hardware):
        raise Rejected("a datagram without DHCP's cookie, or with a hardware address that is too long")
    parts: dict[int, bytearray] = {}
    _collect(datagram[_HEADER.size :], parts)
    overload = parts.get(OVERLOAD, b"\0")
    where = overload[0] if len(overload) == 1 else 0
    # In this order the parts of a long option belong together (RFC 3396 §5).
    for flag, room in ((_IN_FILE, file), (_IN_NAME, name)):
        if where & flag:
            _collect(room, parts)
    return Packet(
        operation=operation,
        transaction=transaction,
        hardware_address=hardware[:length],
        options={code: bytes(value) for code, value in parts.items() if code != OVERLOAD},
        hardware_type=kind,
        hops=hops,
        seconds=seconds,
        flags=flags,
        ciaddr=IPv4Address(ciaddr),
        yiaddr=IPv4Address(yiaddr),
        siaddr=IPv4Address(siaddr),
        giaddr=IPv4Address(giaddr),
        server_name=b"" if where & _IN_NAME else name.partition(b"\0")[0],
        file=b"" if where & _IN_FILE else file.partition(b"\0")[0],
    )


def written(packet: Packet) -> bytes:
    """Return a message as a datagram, with at least the 300 bytes of BOOTP; long options in parts.

    Raises:
        ValueError: a field is too long for its place.
    """
    if len(packet.hardware_address) > 16 or len(packet.server_name) > 63 or len(packet.file) > 127:
        raise ValueError("a hardware address, a server's name or a file's name is too long for its field")
    head = _HEADER.pack(
        packet.operation, packet.hardware_type, len(packet.hardware_address), packet.hops, packet.transaction,
        packet.seconds, packet.flags, packet.ciaddr.packed, packet.yiaddr.packed, packet.siaddr.packed,
        packet.giaddr.packed, packet.hardware_address, packet.server_name, packet.file, _COOKIE,
    )  # fmt: skip
    codes = sorted(packet.options, key=lambda code: (_ORDER.get(code, code), code))
    options = b"".join(_option(code, packet.options[code]) for code in codes)
    return (head + options + bytes((_END,))).ljust(_SHORTEST, b"\0")


def suboptions(value: bytes) -> Mapping[int, bytes]:
    """Return the options within option 43, by their numbers.

    Raises:
        Rejected: one leads beyond the end.
    """
    parts: dict[int, bytearray] = {}
    _collect(value, parts)
    return {code: bytes(found) for code, found in parts.items()}


def encapsulated(options: Mapping[int, bytes]) -> bytes:
    """Return options as the value of option 43, ended as PXE wants it."""
    return b"".join(_option(code, value) for code, value in options.items()) + bytes((_END,))


def user_classes(value: bytes) -> frozenset[bytes]:
    """Return the user classes that option 77 says: those of RFC 3004, each with its length before it, and the whole.

    iPXE writes one, without a length. Whoever looks for a word finds it in either form.
    """
    found, at = {value}, 0
    while at < len(value):
        end = at + 1 + value[at]
        if end > len(value):
            return frozenset({value})
        found.add(value[at + 1 : end])
        at = end
    return frozenset(found - {b""})


def architectures(value: bytes) -> tuple[int, ...]:
    """Return the numbers in option 93, most wanted first; empty where it is none (RFC 4578 §2.1)."""
    if not value or len(value) % 2:
        return ()
    return struct.unpack(f"!{len(value) // 2}H", value)


def _collect(room: bytes, parts: dict[int, bytearray]) -> None:
    at, limit = 0, len(room)
    while at < limit and room[at] != _END:
        code = room[at]
        if code == _PAD:
            at += 1
            continue
        if at + 2 > limit or at + 2 + room[at + 1] > limit:
            raise Rejected(f"option {code} of a DHCP message leads beyond its end")
        end = at + 2 + room[at + 1]
        parts.setdefault(code, bytearray()).extend(room[at + 2 : end])
        at = end


def _option(code: int, value: bytes) -> bytes:
    pieces = [value[at : at + _LONGEST_PART] for at in range(0, len(value), _LONGEST_PART)] or [b""]
    return b"".join(bytes((code, len(piece))) + piece for piece in pieces)
