"""A host that asks a dhcpd for a lease through a relay agent of its segment, as routers pass questions on (RFC 2131)."""

from __future__ import annotations

import contextlib
import itertools
import secrets
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

from tests.servers.dhcpd import DHCPServer

__all__ = ["leased"]

_PORT = 67
_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_TYPE, _WANTED, _SERVER, _END = 53, 50, 54, 255
_ANSWERED_WITHIN_S = 5.0


def leased(server: DHCPServer, mac: str) -> str:
    """Return the address that dhcpd has just leased to a machine, from the range of its own segment."""
    with ThreadPoolExecutor(1) as thread:
        # Whose thread stays on the other host, and ends.
        return thread.submit(_leased, server, bytes.fromhex(mac.replace(":", ""))).result()


def _leased(server: DHCPServer, mac: bytes) -> str:
    server.client.enter()
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as relay:
        relay.settimeout(_ANSWERED_WITHIN_S)
        relay.bind((server.client.address, _PORT))
        giaddr = socket.inet_aton(server.client.address)
        number = secrets.token_bytes(4)
        offer = _asked(relay, server, number, mac, giaddr, {_TYPE: bytes([_DISCOVER])}, _OFFER)
        ip, options = offer[16:20], _options(offer)
        wanted = {_TYPE: bytes([_REQUEST]), _WANTED: ip, _SERVER: options[_SERVER]}
        acknowledged = _asked(relay, server, number, mac, giaddr, wanted, _ACK)
        return socket.inet_ntoa(acknowledged[16:20])


def _asked(
    relay: socket.socket,
    server: DHCPServer,
    number: bytes,
    mac: bytes,
    giaddr: bytes,
    options: dict[int, bytes],
    kind: int,
) -> bytes:
    head = struct.pack("!BBBB4sHH4s4s4s4s", 1, 1, 6, 1, number, 0, 0, *[b"\0" * 4] * 3, giaddr)
    said = b"".join(bytes([code, len(value)]) + value for code, value in options.items())
    relay.sendto(
        head + mac.ljust(16, b"\0") + b"\0" * 192 + _COOKIE + said + bytes([_END]), (server.host.address, _PORT)
    )
    for _ in itertools.count():
        answer = relay.recv(2048)
        if answer[4:8] == number and _options(answer).get(_TYPE) == bytes([kind]):
            return answer
    raise AssertionError("unreachable")


def _options(answer: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 240
    while at < len(answer) and answer[at] != _END:
        if answer[at] == 0:
            at += 1
            continue
        found[answer[at]] = answer[at + 2 : at + 2 + answer[at + 1]]
        at += 2 + answer[at + 1]
    return found
