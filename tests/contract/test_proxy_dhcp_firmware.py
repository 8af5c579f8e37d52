"""Real firmware is told what to boot: iPXE out of a network card, and UEFI, beside an ISC dhcpd without boot information."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import machine, proxydhcp, pxe_client
from tests.servers.available import sbin
from tests.servers.postgresql import PostgreSQL
from tests.servers.proxydhcp import NETWORK, Segment

# Machines are computed, on whatever cores are left.
_BOOTED_S = 120.0
_SCRIPT = "#!ipxe\necho Muster was asked by ${net0/mac} of ${next-server}\nsleep 3600\n"
_BY_HTTP = "httpboot/grub2/grubx64.efi"
_LOADER = b"MZ" + b"\0" * 3000


@pytest.fixture(scope="module")
def segment(
    needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgreSQL
) -> Iterator[Segment]:
    for one in ("dhcpd", "dnsmasq", "qemu"):
        needs(one)
    # What stands in for the balancer is the peer; each member's host has a TFTP server of its own.
    settings = {"ipxe_url": f"http://{NETWORK}.14:8000/unattended/iPXE?mac={{mac}}"}
    directory = tmp_path_factory.mktemp("firmware")
    with (
        proxydhcp.running(
            directory, postgresql_server, 2, proxy_dhcp=settings, address=f"{NETWORK}.14", features={"httpboot": {}}
        ) as found,
        _files(found, directory / "files"),
        pxe_client.opened(found.machine) as client,
    ):
        found.serve(client)
        yield found


@contextlib.contextmanager
def _files(segment: Segment, root: Path) -> Iterator[None]:
    for path, content in (("unattended/iPXE", _SCRIPT.encode()), ("grub2/grubx64.efi", _LOADER), (_BY_HTTP, _LOADER)):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_bytes(content)
    for directory in (segment.directory, root):
        directory.chmod(0o755)
    assert segment.peer.address == f"{NETWORK}.14"
    program = sbin("dnsmasq")
    assert program is not None
    with contextlib.ExitStack() as stack:
        web = segment.peer.command(sys.executable, "-m", "http.server", "-d", root, "8000")
        stack.enter_context(proxydhcp.ran(web, segment.directory / "web.log"))
        for one in segment.members:
            tftp = one.host.command(
                program, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--enable-tftp", f"--tftp-root={root}",
                "--user=root",
            )  # fmt: skip
            stack.enter_context(proxydhcp.ran(tftp, segment.directory / f"{one.name}-tftp.log"))
        yield


def test_ipxe_runs_the_script_behind_the_balancer_and_is_told_nothing_else(segment: Segment, tmp_path: Path) -> None:
    with machine.switched_on("ipxe", "52:54:00:aa:cc:10", segment.machine, tmp_path) as booting:
        booting.until("Muster was asked by 52:54:00:aa:cc:10", _BOOTED_S)
    asked = (segment.directory / "web.log").read_text("utf-8")
    # iPXE writes colons of a query so.
    assert asked.count("GET /unattended/iPXE?mac=52%3A54%3A00%3Aaa%3Acc%3A10 ") == asked.count("GET ") == 1, asked


def test_uefi_loads_its_loader_from_the_member_it_was_told(segment: Segment, tmp_path: Path) -> None:
    mac = "52:54:00:aa:cc:20"
    with pxe_client.opened(segment.machine, mac=mac) as client:
        told = client.first(within_s=5, arch=7).siaddr
    with machine.switched_on("uefi", mac, segment.machine, tmp_path) as booting:
        booting.until(f"NBP filesize is {len(_LOADER)} Bytes", _BOOTED_S)
        booting.until("NBP file downloaded successfully", _BOOTED_S)
        assert f"Server IP address is {told}" in booting.shown()
        assert "NBP filename is grub2/grubx64.efi" in booting.shown()


def test_uefi_loads_its_loader_by_http_from_behind_the_balancer(segment: Segment, tmp_path: Path) -> None:
    with machine.switched_on("uefi-http", "52:54:00:aa:cc:30", segment.machine, tmp_path) as booting:
        booting.until(f"URI: http://{NETWORK}.14:8000/{_BY_HTTP}", _BOOTED_S)
        booting.until(f"File Size: {len(_LOADER)} Bytes", _BOOTED_S)
        booting.until("Downloading...100%", _BOOTED_S)
