"""A TFTP client of the tests' own, which does what no well-behaved client does when it is told to.

Written from RFC 1350, 2347 to 2349 and 7440, and not with the server's code: what both misread would go unseen.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.servers.namespaces import Host

Options = Sequence[tuple[str, str]]


@dataclass
class Fetched:
    """What came of one request.

    Attributes:
        options: of the OACK, in its order; None: there was none.
        error: code and message, None without.
        packets: DATA packets that arrived, also those that came twice.
        place: where they came from.
    """

    content: bytes = b""
    options: list[tuple[str, str]] | None = None
    error: tuple[int, str] | None = None
    packets: int = 0
    place: tuple[str, int] = ("", 0)
    seconds: float = 0.0
    numbers: list[int] = field(default_factory=list)


def opened_at(address: str, host: Host | None = None) -> socket.socket:
    """Return a UDP socket of the family that address is of, on a host of a segment or here."""

    def opened() -> socket.socket:
        if host is not None:
            host.enter()
        return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(opened).result()


def rrq(name: str | bytes, options: Options = (), mode: str = "octet", opcode: int = 1) -> bytes:
    sent = name if isinstance(name, bytes) else name.encode()
    fields = [sent, mode.encode(), *(f.encode() for pair in options for f in pair)]
    return struct.pack("!H", opcode) + b"".join(f + b"\0" for f in fields)


def asked(
    sock: socket.socket, place: tuple[str, int], name: str | bytes, options: Options = (), mode: str = "octet"
) -> bytes:
    """Return the first packet that answers a request."""
    sock.sendto(rrq(name, options, mode), place)
    return sock.recv(70_000)


def fetched(
    place: tuple[str, int],
    name: str | bytes,
    options: Options = (),
    *,
    mode: str = "octet",
    host: Host | None = None,
    timeout_s: float = 1.0,
    lost: Callable[[int], bool] = lambda _: False,
    acks: int = 1,
    told: Callable[[int], None] = lambda _: None,
    keep: bool = True,
    limit_s: float = 60.0,
    buffer_bytes: int = 4 << 20,
    dally_s: float = 0.0,
) -> Fetched:
    """Fetch a file.

    Args:
        lost: says of the n-th DATA packet that arrives, from 0 on, whether it did not.
        acks: how often each ACK is sent.
        told: hears of each block, from 1 on, before it is acknowledged.
        dally_s: how long it stays after its last ACK, which may get lost (RFC 1350 §6).
        keep: the content; otherwise its length alone is right.
    """
    found = Fetched()
    begun = time.monotonic()
    pieces: list[bytes] = []
    with opened_at(place[0], host) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        sock.settimeout(timeout_s)
        sock.sendto(rrq(name, options, mode), place)
        peer: tuple[str, int] | None = None
        blksize, window, block, since, gap_told = 512, 1, 0, 0, False

        def acknowledge() -> None:
            assert peer is not None
            for _ in range(acks):
                sock.sendto(struct.pack("!HH", 4, block & 0xFFFF), peer)

        while time.monotonic() - begun < limit_s:
            try:
                datagram, sender = sock.recvfrom(70_000)
            except TimeoutError:
                if peer is None:
                    sock.sendto(rrq(name, options, mode), place)
                else:
                    since, gap_told = 0, False
                    acknowledge()
                continue
            if peer is not None and sender[:2] != peer[:2]:
                continue
            opcode = struct.unpack_from("!H", datagram)[0]
            if opcode == 5:
                found.error = (struct.unpack_from("!H", datagram, 2)[0], datagram[4:].rstrip(b"\0").decode())
                found.place = sender[:2]
                break
            peer, found.place = sender, sender[:2]
            if opcode == 6:
                fields = [f.decode() for f in datagram[2:].split(b"\0")[:-1]]
                found.options = list(zip(fields[::2], fields[1::2], strict=True))
                agreed = {k.lower(): v for k, v in found.options}
                blksize, window = int(agreed.get("blksize", "512")), int(agreed.get("windowsize", "1"))
                blksize = int(agreed.get("blksize2", blksize))
                if not block:
                    acknowledge()
                continue
            number = struct.unpack_from("!H", datagram, 2)[0]
            found.packets += 1
            found.numbers.append(number)
            if lost(found.packets - 1):
                continue
            if number != (block + 1) & 0xFFFF:
                if window > 1 and not gap_told:
                    gap_told, since = True, 0
                    acknowledge()
                elif window == 1 and number == block & 0xFFFF:
                    acknowledge()
                continue
            block, since, gap_told = block + 1, since + 1, False
            piece = datagram[4:]
            pieces.append(piece if keep else b"")
            told(block)
            is_last = len(piece) < blksize
            if since == window or is_last:
                since = 0
                acknowledge()
            if is_last:
                sock.settimeout(dally_s)
                with contextlib.suppress(TimeoutError):
                    while dally_s:
                        sock.recv(70_000)
                        acknowledge()
                break
        else:
            raise AssertionError(f"{name!r} did not arrive within {limit_s:g} s: {block} blocks")
    found.content = b"".join(pieces)
    found.seconds = time.monotonic() - begun
    return found


def all_of(many: Iterable[Callable[[], Fetched]], at_once: int) -> list[Fetched]:
    with ThreadPoolExecutor(at_once) as threads:
        return list(threads.map(lambda one: one(), many))
