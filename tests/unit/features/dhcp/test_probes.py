from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from muster.features.dhcp import probes
from muster.features.dhcp.probes import NoProbes, checksum

pytestmark = pytest.mark.anyio
NOWHERE = IPv4Address("192.0.2.1")


def _no_socket() -> tuple[socket.socket | None, bool, str]:
    return None, False, "Permission denied"


@contextmanager
def listening(address: str) -> Iterator[int]:
    with socket.create_server((address, 0)) as server:
        yield server.getsockname()[1]


def test_the_checksum_of_a_packet_that_carries_it_is_zero() -> None:
    for payload in (b"", b"a", b"ab" * 30, b"\xff" * 31):
        bare = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + payload
        whole = struct.pack("!BBHHH", 8, 0, checksum(bare), 7, 1) + payload
        assert checksum(whole) == 0


async def test_a_connection_that_is_taken_or_refused_is_an_answer(tmp_path: Path) -> None:
    taken, refused = IPv4Address("127.0.0.91"), IPv4Address("127.0.0.92")
    with listening(str(taken)) as port:
        async with probes.opened(wait_s=0.2, port=port, arp=tmp_path / "none", made=_no_socket) as prober:
            assert prober.without_icmp == "Permission denied"
            assert await prober.answered([taken, refused]) == {taken, refused}
            assert await prober.answered([]) == frozenset()


async def test_no_probes_take_everything_for_unused() -> None:
    assert await NoProbes().answered([NOWHERE]) == frozenset()
