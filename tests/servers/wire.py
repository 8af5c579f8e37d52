"""Two hosts on a wire that delays, loses, doubles and reorders: network namespaces and a process between. Needs root.

Linux has ``netem`` for that, but not every kernel does; TUN is everywhere.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.namespaces import DEVICE, PREFIX, Host

_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_CLONE_NEWNET = 0x40000000
_PER_TURN = 64


@dataclass(frozen=True)
class Wire:
    """What happens to a packet on its way, in either direction.

    Attributes:
        delay_s, varies_s: each packet takes the first and up to the second more, by chance: packets overtake each other.
        lost, doubled: shares of packets, 0 to 1.
    """

    delay_s: float = 0.0
    varies_s: float = 0.0
    lost: float = 0.0
    doubled: float = 0.0
    seed: int = 1


@contextlib.contextmanager
def wired(wire: Wire, *, network: str = "10.231.70") -> Iterator[list[Host]]:
    """Yield two hosts, .11 and .12 of the network, that reach each other over the wire and nothing else."""
    hosts = [Host(f"muster-{os.getpid()}-wire{n}", f"{network}.{11 + n}") for n in (0, 1)]
    with contextlib.ExitStack() as stack:
        for host in hosts:
            _ip("netns", "add", host.namespace)
            stack.callback(_ip, "netns", "delete", host.namespace)
            _ip("-n", host.namespace, "link", "set", "lo", "up")
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.servers.wire", *(h.namespace for h in hosts), json.dumps(asdict(wire))],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
            env=clean_environment(), preexec_fn=end_with_parent,
        )  # fmt: skip
        stack.callback(_ended, process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n", "the wire is not there"
        for host in hosts:
            _ip("-n", host.namespace, "address", "add", f"{host.address}/{PREFIX}", "dev", DEVICE)
            _ip("-n", host.namespace, "link", "set", DEVICE, "up")
        yield hosts


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=10, capture_output=True)


def _end_in(namespace: str) -> int:
    """Return an end of the wire, which is the device of that namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
    os.close(fd)
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), _TUN_WITHOUT_HEADER))
    return end


def _carried(ends: list[int], wire: Wire) -> None:
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    chance = random.Random(wire.seed)
    under_way: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for end in select.select(ends, [], [], wait)[0]:
            for _ in range(_PER_TURN):
                try:
                    packet = os.read(end, 65536)
                except OSError:
                    break
                now = time.monotonic()
                for _ in range((chance.random() >= wire.lost) + (chance.random() < wire.doubled)):
                    count += 1
                    due = now + wire.delay_s + (chance.random() * wire.varies_s if wire.varies_s else 0.0)
                    heapq.heappush(under_way, (due, count, other[end], packet))
        now = time.monotonic()
        while under_way and under_way[0][0] <= now:
            _, _, end, packet = heapq.heappop(under_way)
            with contextlib.suppress(OSError):
                os.write(end, packet)


if __name__ == "__main__":
    made = [_end_in(namespace) for namespace in sys.argv[1:3]]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    _carried(made, Wire(**json.loads(sys.argv[3])))
