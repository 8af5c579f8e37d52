from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from muster.features.dhcp import probes
from muster.features.dhcp.probes import NoProbes, Probed, checksum

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
            assert await prober.probed([taken, refused]) == Probed(frozenset({taken, refused}), frozenset())
            assert await prober.probed([]) == Probed(frozenset(), frozenset())


async def test_no_probes_take_everything_for_unused() -> None:
    assert await NoProbes().probed([NOWHERE]) == Probed(frozenset(), frozenset({NOWHERE}))


@pytest.mark.parametrize(
    "code", [errno.ENOBUFS, errno.EPERM, errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.ENETDOWN, errno.EMFILE]
)
async def test_an_address_that_could_not_be_asked_about_is_not_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    async def connect(*_: Any) -> None:
        raise OSError(code, errno.errorcode[code])

    async with probes.opened(wait_s=0.05, arp=tmp_path / "none", made=_no_socket) as prober:
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
        assert await prober.probed([NOWHERE]) == Probed(frozenset(), frozenset(), errno.errorcode[code])


async def test_only_so_many_addresses_are_asked_about_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = most = 0

    async def connect(*_: Any) -> None:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        try:
            await asyncio.sleep(1)
        finally:
            now -= 1

    prober = probes.Probes(None, "", wait_s=0.05, port=7, arp=tmp_path / "none", at_once=8)
    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", connect)
    asked = [[NOWHERE + n * 20 + i for i in range(20)] for n in range(3)]
    found = await asyncio.gather(*(prober.probed(some) for some in asked))
    assert [set(f.silent) for f in found] == [set(some) for some in asked]
    assert most == 8
