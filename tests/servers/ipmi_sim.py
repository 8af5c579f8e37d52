"""A real BMC as software: Debian's ``ipmi_sim``, with a power switch, a boot device, sensors and an inventory."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent
from tests.servers.ending import ended

USER, PASSWORD = "admin", r"se$;'&#!%\x"
"""A password of which most characters mean something to somebody."""
_LONGEST_START_S = 20.0
# What the simulator asks of the machine: KEYWORDS after "get"; KEYWORD VALUE pairs after "set".
_CHASSIS = """\
#!/bin/sh
cd {directory} || exit 1
shift
case $1 in
get) shift; for word in "$@"; do echo "$word:$(cat $word 2>/dev/null || echo 0)"; done ;;
set) shift
  echo "$*" >>orders
  while [ $# -gt 1 ]; do
    case $1 in power|boot) echo "$2" >$1 ;; shutdown) echo 0 >power ;; esac
    shift 2
  done ;;
esac
"""


@dataclass
class IPMISim:
    """A running simulator. Use :func:`running`."""

    directory: Path
    address: str
    port: int
    password: str
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def is_on(self) -> bool:
        return (self.directory / "power").read_text().strip() == "1"

    @property
    def boots_from(self) -> str:
        return (self.directory / "boot").read_text().strip()

    @property
    def orders(self) -> list[str]:
        """What the machine was told, in order."""
        path = self.directory / "orders"
        return path.read_text().splitlines() if path.exists() else []

    def start(self) -> None:
        """Start it and return when it has answered ``ipmitool``."""
        with (self.directory / "log").open("ab") as log:
            # It ends when its standard input does, so it gets one that nobody closes.
            self._process = subprocess.Popen(
                [
                    "ipmi_sim",
                    "-c",
                    self.directory / "lan.conf",
                    "-f",
                    self.directory / "sim.emu",
                    "-s",
                    self.directory / "state",
                    "-n",
                ],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent,
                env=clean_environment(),
            )
        end = time.monotonic() + _LONGEST_START_S
        while (said := self._asked()) is None:
            assert time.monotonic() < end, (self.directory / "log").read_text()
            time.sleep(0.1)
        assert "Chassis Power" in said

    def _asked(self) -> str | None:
        where = ["-H", self.address, "-p", str(self.port), "-C", "3", "-N", "1", "-R", "1"]
        done = subprocess.run(
            ["ipmitool", "-I", "lanplus", *where, "-U", USER, "-E", "power", "status"],
            env=clean_environment({"IPMITOOL_PASSWORD": self.password}),
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return done.stdout if done.returncode == 0 else None

    def stop(self) -> None:
        ended(self._process)
        self._process = None


@contextlib.contextmanager
def running(
    directory: Path, *, port: int, address: str = "127.0.7.10", password: str = PASSWORD, is_bare: bool = False
) -> Iterator[IPMISim]:
    """Run one until the block ends; its machine is on. ``is_bare``: it has neither sensors nor an inventory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "state").mkdir(exist_ok=True)
    (directory / "power").write_text("1\n")
    (directory / "boot").write_text("none\n")
    script = directory / "chassis"
    script.write_text(_CHASSIS.format(directory=directory))
    script.chmod(0o755)
    kinds = "\n".join(
        f"    allowed_auths_{level} none md2 md5 straight" for level in ("callback", "user", "operator", "admin")
    )
    (directory / "lan.conf").write_text(
        f'name "muster"\nset_working_mc 0x20\n  startlan 1\n    addr {address} {port}\n    priv_limit admin\n{kinds}\n'
        f"    guid a123456789abcdefa123456789abcdef\n  endlan\n"
        f'  chassis_control "{script} 0x20"\n'
        f'  user 1 true "" "test" user 10 none md2 md5 straight\n'
        f'  user 2 true "{USER}" "{password}" admin 10 none md2 md5 straight\n'
    )
    (directory / "sim.emu").write_text(_controller(is_bare))
    simulator = IPMISim(directory, address, port, password)
    try:
        simulator.start()
        yield simulator
    finally:
        simulator.stop()


def _controller(is_bare: bool) -> str:
    inventory = _inventory()
    lines = [
        "mc_setbmc 0x20",
        "mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr",
        "sel_enable 0x20 1000 0x0a",
    ]
    if is_bare:
        return "\n".join([*lines, "mc_enable 0x20", ""])
    lines = [
        *lines,
        f"mc_add_fru_data 0x20 0 {len(inventory)} data {_hex(inventory)}",
    ]
    for number, kind, unit, name, value in ((1, 1, 1, "Inlet Temp", 23), (2, 4, 0x12, "FAN 1", 120)):
        lines += [
            f"sensor_add 0x20 0 {number} {kind} 1",
            f"sensor_set_value 0x20 0 {number} {value} 0",
            f"sensor_set_event_support 0x20 0 {number} enable scanning none "
            f"{'0' * 15} {'0' * 15} {'0' * 15} {'0' * 15}",
            f"main_sdr_add 0x20 {_hex(_sensor_record(number, kind, unit, name))}",
        ]
    return "\n".join([*lines, "mc_enable 0x20", ""])


def _hex(octets: bytes) -> str:
    return " ".join(f"0x{one:02x}" for one in octets)


def _sensor_record(number: int, kind: int, unit: int, name: str) -> bytes:
    """IPMI 2.0, SDR type 01h: a full sensor record, whose readings are what they count."""
    body = [0x20, 0, number, 7, 1, 0x7F, 0x68, kind, 1, *[0] * 7, unit, 0, 0, 1, *[0] * 9, 255, *[0] * 12]
    body += [0xC0 | len(name), *name.encode()]
    return bytes([0, 0, 0x51, 1, len(body), *body])


def _inventory() -> bytes:
    """An inventory with a product area (IPMI Platform Management FRU Information Storage Definition)."""
    texts = ("Contoso", "RX 10", "PN1", "1.0", "SN4711", "AT42", "")
    area = bytearray([1, 0, 25])
    for text in texts:
        area += bytes([0xC0 | len(text)]) + text.encode()
    area.append(0xC1)
    area += bytes(-(len(area) + 1) % 8)
    area[1] = (len(area) + 1) // 8
    area.append(-sum(area) & 255)
    head = bytearray([1, 0, 0, 0, 1, 0, 0])
    head.append(-sum(head) & 255)
    return bytes(head + area)
