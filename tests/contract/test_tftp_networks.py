"""The TFTP server over networks that delay, lose and reorder, and on hosts with several addresses; in network namespaces."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import namespaces, tftp
from tests.servers.namespaces import DEVICE, Host
from tests.servers.tftp_client import fetched, opened_at, rrq
from tests.servers.wire import Wire, wired

SIZE = 400_003


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tftp-networks") / "root"
    root.mkdir()
    (root / "file").write_bytes(os.urandom(SIZE))
    return root


@pytest.fixture(scope="module")
def hosts(needs: Callable[[str], None]) -> Iterator[list[Host]]:
    needs("namespaces")
    with namespaces.segment("tftp", "machine", network="10.231.69") as hosts:
        yield hosts


_WIRES = {
    "delayed": Wire(delay_s=0.001),
    "lossy": Wire(lost=0.02),
    "lossy and far": Wire(delay_s=0.002, varies_s=0.0005, lost=0.01),
    "doubling": Wire(doubled=0.2),
    "reordering": Wire(delay_s=0.001, varies_s=0.002),
    "all of it": Wire(delay_s=0.001, varies_s=0.002, lost=0.02, doubled=0.05),
}


@pytest.mark.parametrize("windowsize", ["1", "16"])
@pytest.mark.parametrize("wire", _WIRES)
def test_files_arrive_whole_over_every_network(
    needs: Callable[[str], None], root: Path, wire: str, windowsize: str
) -> None:
    needs("namespaces")
    with wired(_WIRES[wire]) as hosts, tftp.ours(root, host=hosts[0]) as served:
        options = [("blksize", "1428"), ("windowsize", windowsize)]
        found = fetched(served.place, "file", options, host=hosts[1], dally_s=1.5)
        assert found.content == (root / "file").read_bytes()
        ended = served.outcome("file")
        assert ended.outcome == "sent"
        if wire == "delayed" or (wire == "doubling" and windowsize == "1"):
            assert ended.resent == 0


def test_what_comes_twice_on_the_way_is_not_sent_twice(needs: Callable[[str], None], root: Path) -> None:
    needs("namespaces")
    with wired(Wire(delay_s=0.001, doubled=0.1)) as hosts, tftp.ours(root, host=hosts[0]) as served:
        options = [("blksize", "1428"), ("windowsize", "16")]
        found = fetched(served.place, "file", options, host=hosts[1])
        assert found.content == (root / "file").read_bytes()
        assert served.outcome("file").resent <= 0.2 * (SIZE // 1428)


def test_a_window_needs_no_more_ways_than_it_has_to(needs: Callable[[str], None], root: Path) -> None:
    """With 5 ms each way one block at a time takes three seconds; windows of 32 take a thirtieth and a little."""
    needs("namespaces")
    with wired(Wire(delay_s=0.005)) as hosts, tftp.ours(root, host=hosts[0]) as served:
        options = [("blksize", "1428"), ("windowsize", "32")]
        found = fetched(served.place, "file", options, host=hosts[1])
        assert found.content == (root / "file").read_bytes()
        assert found.seconds < 1.0
        assert served.outcome("file").resent == 0


def test_losses_cost_little_time(needs: Callable[[str], None], root: Path) -> None:
    """A gap is mended when the client tells of it, not when time is up."""
    needs("namespaces")
    with wired(Wire(delay_s=0.001, lost=0.01)) as hosts, tftp.ours(root, host=hosts[0]) as served:
        options = [("blksize", "1428"), ("windowsize", "16")]
        found = fetched(served.place, "file", options, host=hosts[1])
        assert found.content == (root / "file").read_bytes()
        assert found.seconds < 3.0


def test_no_block_is_larger_than_the_network_takes_in_one_piece(hosts: list[Host], root: Path) -> None:
    with tftp.ours(root, host=hosts[0]) as served:
        found = fetched(served.place, "file", [("blksize", "65464")], host=hosts[1])
        assert found.options == [("blksize", "1468")]
        assert found.content == (root / "file").read_bytes()


def test_a_virtual_address_is_answered_from_while_it_is_here(hosts: list[Host], root: Path) -> None:
    virtual = "10.231.69.200"
    with tftp.ours(root, host=hosts[0], addresses=["0.0.0.0"]) as served:
        subprocess.run(hosts[0].command("ip", "address", "add", f"{virtual}/32", "dev", DEVICE), check=True)
        try:
            for name in ("file", "absent"):
                found = fetched((virtual, served.port), name, [("blksize", "1428")], host=hosts[1])
                assert found.place[0] == virtual
            assert served.outcome("file").local == virtual
        finally:
            subprocess.run(hosts[0].command("ip", "address", "del", f"{virtual}/32", "dev", DEVICE), check=True)


@pytest.mark.parametrize("listens", ["0.0.0.0", "both families"])
def test_a_request_to_everybody_is_not_answered(hosts: list[Host], root: Path, listens: str) -> None:
    for host in hosts:
        # A host has to be told which address is everybody's.
        change = host.command("ip", "address", "change", f"{host.address}/24", "brd", "+", "dev", DEVICE)
        subprocess.run(change, check=True)
    bound = opened_at("::" if listens == "both families" else listens, hosts[0])
    if listens == "both families":
        bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        bound.bind(("::", 0))
    else:
        bound.bind((listens, 0))
    port = bound.getsockname()[1]
    with tftp.ours(root, host=hosts[0], handed=[bound]) as served, opened_at(hosts[1].address, hosts[1]) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.settimeout(0.5)
        sock.sendto(rrq("file"), ("10.231.69.255", port))
        with pytest.raises(TimeoutError):
            sock.recv(600)
        assert served.statistics.dropped == {"broadcast": 1}
        assert fetched((hosts[0].address, port), "file", host=hosts[1]).content == (root / "file").read_bytes()
