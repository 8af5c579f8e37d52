"""A machine without a disk, by qemu: it boots from the network of a segment, and what it shows is kept. Needs root.

It computes everything (TCG), so it is the same with and without hardware for that. Its firmware is one of two: SeaBIOS,
whose network card brings iPXE; or OVMF, which is UEFI and has PXE of its own.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.namespaces import Host, tap

Firmware = Literal["ipxe", "uefi", "uefi-http", "uefi-secure"]

_QEMU = "qemu-system-x86_64"
_ROM = Path("/usr/lib/ipxe/qemu/pxe-virtio.rom")
_OVMF = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
_OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
# With Secure Boot on, and Microsoft's keys, as machines are sold.
_SECURE = Path("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")
_SECURE_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.ms.fd")
_MEMORY_MIB = 256
# Of each packet: what it asks for, and not what it brings.
_KEPT_BYTES = 600
_LONGEST_STOP_S = 10.0
# What terminals are told to do, and not to show.
_CONTROL = re.compile(r"\x1b(?:\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|c)|\r|\x00")
_numbers = itertools.count(1)


def missing() -> str | None:
    """Return why there are no such machines here."""
    if shutil.which(_QEMU) is None:
        return "no qemu for x86-64 on this machine (Debian package qemu-system-x86)"
    if not _ROM.exists():
        return "no iPXE for qemu's network cards (Debian package ipxe-qemu)"
    return None if _OVMF.exists() else "no UEFI for qemu (Debian package ovmf)"


@dataclass
class Machine:
    """One that was switched on. Use :func:`switched_on`.

    Attributes:
        console: what it showed, as it came.
        wire: the packets it sent and got, cut off, as tcpdump writes them.
    """

    firmware: Firmware
    mac: str
    console: Path
    wire: Path
    _process: subprocess.Popen[bytes] = field(repr=False)

    def shown(self) -> str:
        """What it has shown so far, without orders to a terminal."""
        return _CONTROL.sub("", self.console.read_text("utf-8", "replace"))

    @property
    def is_on(self) -> bool:
        return self._process.poll() is None

    def until(self, words: str, within_s: float) -> None:
        """Return when it has shown these words.

        Raises:
            AssertionError: it has not, or went off; with what it showed last.
        """
        limit = time.monotonic() + within_s
        while words not in self.shown():
            assert self.is_on, f"{self}: went off before it showed {words!r}"
            assert time.monotonic() < limit, f"{self}: not within {within_s:g} s: {words!r}"
            time.sleep(0.1)

    def until_off(self, within_s: float) -> str:
        """Return what it showed, when it has switched itself off.

        Raises:
            AssertionError: it has not.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        assert not self.is_on, f"{self}: still on after {within_s:g} s"
        return self.shown()

    def until_over(self, within_s: float, *words: str) -> str:
        """Return what it showed, when it is off, or has shown one of these words, with which boot loaders give up.

        Raises:
            AssertionError: it did neither.
        """
        limit = time.monotonic() + within_s
        while self.is_on and not any(word in self.shown() for word in words):
            assert time.monotonic() < limit, f"{self}: neither off nor at an end after {within_s:g} s"
            time.sleep(0.2)
        return self.shown()

    def switch_off(self) -> None:
        """Take its power away."""
        if self.is_on:
            self._process.terminate()
            try:
                self._process.wait(_LONGEST_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __str__(self) -> str:
        return f"machine {self.mac} ({self.firmware}), which showed at last:\n{self.shown()[-3000:]}\n"


@contextlib.contextmanager
def switched_on(
    firmware: Firmware, mac: str, at: Host, directory: Path, *, mbit_s: int | None = None
) -> Iterator[Machine]:
    """Yield a machine that begins to boot, on the segment of a host; it goes off with the block.

    Args:
        directory: where is kept what it showed and got.
        mbit_s: what it gets comes no faster; None: as fast as it can take it.
    """
    number = next(_numbers)
    directory.mkdir(parents=True, exist_ok=True)
    console = directory / f"console{number}.txt"
    console.touch()
    wire = directory / f"wire{number}.pcap"
    # Secure Boot's own part of the memory goes off beside what a kernel needs.
    memory = _MEMORY_MIB * (2 if firmware == "uefi-secure" else 1)
    with tap(at, mbit_s=mbit_s) as (switch, device):
        command = [
            *(
                "ip",
                "netns",
                "exec",
                switch,
                _QEMU,
                "-nodefaults",
                "-no-reboot",
                "-display",
                "none",
                "-monitor",
                "none",
            ),
            # Without graphics SeaBIOS, and so iPXE, shows on the serial line what it would on a screen.
            *(
                "-machine",
                f"q35,accel=tcg,graphics=off,smm={'on' if firmware == 'uefi-secure' else 'off'}",
                "-m",
                str(memory),
                "-smp",
                "1",
            ),
            *("-serial", f"file:{console}"),
            *("-netdev", f"tap,id=net,ifname={device},script=no,downscript=no,vnet_hdr=off"),
            *("-object", f"filter-dump,id=wire,netdev=net,maxlen={_KEPT_BYTES},file={wire}"),
            *_firmware(firmware, mac, directory / f"variables{number}.fd"),
        ]
        errors = directory / f"qemu{number}.log"
        with errors.open("wb") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment(), preexec_fn=end_with_parent,
            )  # fmt: skip
        machine = Machine(firmware, mac, console, wire, process)
        try:
            # So a bad argument is a sentence, and no machine that shows nothing.
            time.sleep(0.3)
            assert machine.is_on, f"qemu did not start: {errors.read_text('utf-8', 'replace')}"
            yield machine
        finally:
            machine.switch_off()


def _firmware(firmware: Firmware, mac: str, variables: Path) -> list[str]:
    # A card that is old-fashioned as well bears a number that this iPXE names only beside its own, and SeaBIOS reads one.
    card = f"virtio-net-pci,netdev=net,disable-legacy=on,mac={mac},bootindex=0"
    if firmware == "ipxe":
        return ["-device", f"{card},romfile={_ROM}"]
    is_secure = firmware == "uefi-secure"
    shutil.copyfile(_SECURE_VARIABLES if is_secure else _OVMF_VARIABLES, variables)
    # It would try HTTP after PXE; somebody has switched that off.
    no_pxe = [f"name=opt/org.tianocore/IPv{n}PXESupport,string=n" for n in (4, 6)] if firmware == "uefi-http" else []
    # Without the card's own, which is iPXE again: what is to be seen here is UEFI's.
    return [
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={_SECURE if is_secure else _OVMF}"),
        # Variables that anybody may write secure nothing.
        *(("-global", "driver=cfi.pflash01,property=secure,value=on") if is_secure else ()),
        *("-drive", f"if=pflash,format=raw,unit=1,file={variables}"),
        *("-device", f"{card},romfile="),
        *(part for one in no_pxe for part in ("-fw_cfg", one)),
    ]
