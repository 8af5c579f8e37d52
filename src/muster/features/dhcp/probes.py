"""Whether anything answers at an address: ICMP echo, TCP, and what ARP learnt of both.

Each is asked at once, and any answer counts, also a refusal. A host on this member's own network answers ARP even where a
firewall drops everything else: the kernel asks for it before it sends anything, and says in ``/proc/net/arp`` what it heard.

Source: RFC 792 (echo), RFC 1071 (checksum), proc(5), icmp(7), docs/facts/smart-proxy-protocol.md §8.5.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Protocol

from muster.kernel.log import logger

_log = logger("features")

_ECHO, _ECHO_REPLY = 8, 0
# As the Ruby proxy asks: what serves echo, or refuses to, is there.
_ECHO_PORT = 7
_ARP = Path("/proc/net/arp")
_COMPLETE = 0x2
_LONGEST_PACKET = 1500
_AT_ONCE = 256


@dataclass(frozen=True)
class Probed:
    """What came of probing; an address that is in neither could not be asked about.

    Attributes:
        silent: it was asked there, and nothing answered.
        reason: why some could not be asked about, empty when all were.
    """

    answered: frozenset[IPv4Address]
    silent: frozenset[IPv4Address]
    reason: str = ""


class Prober(Protocol):
    """Finds out which addresses are in use."""

    async def probed(self, addresses: Collection[IPv4Address]) -> Probed:
        """Ask at each. Takes as long as the prober waits, however many there are."""


class NoProbes:
    """Takes every address for unused, at once (``ping_free_ip: false``)."""

    async def probed(self, addresses: Collection[IPv4Address]) -> Probed:
        return Probed(frozenset(), frozenset(addresses))


class Probes:
    """Probes of this host. Use :func:`opened`.

    Attributes:
        without_icmp: why this process may send no echo requests, empty when it may.

    Concurrency: any number of tasks of one loop; so many addresses at once as ``at_once`` says, of all of them.
    """

    def __init__(
        self, icmp: _ICMP | None, without_icmp: str, *, wait_s: float, port: int, arp: Path, at_once: int = _AT_ONCE
    ) -> None:
        self._icmp = icmp
        self.without_icmp = without_icmp
        self._wait_s = wait_s
        self._port = port
        self._arp = arp
        self._at_once = at_once
        # The kernel's table of neighbours has room for a thousand, of all processes; what does not fit is not asked.
        self._room = asyncio.Semaphore(at_once)
        self._entering = asyncio.Lock()

    async def probed(self, addresses: Collection[IPv4Address]) -> Probed:
        asked = list(addresses)
        parts = [asked[n : n + self._at_once] for n in range(0, len(asked), self._at_once)]
        found = [await self._in_turn(part) for part in parts]
        return Probed(
            frozenset().union(*(p.answered for p in found)),
            frozenset().union(*(p.silent for p in found)),
            next((p.reason for p in found if p.reason), ""),
        )

    async def _in_turn(self, addresses: Sequence[IPv4Address]) -> Probed:
        async with AsyncExitStack() as stack:
            # One after the other: two that have half of what each needs would wait for ever.
            async with self._entering:
                for _ in addresses:
                    await stack.enter_async_context(self._room)
            return await self._at(addresses)

    async def _at(self, addresses: Sequence[IPv4Address]) -> Probed:
        echoes = self._icmp.asked(addresses) if self._icmp is not None else contextlib.nullcontext(_Heard())
        with echoes as heard:
            async with asyncio.TaskGroup() as group:
                connecting = {a: group.create_task(self._connected(a)) for a in addresses}
                group.create_task(asyncio.sleep(self._wait_s))
        answered = {a for a, task in connecting.items() if task.result() is True}
        answered |= heard.answers | (_neighbours(self._arp) & frozenset(addresses))
        unasked = {a: r for a, task in connecting.items() if isinstance(r := task.result(), str)} | heard.unsent
        silent = frozenset(addresses) - answered - unasked.keys()
        reason = next((r for a, r in unasked.items() if a not in answered), "")
        return Probed(frozenset(answered), silent, reason)

    async def _connected(self, address: IPv4Address) -> bool | str:
        """Return whether a connection was taken or refused in time; or why it could not be tried."""
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
                async with asyncio.timeout(self._wait_s):
                    await asyncio.get_running_loop().sock_connect(sock, (str(address), self._port))
        except TimeoutError:
            return False
        except OSError as e:
            if e.errno in (errno.ECONNREFUSED, errno.ECONNRESET):
                return True
            # Only a router, or the kernel that asked by ARP, can tell that nobody is there; anything else is this host's.
            return False if e.errno in (errno.EHOSTUNREACH, errno.ETIMEDOUT) else e.strerror or str(e)
        return True


@dataclass
class _Heard:
    """What echo requests brought: who answered, and to whom none could be sent, with the reason."""

    answers: set[IPv4Address] = field(default_factory=set)
    unsent: dict[IPv4Address, str] = field(default_factory=dict)


class _ICMP:
    """A socket for echo requests, and who waits for which answers."""

    def __init__(self, sock: socket.socket, *, is_raw: bool) -> None:
        self._socket = sock
        self._is_raw = is_raw
        self._ident = int.from_bytes(os.urandom(2), "big")
        self._waiting: list[tuple[frozenset[IPv4Address], _Heard]] = []

    @contextlib.contextmanager
    def asked(self, addresses: Collection[IPv4Address]) -> Iterator[_Heard]:
        """Send an echo request to each; what is yielded fills while the block runs."""
        heard = _Heard()
        waiting = (frozenset(addresses), heard)
        self._waiting.append(waiting)
        try:
            for address in addresses:
                try:
                    self._socket.sendto(self._request(), (str(address), 0))
                except OSError as e:
                    # No route, a full queue, a firewall of this host's: nobody was asked.
                    if e.errno != errno.EHOSTUNREACH:
                        heard.unsent[address] = e.strerror or str(e)
            yield heard
        finally:
            self._waiting.remove(waiting)

    def read(self) -> None:
        """Take what has arrived."""
        while True:
            try:
                packet, (source, _) = self._socket.recvfrom(_LONGEST_PACKET)
            except OSError:
                # Nothing more; or a router's word of an address, which is no answer of its.
                return
            if self._is_reply(packet):
                address = IPv4Address(source)
                for wanted, heard in self._waiting:
                    if address in wanted:
                        heard.answers.add(address)

    def _request(self) -> bytes:
        payload = b"muster: is this address in use?"
        bare = struct.pack("!BBHHH", _ECHO, 0, 0, self._ident, 1) + payload
        return struct.pack("!BBHHH", _ECHO, 0, checksum(bare), self._ident, 1) + payload

    def _is_reply(self, packet: bytes) -> bool:
        # Raw, the kernel hands over all of the host's ICMP, with the IP header; otherwise what answers this socket alone.
        if self._is_raw:
            packet = packet[(packet[0] & 0x0F) * 4 :] if packet else b""
        if len(packet) < 8 or packet[0] != _ECHO_REPLY:
            return False
        return not self._is_raw or int.from_bytes(packet[4:6], "big") == self._ident


def checksum(data: bytes) -> int:
    """Return the checksum of a packet whose own is zero (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _neighbours(arp: Path) -> frozenset[IPv4Address]:
    """Return the addresses that answered ARP and have not been given up since."""
    try:
        lines = arp.read_text("ascii").splitlines()[1:]
    except (OSError, UnicodeDecodeError):
        return frozenset()
    found = (line.split() for line in lines)
    return frozenset(IPv4Address(f[0]) for f in found if len(f) >= 4 and int(f[2], 16) & _COMPLETE)


def _socket() -> tuple[socket.socket | None, bool, str]:
    """Return a socket for ICMP, whether it is raw, and why there is none."""
    reasons = []
    for kind, is_raw in ((socket.SOCK_DGRAM, False), (socket.SOCK_RAW, True)):
        try:
            return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK, socket.IPPROTO_ICMP), is_raw, ""
        except OSError as e:
            reasons.append(e.strerror or str(e))
    return None, False, reasons[0]


@asynccontextmanager
async def opened(
    *,
    wait_s: float = 1.0,
    port: int = _ECHO_PORT,
    arp: Path = _ARP,
    made: Callable[[], tuple[socket.socket | None, bool, str]] = _socket,
) -> AsyncIterator[Probes]:
    """Yield probes that wait ``wait_s`` for an answer. ``port``: the TCP port that is tried."""
    sock, is_raw, reason = made()
    if sock is None:
        _log.warning(
            f"Addresses are probed by TCP and ARP alone: this process may send no ICMP ({reason}); "
            "net.ipv4.ping_group_range names no group of its, and it lacks CAP_NET_RAW"
        )
        yield Probes(None, reason, wait_s=wait_s, port=port, arp=arp)
        return
    loop = asyncio.get_running_loop()
    with sock:
        icmp = _ICMP(sock, is_raw=is_raw)
        loop.add_reader(sock.fileno(), icmp.read)
        try:
            yield Probes(icmp, "", wait_s=wait_s, port=port, arp=arp)
        finally:
            loop.remove_reader(sock.fileno())
