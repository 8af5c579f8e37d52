"""The PROXY protocol, version 2: the client's address in front of the bytes a balancer passes through.

Only allow-listed addresses may send a header; from anybody else its first byte already closes the connection. A header
starts with CR, which starts neither a TLS handshake nor a request line, so one peeked byte tells whether there is one, and
then exactly its bytes are read: TLS follows untouched.

Source: HAProxy's PROXY protocol specification, section 2.2.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import NamedTuple

from muster.kernel.errors import Rejected

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LONGEST = 4096


class Origin(NamedTuple):
    """The client a balancer speaks for."""

    address: str
    port: int


def parsed(header: bytes, body: bytes) -> Origin | None:
    """Return the client, or None for LOCAL (a balancer's own health check) and for address families without one.

    Raises:
        Rejected: not a well-formed version 2 header.
    """
    if len(header) != 16 or header[:12] != SIGNATURE or header[12] >> 4 != 2:
        raise Rejected("not a PROXY v2 header")
    command, family = header[12] & 0x0F, header[13]
    if command == 0:
        return None
    if command != 1:
        raise Rejected(f"PROXY command {command} is unknown")
    if family == 0x11 and len(body) >= 12:
        return Origin(str(ipaddress.IPv4Address(body[:4])), int.from_bytes(body[8:10], "big"))
    if family == 0x21 and len(body) >= 36:
        address = ipaddress.IPv6Address(body[:16])
        return Origin(str(address.ipv4_mapped or address), int.from_bytes(body[32:34], "big"))
    if family in (0x11, 0x21):
        raise Rejected("PROXY header is too short for its addresses")
    return None


async def has_header(connection: socket.socket) -> bool:
    """Wait for the first byte, without taking it, and say whether a PROXY header starts.

    Raises:
        ConnectionError: the peer closed before sending anything.
    """
    while True:
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            await _readable(connection)
            continue
        if not first:
            raise ConnectionResetError("closed before the first byte")
        return first == SIGNATURE[:1]


async def read(connection: socket.socket) -> Origin | None:
    """Read exactly one header.

    Raises:
        Rejected: it is not well-formed.
        ConnectionError: the peer closed in the middle of it.
    """
    header = await _exactly(connection, 16)
    if header[:12] != SIGNATURE:
        raise Rejected("not a PROXY v2 header")
    length = int.from_bytes(header[14:16], "big")
    if length > _LONGEST:
        raise Rejected(f"PROXY header of {length} bytes is too long")
    return parsed(header, await _exactly(connection, length))


async def _exactly(connection: socket.socket, count: int) -> bytes:
    loop = asyncio.get_running_loop()
    got = b""
    while len(got) < count:
        chunk = await loop.sock_recv(connection, count - len(got))
        if not chunk:
            raise ConnectionResetError("closed in the middle of its PROXY header")
        got += chunk
    return got


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    readable = loop.create_future()
    loop.add_reader(connection, lambda: None if readable.done() else readable.set_result(None))
    try:
        await readable
    finally:
        loop.remove_reader(connection)
