"""Machines that ask for an address as their firmware does (RFC 2131), from their host's namespace. Needs root."""

from __future__ import annotations

import secrets
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import IPv4Address

from tests.servers.namespaces import DEVICE, Host

_ANSWER_S = 4.0
_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5


@dataclass(frozen=True)
class Told:
    """What a machine was told: its address, and where it boots from, in the packet's own fields."""

    ip: IPv4Address
    next_server: IPv4Address
    filename: str
    hostname: str


def asked(host: Host, mac: str, *, takes: bool = False, device: str = DEVICE) -> Told | None:
    """Return what a machine on a host is offered, and with ``takes`` has leased; None: nobody offers it anything in 4 s."""
    # A thread of its own, because it stays in the namespace.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_asked, host, bytes.fromhex(mac.replace(":", "")), device, takes=takes).result()


def _asked(host: Host, mac: bytes, device: str, *, takes: bool) -> Told | None:
    host.enter()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        s.bind(("", 68))
        offered = _exchanged(s, mac, _DISCOVER)
        if offered is None or not takes:
            return None if offered is None else offered[0]
        told, server = offered
        wanted = bytes([50, 4]) + told.ip.packed + bytes([54, 4]) + server
        acknowledged = _exchanged(s, mac, _REQUEST, wanted)
        return None if acknowledged is None else acknowledged[0]


def _exchanged(s: socket.socket, mac: bytes, kind: int, wanted: bytes = b"") -> tuple[Told, bytes] | None:
    """Send a question and return the answer to it, and who gave it."""
    number = secrets.token_bytes(4)
    # Whoever has no address yet is answered by broadcast.
    head = struct.pack("!BBBB4sHH16x16s64x128x", 1, 1, len(mac), 0, number, 0, 0x8000, mac)
    asked = bytes([53, 1, kind]) + wanted + bytes([55, 4, 1, 3, 12, 51, 255])
    s.sendto(head + _COOKIE + asked, ("255.255.255.255", 67))
    limit = time.monotonic() + _ANSWER_S
    while (left := limit - time.monotonic()) > 0:
        s.settimeout(left)
        try:
            packet = s.recv(4096)
        except TimeoutError:
            return None
        options = _options(packet[240:])
        if packet[4:8] != number or options.get(53) not in (bytes([_OFFER]), bytes([_ACK])):
            continue
        filename = packet[108:236].split(b"\0")[0].decode("ascii")
        hostname = options.get(12, b"").decode("ascii")
        told = Told(IPv4Address(packet[16:20]), IPv4Address(packet[20:24]), filename, hostname)
        return told, options[54]
    return None


def _options(content: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at < len(content) and content[at] != 255:
        if content[at] == 0:
            at += 1
            continue
        length = content[at + 1]
        found[content[at]] = content[at + 2 : at + 2 + length]
        at += 2 + length
    return found
