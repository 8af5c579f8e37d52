"""TFTP's packets as values and as bytes; nothing here knows sockets or time.

Source: RFC 1350 §5, RFC 2347.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

from muster.kernel.errors import Rejected

LONGEST_REQUEST_BYTES: Final = 2048
"""RFC 2347 has 512 as the most; a request with a long path may exceed that, and no datagram of a client is this long."""
_MOST_OPTIONS = 32
_LONGEST_MESSAGE_BYTES = 400
_HEAD = struct.Struct("!HH")

Mode = Literal["octet", "netascii"]


class Opcode(IntEnum):
    RRQ = 1
    WRQ = 2
    DATA = 3
    ACK = 4
    ERROR = 5
    OACK = 6


class ErrorCode(IntEnum):
    """RFC 1350 §5 and, for the last, RFC 2347."""

    UNDEFINED = 0
    FILE_NOT_FOUND = 1
    ACCESS_VIOLATION = 2
    DISK_FULL = 3
    ILLEGAL_OPERATION = 4
    UNKNOWN_TRANSFER_ID = 5
    FILE_EXISTS = 6
    NO_SUCH_USER = 7
    OPTIONS_REFUSED = 8


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for.

    Attributes:
        name: the file, as it was sent, without the NUL that ends it.
        options: in the order they came; names as they were sent, in whatever case. One name may come twice.
    """

    opcode: Literal[Opcode.RRQ, Opcode.WRQ]
    name: bytes
    mode: Mode
    options: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Ack:
    block: int


@dataclass(frozen=True, slots=True)
class Data:
    block: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Error:
    """Attributes: code as it came (clients send others than RFC's), message as text."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class OptionsAck:
    options: tuple[tuple[bytes, bytes], ...]


Packet = Request | Ack | Data | Error | OptionsAck


def parsed(datagram: bytes) -> Packet:
    """Return what a datagram says.

    Bytes behind an ACK's block or an ERROR's message are not looked at: firmware pads. So are, in a request, those behind
    the last whole option.

    Raises:
        Rejected: it is no packet of TFTP.
    """
    if len(datagram) < 4:
        raise Rejected("shorter than any packet")
    opcode, number = _HEAD.unpack_from(datagram)
    if opcode == Opcode.ACK:
        return Ack(number)
    if opcode == Opcode.DATA:
        return Data(number, datagram[4:])
    if opcode == Opcode.ERROR:
        message = datagram[4:].partition(b"\0")[0][:_LONGEST_MESSAGE_BYTES]
        return Error(number, message.decode("utf-8", "replace"))
    if opcode == Opcode.OACK:
        return OptionsAck(_pairs(datagram[2:].split(b"\0")[:-1]))
    if opcode == Opcode.RRQ:
        return _request(Opcode.RRQ, datagram)
    if opcode == Opcode.WRQ:
        return _request(Opcode.WRQ, datagram)
    raise Rejected(f"no operation has the number {opcode}")


def _request(opcode: Literal[Opcode.RRQ, Opcode.WRQ], datagram: bytes) -> Request:
    if len(datagram) > LONGEST_REQUEST_BYTES:
        raise Rejected(f"a request of more than {LONGEST_REQUEST_BYTES} bytes")
    # What stands behind the last NUL is no field.
    fields = datagram[2:].split(b"\0")[:-1]
    if len(fields) < 2:
        raise Rejected("a request without a name or a mode")
    name, mode = fields[0], fields[1].lower()
    if not name:
        raise Rejected("a request without a name")
    if mode == b"octet":
        return Request(opcode, name, "octet", _pairs(fields[2:]))
    if mode == b"netascii":
        return Request(opcode, name, "netascii", _pairs(fields[2:]))
    raise Rejected("a mode other than octet and netascii")


def _pairs(fields: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    pairs = list(zip(fields[::2], fields[1::2], strict=False))
    if len(pairs) > _MOST_OPTIONS:
        raise Rejected(f"more than {_MOST_OPTIONS} options")
    return tuple((name, value) for name, value in pairs if name)


def data_head(block: int) -> bytes:
    """Return what stands before a block's bytes; the number is the one on the wire, 0 to 65535."""
    return _HEAD.pack(Opcode.DATA, block)


def ack(block: int) -> bytes:
    return _HEAD.pack(Opcode.ACK, block)


def error(code: ErrorCode, message: str) -> bytes:
    """Return an ERROR; its message is cut where it is long."""
    said = message.replace("\0", " ").encode("utf-8", "replace")[:_LONGEST_MESSAGE_BYTES]
    return _HEAD.pack(Opcode.ERROR, code) + said + b"\0"


def options_ack(options: Iterable[tuple[bytes, bytes]]) -> bytes:
    return struct.pack("!H", Opcode.OACK) + _joined(options)


def request(asked: Request) -> bytes:
    """Return a request as a client sends it."""
    named = asked.name + b"\0" + asked.mode.encode() + b"\0"
    return struct.pack("!H", asked.opcode) + named + _joined(asked.options)


def _joined(options: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + b"\0" + value + b"\0" for name, value in options)
