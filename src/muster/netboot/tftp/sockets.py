"""UDP as a TFTP server needs it: which address was asked, answers from that address, many packets in one call.

Source: ip(7), ipv6(7), udp(7); what Linux fills in of a packet's addresses: docs/facts/tftp.md §3.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import random
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from muster.kernel.errors import Misconfigured, Unavailable

# Not in Python's socket before 3.14 (linux/in.h, linux/udp.h).
_IP_MTU_DISCOVER: Final = 10
_IP_PMTUDISC_DONT: Final = 0
_IP_PKTINFO: Final = 8
_IP_MTU: Final = 14
_IPV6_MTU: Final = 24
_UDP_SEGMENT: Final = 103
_SOL_UDP: Final = 17
_IN_PKTINFO = struct.Struct("@i4s4s")
_IN6_PKTINFO = struct.Struct("@16si")
_ANCILLARY_BYTES = 256
_LONGEST_DATAGRAM = 4096
# The most that the kernel takes in one call, in segments (older ones: 64) and in bytes.
MOST_SEGMENTS: Final = 64
MOST_BYTES: Final = 65_000
# Request sockets get room for a hall of machines that are switched on at once.
_REQUESTS_BUFFER_BYTES = 1 << 20
_PORTS_TRIED = 512
_UDP_HEADER = 8
_TFTP_HEADER = 4

SocketAddress = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Arrived:
    """One datagram that came in.

    Attributes:
        client: as the socket gives it; an IPv6 one has the scope as its last part.
        local: the address that was asked, with the scope that a link-local one needs.
        to_many: it was sent to a broadcast or multicast address.
    """

    datagram: bytes
    client: SocketAddress
    local: SocketAddress
    family: socket.AddressFamily
    to_many: bool


def listening(address: str, port: int) -> socket.socket:
    """Return a socket that takes requests.

    Raises:
        Misconfigured: the address is not this host's, or the port is taken or not permitted.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address, port))
        prepared(sock)
    except OSError as e:
        if sock is not None:
            sock.close()
        raise Misconfigured(f"Listening for TFTP on {address} port {port} failed: {e.strerror or e}{_remedy(e)}") from e
    return sock


def _remedy(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "; ss -lunp names the program that has it"
    if error.errno == errno.EACCES:
        return "; ports below 1024 are for units with CAP_NET_BIND_SERVICE (docs/admin/tftp.md)"
    return ""


def prepared(sock: socket.socket) -> None:
    """Have a bound socket tell which address each datagram was sent to."""
    sock.setblocking(False)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _REQUESTS_BUFFER_BYTES)
    # A socket of both families, as systemd binds it, hears of IPv4's broadcasts in IPv4's words alone.
    sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)


def received(sock: socket.socket) -> Arrived | None:
    """Return the next datagram; None when there is none now.

    Raises:
        OSError: what the kernel holds against the socket; the next call goes on.
    """
    try:
        datagram, ancillary, _, client = sock.recvmsg(_LONGEST_DATAGRAM, _ANCILLARY_BYTES)
    except (BlockingIOError, InterruptedError):
        return None
    local = sock.getsockname()
    to_many = False
    for level, kind, content in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(content) >= _IN_PKTINFO.size:
            _, own, destination = _IN_PKTINFO.unpack_from(content)
            # They differ for broadcasts and multicasts alone: an answer's source cannot be such an address.
            to_many = to_many or own != destination
            if sock.family == socket.AF_INET:
                local = (socket.inet_ntop(socket.AF_INET, own), local[1])
        elif level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and len(content) >= _IN6_PKTINFO.size:
            destination, interface = _IN6_PKTINFO.unpack_from(content)
            found = ipaddress.IPv6Address(destination)
            to_many = to_many or found.is_multicast
            local = (
                socket.inet_ntop(socket.AF_INET6, destination),
                local[1],
                0,
                interface if found.is_link_local else 0,
            )
    return Arrived(datagram, client, local, socket.AddressFamily(sock.family), to_many)


def answer(sock: socket.socket, arrived: Arrived, datagram: bytes) -> None:
    """Send one datagram back from the address that was asked; what cannot be sent is lost, as any datagram may be."""
    if arrived.family == socket.AF_INET:
        source = _IN_PKTINFO.pack(0, socket.inet_pton(socket.AF_INET, arrived.local[0]), b"\0" * 4)
        ancillary = (socket.IPPROTO_IP, _IP_PKTINFO, source)
    else:
        packed = ipaddress.IPv6Address(arrived.local[0]).packed
        ancillary = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, _IN6_PKTINFO.pack(packed, arrived.local[3]))
    with contextlib.suppress(OSError):
        sock.sendmsg([datagram], [ancillary], 0, arrived.client)


def transfer_socket(arrived: Arrived, ports: tuple[int, int] | None) -> socket.socket:
    """Return a socket of its own for one transfer, on the address that was asked.

    It is not connected: a connected one would never see the packets of strangers, who are to be told (RFC 1350 §4).

    Raises:
        Unavailable: all ports are taken, or the address is gone.
    """
    sock = None
    try:
        sock = socket.socket(arrived.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        _bind(sock, arrived.local, ports)
        if arrived.family == socket.AF_INET:
            # Routers on the way may cut what is too long for them: firmware does not understand when they say so instead.
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _IP_PMTUDISC_DONT)
    except OSError as e:
        if sock is not None:
            sock.close()
        raise Unavailable(f"no port to send from on {arrived.local[0]}: {e.strerror or e}") from e
    return sock


def _bind(sock: socket.socket, local: SocketAddress, ports: tuple[int, int] | None) -> None:
    address, scope = local[0], local[2:]
    if ports is None:
        sock.bind((address, 0, *scope))
        return
    low, high = ports
    count = high - low + 1
    begin = random.SystemRandom().randrange(count)
    for n in range(min(count, _PORTS_TRIED)):
        try:
            sock.bind((address, low + (begin + n) % count, *scope))
        except OSError as e:
            if e.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
        else:
            return
    raise OSError(errno.EADDRINUSE, f"ports {low} to {high} are taken")


def fitting_blksize(arrived: Arrived) -> int | None:
    """Return the largest blksize that goes to the client in one piece, as far as this host knows; None: it does not."""
    try:
        with socket.socket(arrived.family, socket.SOCK_DGRAM) as sock:
            sock.bind((arrived.local[0], 0, *arrived.local[2:]))
            sock.connect(arrived.client)
            if arrived.family == socket.AF_INET:
                return sock.getsockopt(socket.IPPROTO_IP, _IP_MTU) - 20 - _UDP_HEADER - _TFTP_HEADER
            return sock.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU) - 40 - _UDP_HEADER - _TFTP_HEADER
    except OSError:
        return None


def send_segmented(sock: socket.socket, pieces: Sequence[bytes | memoryview], size: int, client: SocketAddress) -> None:
    """Send what becomes packets of ``size`` bytes each, of which the last may be shorter.

    Raises:
        BlockingIOError: there is no room now; nothing was sent.
        OSError: this kernel, or this way, does not do that; nothing was sent.
    """
    sock.sendmsg(pieces, [(_SOL_UDP, _UDP_SEGMENT, struct.pack("@H", size))], 0, client)
