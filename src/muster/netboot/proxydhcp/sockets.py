"""The two UDP ports of ProxyDHCP: where a datagram came in, and an answer by the same way.

Source: ip(7) IP_PKTINFO, socket(7) SO_REUSEADDR and SO_BROADCAST, udp(7), capabilities(7).
"""

from __future__ import annotations

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from muster.kernel.errors import Misconfigured
from muster.netboot.proxydhcp.answers import BOOT_PORT, DHCP_PORT, EVERYBODY
from muster.netboot.proxydhcp.packet import LIMIT_BYTES

# Linux's number of it, which Python 3.11 does not name.
_IP_PKTINFO = 8
_PKTINFO = struct.Struct("@i4s4s")
_RECEIVED_BYTES = 256 * 1024
_ENOUGH = socket.CMSG_SPACE(_PKTINFO.size)


@dataclass(frozen=True, slots=True)
class Datagram:
    """What came in.

    Attributes:
        port: of ours.
        source: address and port it came from.
        interface: number of the network interface it came in by.
        here: our own address there; 0.0.0.0 where that interface has none.
        was_for_us: it was sent to this address, and not to everybody.
    """

    content: bytes
    port: int
    source: tuple[str, int]
    interface: int
    here: IPv4Address
    was_for_us: bool


def listening(port: int, *, broadcasts_only: bool = False) -> socket.socket:
    """Return a socket that hears all of a UDP port, or only what goes to everybody, beside a DHCP server of this host.

    Servers that bind the port of one address without sharing it, as Kea does, find it in use when all of it is heard, and
    are deaf then without ending. What goes to everybody is another address to the kernel.

    Raises:
        Misconfigured: it may not, or somebody has the port and does not share it.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        # A broadcast is given to everybody who listens so; a relay's datagram to the one who bound last.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVED_BYTES)
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        # A broadcast reaches no socket that is bound to an address of a host.
        sock.bind((str(EVERYBODY) if broadcasts_only else "", port))
    except OSError as e:
        sock.close()
        raise Misconfigured(f"UDP port {port} cannot be listened on: {_why(e)}") from e
    return sock


def _why(e: OSError) -> str:
    match e.errno:
        case errno.EACCES | errno.EPERM:
            return "this process may not, it lacks the capability CAP_NET_BIND_SERVICE (docs/admin/proxy-dhcp.md)"
        case errno.EADDRINUSE:
            return (
                "another program of this host has it and does not share it, such as a DHCP server; "
                f"ss -ulnp 'sport = :{DHCP_PORT} or sport = :{BOOT_PORT}' names it"
            )
        case _:
            return e.strerror or str(e)


def received(sock: socket.socket, port: int) -> Datagram | None:
    """Return the next datagram; None: it came without what is needed to answer it, or was too long.

    Raises:
        BlockingIOError: there is none now.
    """
    content, ancillary, flags, source = sock.recvmsg(LIMIT_BYTES, _ENOUGH)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        return None
    for level, kind, said in ancillary:
        if level == socket.IPPROTO_IP and kind == _IP_PKTINFO and len(said) >= _PKTINFO.size:
            interface, here, to = _PKTINFO.unpack_from(said)
            return Datagram(content, port, source, interface, IPv4Address(here), here == to)
    return None


def send(sock: socket.socket, content: bytes, datagram: Datagram, to: tuple[IPv4Address, int]) -> None:
    """Send an answer, from the address that was asked; to everybody by the interface that the question came in by.

    Raises:
        OSError: the kernel does not take it.
    """
    address, port = to
    # Of one who can be reached routes tell by which way, and they may be others there and back.
    interface = datagram.interface if address == EVERYBODY else 0
    said = _PKTINFO.pack(interface, datagram.here.packed, b"\0\0\0\0")
    sock.sendmsg([content], [(socket.IPPROTO_IP, _IP_PKTINFO, said)], 0, (str(address), port))
