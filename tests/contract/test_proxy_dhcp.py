"""ProxyDHCP of real members on a real network, beside a real ISC dhcpd, asked by a machine's firmware of the tests' own.

dnsmasq is the peer it is compared with: the same questions, field by field. Figures are printed.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.servers import proxydhcp, pxe_client
from tests.servers.available import sbin
from tests.servers.local import say
from tests.servers.namespaces import DEVICE
from tests.servers.postgresql import PostgreSQL
from tests.servers.proxydhcp import NETWORK, Segment
from tests.servers.pxe_client import ACK, DISCOVER, INFORM, OFFER, REQUEST, Heard, Machine

_TAKEN_OVER_S = 2.0
_ANSWERED_S = 30.0


@pytest.fixture(scope="module")
def segment(
    needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgreSQL
) -> Iterator[Segment]:
    needs("dhcpd")
    settings = {"loaders": {"arm64": None}, "relays": True}
    with proxydhcp.running(
        tmp_path_factory.mktemp("proxydhcp"),
        postgresql_server,
        3,
        proxy_dhcp=settings,
        edge={"drain_s": 1.0},
        features={"tftp": {"enabled": True}, "httpboot": {"enabled": True}},
    ) as found:
        with pxe_client.opened(found.machine) as machine:
            found.serve(machine)
        yield found


@pytest.fixture
def machine(segment: Segment) -> Iterator[Machine]:
    with pxe_client.opened(segment.machine) as found:
        found.first(within_s=_ANSWERED_S)
        yield found


def _of_proxy(answers: list[Heard]) -> list[Heard]:
    return [a for a in answers if a.is_proxys]


def test_one_member_answers_beside_the_server_that_gives_the_address(segment: Segment, machine: Machine) -> None:
    for n in range(5):
        machine.mac = f"52:54:00:00:02:{n:02x}"
        # dhcpd pings an address first that it has not given yet.
        answers = machine.ask(DISCOVER, wait_s=1.5)
        assert sorted((a.type, a.is_proxys) for a in answers) == [(OFFER, False), (OFFER, True)], answers
        told = _of_proxy(answers)[0]
        assert told.source == (segment.holder(machine).host.address, 67)
        assert told.server == segment.holder(machine).host.address
        assert told.siaddr in {m.host.address for m in segment.members}
        assert (told.file, told.options[67], told.options[60]) == ("pxelinux.0", b"pxelinux.0", b"PXEClient")


def test_a_machine_gets_its_address_from_one_and_its_loader_from_the_other(segment: Segment, machine: Machine) -> None:
    machine.mac = "52:54:00:00:03:01"
    offered = machine.ask(DISCOVER, arch=7, wait_s=1.5)
    address = next(a for a in offered if not a.is_proxys)
    told = next(a for a in offered if a.is_proxys)
    assert told.file == "grub2/grubx64.efi"
    wish = {50: socket.inet_aton(address.yiaddr), 54: address.options[54]}
    acknowledged = machine.ask(REQUEST, arch=7, more=wish)
    # Who gives no address keeps out of it.
    assert [(a.type, a.yiaddr) for a in acknowledged] == [(ACK, address.yiaddr)]
    with segment.with_address(address.yiaddr):
        for kind in (REQUEST, INFORM):
            answers = machine.ask(kind, to=(told.server, 4011), arch=7, ciaddr=address.yiaddr)
            assert [(a.type, a.source, a.file, a.siaddr) for a in answers] == [
                (ACK, (told.server, 4011), told.file, told.siaddr)
            ]


def test_every_ready_member_answers_who_asks_it_alone_and_says_the_same(segment: Segment, machine: Machine) -> None:
    machine.mac = "52:54:00:00:03:02"
    with segment.with_address(f"{NETWORK}.200"):
        answers = [
            one
            for m in segment.members
            for one in machine.ask(REQUEST, to=(m.host.address, 4011), ciaddr=f"{NETWORK}.200")
        ]
        assert [a.server for a in answers] == [m.host.address for m in segment.members]
        assert len({(a.siaddr, a.file) for a in answers}) == 1
        # To everybody, nobody; and what belongs to the other port.
        assert machine.ask(REQUEST, to=(f"{NETWORK}.255", 4011), ciaddr=f"{NETWORK}.200") == []
        assert machine.ask(DISCOVER, to=(segment.members[0].host.address, 4011)) == []


@pytest.mark.parametrize(
    "more",
    [
        {"vendor": "Something"},
        {"arch": 4711},
        {"arch": 11},
        {"without": (60,)},
        {"without": (53,)},
        {"more": {52: b"\x04"}, "arch": 12},
    ],
    ids=["another vendor", "unknown", "no loader", "no vendor", "BOOTP", "PowerPC"],
)
def test_others_are_left_to_the_server_of_addresses(machine: Machine, more: dict[str, Any]) -> None:
    assert _of_proxy(machine.ask(DISCOVER, wait_s=0.5, **more)) == []


def test_ipxe_is_told_its_script(machine: Machine) -> None:
    for said in (b"iPXE", b"\x04iPXE"):
        told = machine.first(within_s=2, user_class=said, arch=7)
        assert told.file.startswith("http://proxy.example.com:")
        assert told.file.endswith(f"/unattended/iPXE?mac={machine.mac}")
        assert told.siaddr == told.server


def test_firmware_that_loads_by_http_is_told_a_url_behind_the_balancer(machine: Machine) -> None:
    told = machine.first(within_s=2, arch=16, vendor="HTTPClient")
    assert told.options[60] == b"HTTPClient"
    assert told.file.startswith("http://proxy.example.com:")
    assert told.file.endswith("/httpboot/grub2/grubx64.efi")


def test_a_host_s_own_loader_in_the_tree_goes_before(segment: Segment, machine: Machine, tmp_path: Path) -> None:
    machine.mac = "52:54:00:00:07:01"
    assert machine.first(within_s=2, arch=7).file == "grub2/grubx64.efi"
    (tmp_path / "boot.efi").write_bytes(b"MZ")
    own = "host-config/52-54-00-00-07-01/grub2"
    imported = ["netboot", "import", str(tmp_path), "--below", own, "--cluster", str(segment.cluster_file)]
    done = subprocess.run(
        [sys.executable, "-m", "muster", *imported], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert machine.first(within_s=2, arch=7).file == f"{own}/boot.efi"
    assert machine.first(within_s=2, arch=16, vendor="HTTPClient").file.endswith(f"/httpboot/{own}/boot.efi")
    assert machine.first(within_s=2, arch=0).file == "pxelinux.0"


def test_a_relay_has_the_answer_of_the_member_that_answers(segment: Segment, machine: Machine) -> None:
    relay = f"{NETWORK}.201"
    holder = segment.holder(machine).host.address
    with segment.with_address(relay), pxe_client.opened(segment.machine, port=67) as relaying:
        for one in segment.members:
            to = (one.host.address, 67)
            answers = relaying.ask(DISCOVER, to=to, giaddr=relay, more={82: b"\x01\x04port"})
            if one.host.address != holder:
                assert answers == []
                continue
            assert [(a.source[0], a.giaddr, a.options[82]) for a in answers] == [(holder, relay, b"\x01\x04port")]


def test_when_its_holder_is_killed_another_member_answers_within_two_seconds(
    segment: Segment, machine: Machine
) -> None:
    took: list[float] = []
    for _ in range(4):
        killed = segment.holder(machine)
        began = time.monotonic()
        killed.kill()
        told = machine.first(within_s=_TAKEN_OVER_S + 1)
        took.append(time.monotonic() - began)
        assert told.server != killed.host.address
        assert _of_proxy(machine.ask(DISCOVER)) != []
        killed.begin()
        segment.serve(machine)
    say(f"ProxyDHCP was answered again {_shown(took)} s after kill -9 of the member that did")
    assert max(took) < _TAKEN_OVER_S, took


def test_when_its_holder_stops_another_member_answers_at_once(segment: Segment, machine: Machine) -> None:
    stopped = segment.holder(machine)
    began = time.monotonic()
    stopped.ask_to_stop()
    gaps = [began]
    while time.monotonic() - began < 3.0:
        told = machine.first(within_s=2.0)
        gaps.append(time.monotonic())
        if told.server != stopped.host.address:
            break
        time.sleep(0.1)
    assert told.server != stopped.host.address
    longest = max(b - a for a, b in pairwise(gaps))
    say(f"ProxyDHCP was silent for {longest:.2f} s at most when the member that answers was stopped")
    assert longest < 1.0
    stopped.stop()
    stopped.begin()
    segment.serve(machine)


def test_without_the_store_the_member_that_answered_goes_on_and_nobody_answers_beside_it_when_it_is_back(
    segment: Segment, machine: Machine, postgresql_server: PostgreSQL
) -> None:
    def answered_by(for_s: float) -> Iterator[set[str]]:
        """Yield who answers each of many questions; on a busy machine an answer may come too late to be heard."""
        end = time.monotonic() + for_s
        while time.monotonic() < end:
            yield {a.server for a in _of_proxy(machine.ask(DISCOVER, wait_s=0.3))}

    for _ in range(3):
        holder = segment.holder(machine).host.address
        postgresql_server.stop()
        try:
            assert all(servers <= {holder} for servers in answered_by(3.0))
            assert machine.first(within_s=_ANSWERED_S).server == holder
        finally:
            postgresql_server.start()
        # It may hand the role on, as when others have read sooner which boot files there are; it never shares it.
        assert all(len(servers) <= 1 for servers in answered_by(3.0))


def test_a_machine_that_asks_without_end_is_answered_so_often_and_no_more(machine: Machine) -> None:
    machine.mac = "52:54:00:00:04:01"
    number, content = machine.question(DISCOVER)
    for _ in range(200):
        machine.sock.sendto(content, ("255.255.255.255", 67))
    assert 5 <= len(_of_proxy(list(machine.heard(number, 1.0)))) <= 16
    machine.mac = "52:54:00:00:04:02"
    assert machine.first(within_s=5).file == "pxelinux.0"


def test_what_is_no_dhcp_message_is_ignored(machine: Machine) -> None:
    _, content = machine.question(DISCOVER)
    for bad in (b"", b"x", content[:239], content[:-1] + b"\x43\xff", content + b"\0" * 1500, b"\xff" * 600):
        machine.sock.sendto(bad, ("255.255.255.255", 67))
    assert len(_of_proxy(machine.ask(DISCOVER))) == 1


def test_a_dhcp_server_on_the_member_s_own_host_answers_beside_it(segment: Segment, machine: Machine) -> None:
    holder = segment.holder(machine)
    directory = segment.directory / "beside"
    directory.mkdir()
    with proxydhcp.addresses_given(directory, holder.host):
        limit = time.monotonic() + 10
        machine.mac = "52:54:00:00:05:01"
        found: list[Heard] = []
        while holder.host.address not in {a.source[0] for a in found if not a.is_proxys}:
            assert time.monotonic() < limit, found
            found = machine.ask(DISCOVER, wait_s=1.5)
        assert [a.source[0] for a in _of_proxy(found)] == [holder.host.address]


def test_dnsmasq_says_the_same_but_for_what_is_known(
    segment: Segment, machine: Machine, needs: Callable[[str], None]
) -> None:
    needs("dnsmasq")
    program = sbin("dnsmasq")
    assert program is not None
    command = segment.peer.command(
        program, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--log-dhcp", "--user=root",
        f"--dhcp-range={NETWORK}.0,proxy", f"--interface={DEVICE}",
        "--pxe-service=x86PC,Boot,pxelinux.0", "--pxe-service=X86-64_EFI,Boot,grub2/grubx64.efi",
        f"--dhcp-leasefile={segment.directory / 'dnsmasq.leases'}",
    )  # fmt: skip
    with proxydhcp.ran(command, segment.directory / "dnsmasq.log"):
        for arch in (0, 7):
            limit = time.monotonic() + 10
            machine.mac = f"52:54:00:00:06:{arch:02x}"
            while len(found := _of_proxy(machine.ask(DISCOVER, arch=arch))) < 2:
                assert time.monotonic() < limit, found
            theirs = next(a for a in found if a.source[0] == segment.peer.address)
            ours = next(a for a in found if a is not theirs)
            assert _compared(ours, theirs) == _ARCHES[arch]


# What each says that the other does not, ours first. dnsmasq sends firmware on to its port 4011, by a menu of one entry on
# BIOS and by an offer without a file on UEFI; we name the file at once, which either takes.
_ARCHES: dict[int, dict[str, tuple[str, str]]] = {
    0: {
        "siaddr": ("a member", "none"),
        "file": ("pxelinux.0", ""),
        "options": ("66 67", ""),
        "43": ("6", "6 8 9 10"),
    },
    7: {"file": ("grub2/grubx64.efi", ""), "options": ("43 66 67", "")},
}


def _compared(ours: Heard, theirs: Heard) -> dict[str, tuple[str, str]]:
    """Return in what two answers differ, but for whose they are."""
    assert (ours.type, ours.yiaddr, ours.giaddr, ours.source[1]) == (theirs.type, theirs.yiaddr, theirs.giaddr, 67)
    for code in ours.options.keys() & theirs.options.keys() - {43, 54}:
        assert ours.options[code] == theirs.options[code], code

    def said(one: Heard, other: Heard) -> dict[str, str]:
        return {
            "siaddr": "none" if one.siaddr == "0.0.0.0" else "a member",
            "file": one.file,
            "options": " ".join(str(c) for c in sorted(one.options.keys() - other.options.keys())),
            "43": " ".join(str(c) for c in sorted(_suboptions(one.options.get(43, b""))))
            if 43 in other.options
            else "",
        }

    mine, peers = said(ours, theirs), said(theirs, ours)
    return {what: (mine[what], peers[what]) for what in mine if mine[what] != peers[what]}


def _suboptions(value: bytes) -> set[int]:
    found, at = set(), 0
    while at < len(value) and value[at] != 255:
        found.add(value[at])
        at += 2 + value[at + 1]
    return found


def _shown(took: list[float]) -> str:
    return ", ".join(f"{t:.2f}" for t in sorted(took))
