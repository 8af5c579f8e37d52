"""A machine's firmware that boots from the network, as far as DHCP goes, with DHCP written and read by itself.

It knows nothing of the product's own codec, which would agree with itself.

Source: RFC 2131, RFC 4578, PXE 2.1 §2.2.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.servers.namespaces import DEVICE, Host

DISCOVER, OFFER, REQUEST, ACK, INFORM = 1, 2, 3, 5, 8
MAC = "52:54:00:aa:bb:01"


@dataclass(frozen=True)
class Heard:
    """An answer as it came.

    Attributes:
        source: address and port.
        options: as they stand there, parts of one joined.
    """

    source: tuple[str, int]
    transaction: int
    type: int
    yiaddr: str
    siaddr: str
    giaddr: str
    file: str
    options: Mapping[int, bytes]
    size: int
    after_s: float

    @property
    def server(self) -> str:
        """Its server identifier."""
        return socket.inet_ntoa(self.options[54])

    @property
    def is_proxys(self) -> bool:
        """It gives no address."""
        return self.yiaddr == "0.0.0.0"


@dataclass
class Machine:
    """Firmware on one host. Use :func:`opened`."""

    host: Host
    sock: socket.socket
    mac: str = MAC
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(0x1000, 1 << 32)))

    def question(
        self,
        kind: int,
        *,
        arch: int = 0,
        vendor: str = "PXEClient",
        user_class: bytes | None = None,
        ciaddr: str = "0.0.0.0",
        giaddr: str = "0.0.0.0",
        more: Mapping[int, bytes] | None = None,
        without: tuple[int, ...] = (),
    ) -> tuple[int, bytes]:
        """Return a question and the number of its transaction."""
        number = next(self._numbers)
        hardware = bytes.fromhex(self.mac.replace(":", ""))
        options = {
            53: bytes([kind]),
            55: bytes([1, 3, 6, 43, 54, 60, 66, 67]),
            57: struct.pack("!H", 1472),
            60: f"{vendor}:Arch:{arch:05}:UNDI:003016".encode(),
            93: struct.pack("!H", arch),
            94: b"\x01\x03\x10",
            97: b"\0" + hardware.rjust(16, b"\xa5"),
            **({77: user_class} if user_class is not None else {}),
            **(more or {}),
        }
        head = struct.pack(
            "!BBBBIHH4s4s4s4s16s64s128s", 1, 1, 6, 0, number, 0, 0x8000, socket.inet_aton(ciaddr), b"\0" * 4, b"\0" * 4,
            socket.inet_aton(giaddr), hardware, b"", b"",
        )  # fmt: skip
        said = b"".join(bytes([c, len(v)]) + v for c, v in options.items() if c not in without)
        return number, head + b"\x63\x82\x53\x63" + said + b"\xff"

    def ask(
        self, kind: int, *, to: tuple[str, int] = ("255.255.255.255", 67), wait_s: float = 1.0, **more: object
    ) -> list[Heard]:
        """Ask once, and return all that is answered within a while."""
        number, content = self.question(kind, **more)  # type: ignore[arg-type]
        self.sock.sendto(content, to)
        return list(self.heard(number, wait_s))

    def heard(self, number: int, wait_s: float) -> Iterator[Heard]:
        """Yield answers to a transaction as they come, until a while has passed."""
        begun = time.monotonic()
        while (left := begun + wait_s - time.monotonic()) > 0:
            if not select.select([self.sock], [], [], left)[0]:
                return
            content, source = self.sock.recvfrom(4096)
            one = read(content, source, time.monotonic() - begun)
            if one.transaction == number:
                yield one

    def first(self, kind: int = DISCOVER, *, within_s: float, **more: object) -> Heard:
        """Ask again and again, as firmware does but faster, until ProxyDHCP answers."""
        begun = time.monotonic()
        while time.monotonic() - begun < within_s:
            number, content = self.question(kind, **more)  # type: ignore[arg-type]
            self.sock.sendto(content, ("255.255.255.255", 67))
            for one in self.heard(number, 0.1):
                if one.is_proxys:
                    return one
        raise AssertionError(f"no ProxyDHCP answered within {within_s} s")


def read(content: bytes, source: tuple[str, int], after_s: float = 0.0) -> Heard:
    """Read an answer."""
    assert content[236:240] == b"\x63\x82\x53\x63", "no DHCP"
    options: dict[int, bytes] = {}
    at = 240
    while content[at] != 255:
        if content[at] == 0:
            at += 1
            continue
        code, length = content[at], content[at + 1]
        options[code] = options.get(code, b"") + content[at + 2 : at + 2 + length]
        at += 2 + length
    return Heard(
        source, struct.unpack("!I", content[4:8])[0], options[53][0], socket.inet_ntoa(content[16:20]),
        socket.inet_ntoa(content[20:24]), socket.inet_ntoa(content[24:28]),
        content[108:236].partition(b"\0")[0].decode(), options, len(content), after_s,
    )  # fmt: skip


@contextlib.contextmanager
def opened(host: Host, *, port: int = 68, mac: str = MAC) -> Iterator[Machine]:
    """Yield firmware that speaks from port 68 of a host, whose device may have an address or none."""
    with ThreadPoolExecutor(1) as thread:
        sock = thread.submit(_opened, host, port).result()
    with contextlib.closing(sock):
        yield Machine(host, sock, mac)


def _opened(host: Host, port: int) -> socket.socket:
    # The thread ends, the socket stays where it was made.
    host.enter()
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, DEVICE.encode())
    sock.bind(("", port))
    return sock
