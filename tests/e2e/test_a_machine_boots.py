"""Machines without a disk boot through the cluster: an address, a loader, a kernel, a template; and are reported built."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests import scale
from tests.servers import provisioning
from tests.servers.local import say, until
from tests.servers.machine import Firmware, Machine
from tests.servers.provisioning import Site

T = TypeVar("T")

_LONGEST_BOOT_S = 180.0
_FIRMWARES: list[Firmware] = ["ipxe", "uefi"]
# With which iPXE, GRUB and UEFI say that they go no further.
_GIVEN_UP = ("No bootable device", "Press any key to continue", "UEFI Interactive Shell", "BdsDxe: No bootable option")
# Slow enough that a member can be killed in the middle of a kernel.
_SLOW_MBIT_S = 24
# Packets are cut off where they are kept: for iPXE these are 5 MB of 14, for GRUB, which has small ones, 2.
_MIDDLE_BYTES = 2_500_000

_KERNEL = ("http", "httpboot/boot/vmlinuz")

# What Foreman renders for it; an installer that runs to its end.
_PROVISION = b"""echo "installer: template runs"
sleep 1
wget -q -O /answer --post-data= "$url/unattended/built?token=$token" || exit 1
echo "installer: built"
"""


@pytest.fixture(scope="module")
def site(needs: Callable[[str], None], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    for need in ("haproxy", "dhcpd", "namespaces", "machines"):
        needs(need)
    directory = tmp_path_factory.mktemp("site")
    with provisioning.isc(directory / "dhcpd") as addresses, provisioning.running(directory, addresses) as site:
        site.foreman.templates["/unattended/provision"] = _PROVISION
        yield site


def test_a_machine_with_ipxe_is_installed(site: Site) -> None:
    mac, token = "52:54:00:b0:07:01", "token-of-ipxe"
    ip = _prepared(site, "ipxe", mac, 101, token)
    with site.switched_on("ipxe", mac) as machine:
        shown = machine.until_off(_LONGEST_BOOT_S)
    _is_installed(site, shown, ip, token)
    assert _paths(site, token) == ["/unattended/iPXE", "/unattended/provision", "/unattended/built"]
    story = _told(site, mac, ip, token)
    assert [what for what in story if what[0] != "http"] == [
        *_prepared_by("Ipxe"), ("tftp", _script(mac)), ("template", "iPXE"), ("template", "provision"), ("built", "built"),
    ]  # fmt: skip
    assert story.index(("template", "iPXE")) < story.index(_KERNEL) < story.index(("template", "provision"))


def test_a_machine_with_grub_is_installed(site: Site) -> None:
    mac, token = "52:54:00:b0:07:02", "token-of-grub"
    ip = _prepared(site, "uefi", mac, 102, token)
    with site.switched_on("uefi", mac) as machine:
        shown = machine.until_off(_LONGEST_BOOT_S)
    _is_installed(site, shown, ip, token)
    assert _paths(site, token) == ["/unattended/provision", "/unattended/built"]
    story = _told(site, mac, ip, token)
    loader, menu = ("tftp", "grub2/grubx64.efi"), ("tftp", f"grub2/grub.cfg-01-{mac.replace(':', '-')}")
    assert [what for what in dict.fromkeys(story) if what[0] != "http"] == [
        *_prepared_by("PXEGrub2"), loader, menu, ("template", "provision"), ("built", "built"),
    ]  # fmt: skip
    assert story.index(menu) < story.index(_KERNEL) < story.index(("template", "provision"))
    # However it is asked for.
    assert site.story(ip, "--boot")["mac"] == mac
    assert site.story(mac.upper().replace(":", "-")) == site.story("host102.example.com")


# Firmware that PXE and GRUB of our own do not suffice for, and what of it the story has.
_PARTICULAR: list[tuple[Firmware, list[tuple[str, str]]]] = [
    (
        "uefi-secure",
        [
            ("tftp", "host-config/{mac-}/grub2/boot-sb.efi"),
            ("tftp", "host-config/{mac-}/grub2/grubx64.efi"),
            ("tftp", "grub/grub.cfg"),
            ("tftp", "grub2/grub.cfg-{mac}"),
            ("tftp", "boot/vmlinuz"),
        ],
    ),
    (
        "uefi-http",
        [
            ("http", "httpboot/grub2/http/grubx64.efi"),
            ("http", "httpboot/grub2/http/grub.cfg"),
            ("http", "httpboot/grub2/grub.cfg-{mac}"),
            _KERNEL,
        ],
    ),
]


@pytest.mark.proof
@pytest.mark.parametrize(("firmware", "loaded"), _PARTICULAR[: scale.PARTICULAR_BOOTS])
def test_a_machine_with_particular_firmware_is_installed(
    site: Site, firmware: Firmware, loaded: list[tuple[str, str]]
) -> None:
    number = 103 + [one for one, _ in _PARTICULAR].index(firmware)
    mac, token = f"52:54:00:b0:07:{number:02x}", f"token-of-{firmware}"
    ip = _prepared(site, firmware, mac, number, token)
    with site.switched_on(firmware, mac) as machine:
        shown = machine.until_off(_LONGEST_BOOT_S)
    _is_installed(site, shown, ip, token)
    expected = [(kind, what.replace("{mac}", mac).replace("{mac-}", mac.replace(":", "-"))) for kind, what in loaded]
    story = _told(site, mac, ip, token)
    assert [what for what in dict.fromkeys(story) if what in expected] == expected
    assert ("EFI stub: UEFI Secure Boot is enabled." in shown) == (firmware == "uefi-secure")
    # By HTTP, nothing comes by TFTP.
    assert {kind for kind, _ in story if kind in ("tftp", "http")} == {expected[0][0]}


@pytest.mark.proof
@pytest.mark.parametrize("firmware", _FIRMWARES[: scale.KEA_BOOTS])
def test_a_machine_is_installed_with_an_address_of_keas(
    needs: Callable[[str], None], tmp_path: Path, firmware: Firmware
) -> None:
    for need in ("haproxy", "kea", "namespaces", "machines"):
        needs(need)
    mac, token = "52:54:00:b0:07:03", "token-of-kea"
    with provisioning.kea() as addresses, provisioning.running(tmp_path, addresses) as site:
        site.foreman.templates["/unattended/provision"] = _PROVISION
        ip = _prepared(site, firmware, mac, 120, token)
        with site.switched_on(firmware, mac) as machine:
            shown = machine.until_off(_LONGEST_BOOT_S)
        _is_installed(site, shown, ip, token)


# Within each a member is killed, by what the machine has from it then. "again": its menu asks again for what did not come.
_MOMENTS: list[tuple[Firmware, str]] = [
    ("ipxe", "kernel again"),
    ("uefi", "kernel"),
    ("uefi", "kernel again"),
    ("ipxe", "kernel"),
    ("ipxe", "nothing"),
    ("uefi", "nothing"),
    ("ipxe", "template"),
    ("uefi", "template"),
    ("ipxe", "report"),
]


@pytest.mark.proof
@pytest.mark.parametrize(("firmware", "had"), _MOMENTS[: scale.KILLED_BOOTS])
def test_a_member_that_dies_costs_a_machine_one_boot_at_most(site: Site, firmware: Firmware, had: str) -> None:
    number = 110 + _MOMENTS.index((firmware, had))
    mac, token = f"52:54:00:b0:07:{number:02x}", f"token-{firmware}-{had.replace(' ', '-')}"
    ip = _prepared(site, firmware, mac, number, token, again="again" in had)
    asyncio.run(until(lambda: provisioning.is_well(site), "every member serves"))
    # GRUB is slow by itself.
    with site.switched_on(firmware, mac, mbit_s=_SLOW_MBIT_S if firmware == "ipxe" else None) as machine:
        try:
            killed = _killed_while(site, had, token, machine)
            # GRUB waits for a key where it has shown an error, for ten seconds, and then goes on with what it has.
            shown = machine.until_over(_LONGEST_BOOT_S, *(() if "again" in had else _GIVEN_UP))
        finally:
            site.foreman.may_answer.set()
    at_once = "installer: done" in shown
    said = [line for line in shown.splitlines() if "rror" in line or "reset" in line or "installer:" in line][-3:]
    say(f"{firmware}, {killed.split('.')[0]} killed by what the machine had of it: {had}; {at_once=}; {said}")
    # Whoever had nothing of it yet is served by the others.
    assert at_once or (had != "nothing" and "again" not in had), shown[-2000:]
    if not at_once:
        # GRUB has the same ports in every boot: while one is remembered from the last boot it is not let in by it.
        _soon(lambda: not site.remembers(ip), "the balancer's host has forgotten the machine that was switched off")
        with site.switched_on(firmware, mac) as again:
            shown = again.until_off(_LONGEST_BOOT_S)
    _is_installed(site, shown, ip, token)


def _killed_while(site: Site, had: str, token: str, machine: Machine) -> str:
    """Kill the member that has the machine's connection at that moment, any where none has; return its name."""
    if had == "nothing":
        victim: str | None = site.cluster.names[0]
    elif had.startswith("kernel"):
        _soon(lambda: machine.wire.exists() and machine.wire.stat().st_size > _MIDDLE_BYTES, "a kernel is on its way")
        victim = site.who_serves()
    else:
        if had == "report":
            machine.until("installer: template runs", _LONGEST_BOOT_S)
        else:
            machine.until("Linux version", _LONGEST_BOOT_S)
        site.foreman.may_answer.clear()
        path = "/unattended/built" if had == "report" else "/unattended/provision"
        _soon(lambda: path in _paths(site, token), f"Foreman is asked for {path}")
        victim = _soon(site.who_serves, "a member waits for Foreman")
    assert victim is not None
    site.kill(victim)
    return victim


def _soon(question: Callable[[], T], what: str) -> T:
    limit = time.monotonic() + _LONGEST_BOOT_S
    while not (answer := question()):
        assert time.monotonic() < limit, f"not within {_LONGEST_BOOT_S:g} s: {what}"
        time.sleep(0.05)
    return answer


def _told(site: Site, mac: str, ip: str, token: str) -> list[tuple[str, str]]:
    """Return kind and file, or template, of what came about by the machine's story, in order, once it tells the end."""
    story = _soon(
        lambda: s if (s := site.story(mac))["stage"] == "built" else None, "the store has the end of the story"
    )
    assert story is not None
    assert story["stops"] == "It was reported built, which is the end."
    assert story["addresses"] == [ip]
    assert story["lost"] == {}
    # Whose token it is, is nobody's business.
    assert token not in json.dumps(story)
    assert len({one["member"] for one in story["happenings"]}) > 1
    assert [one["at"] for one in story["happenings"]] == sorted(one["at"] for one in story["happenings"])
    return [(one["kind"], _about(one["detail"])) for one in story["happenings"] if one["ok"]]


def _prepared_by(variant: str) -> list[tuple[str, str]]:
    return [("offered", ""), ("configured", variant), ("reserved", "")]


def _about(detail: dict[str, Any]) -> str:
    """Return the file, template or menu that it is about; empty: none."""
    named = (detail.get(word) for word in ("template", "path", "variant", "file"))
    return str(next((n for n in named if n), "")).lstrip("/") if "provider" not in detail else ""


def _prepared(site: Site, firmware: Firmware, mac: str, number: int, token: str, *, again: bool = False) -> str:
    """Have Foreman's calls made for a new host: its address, and what its boot loader is told. Return the address."""
    wanted = f"{site.network}.{number}"
    free = site.ask("GET", f"/dhcp/{site.network}.0/unused_ip?mac={mac}&from={wanted}&to={wanted}")
    assert (free.status, json.loads(free.body)) == (200, {"ip": wanted})
    # On a host that has too much to do an emulated timer is late, and the kernel would take it for broken.
    line = f"console=ttyS0 panic=-1 no_timer_check muster.templates={site.url} muster.token={token}"
    if firmware == "ipxe":
        files = f"{site.url}/httpboot/boot"
        kernel, initrd = f"kernel {files}/vmlinuz {line}", f"initrd {files}/initrd"
        if again:
            kernel, initrd = f":kernel\n{kernel} || goto kernel", f":initrd\n{initrd} || goto initrd"
        site.foreman.templates["/unattended/iPXE"] = f"#!ipxe\n{kernel}\n{initrd}\nboot\n".encode()
        site.configure("Ipxe", mac, f"#!ipxe\nchain {site.url}/unattended/iPXE?token={token}\n")
        return site.reserve(mac, number, _script(mac))
    # Debian's signed GRUB knows no HTTP, and takes no module that it has not in itself.
    server = f"(http,{site.url.removeprefix('http://')})/httpboot"
    files = f"{'' if firmware == 'uefi-secure' else server}/boot"
    linux, initrd = f"linux {files}/vmlinuz {line}", f"initrd {files}/initrd"
    if again:
        linux, initrd = (f"until {command}; do echo once more; done" for command in (linux, initrd))
    entry = f"menuentry install {{\n  {linux}\n  {initrd}\n}}\n"
    system = {"targetos": "debian", "release": "12", "arch": "x86_64", "bootfile_suffix": "x64"}
    site.configure("PXEGrub2", mac, f"set timeout=0\nserial\nterminal_output serial\n{entry}", **system)
    loaders = {
        "uefi": "grub2/grubx64.efi",
        "uefi-http": f"{site.url}/httpboot/grub2/http/grubx64.efi",
        "uefi-secure": f"host-config/{mac.replace(':', '-')}/grub2/boot-sb.efi",
    }
    return site.reserve(mac, number, loaders[firmware])


def _script(mac: str) -> str:
    return f"pxelinux.cfg/01-{mac.replace(':', '-')}.ipxe"


def _paths(site: Site, token: str) -> list[str]:
    return [one.path.partition("?")[0] for one in site.asked_by(token)]


def _is_installed(site: Site, shown: str, ip: str, token: str) -> None:
    assert "installer: done" in shown, shown[-3000:]
    assert f"installer: has address {ip}" in shown
    last = site.asked_by(token)[-1]
    assert (last.method, last.path.partition("?")[0]) == ("POST", "/unattended/built")
    # Foreman finds a host by where it asks from, and is told so by whom it takes for a Smart Proxy.
    assert last.headers["x-forwarded-for"] == ip
