"""IPMI by FreeIPMI's programs, one process a call: no shell; user and password in a file that nobody else may read.

Source: docs/facts/smart-proxy-protocol.md §13; freeipmi.conf(5) for the configuration's form.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from muster.features.bmc import shapes
from muster.features.bmc.contract import BootDevice, ControllerField, Device, FruField, LanField, Power, Reset
from muster.features.bmc.providers.ipmitool import LONGEST_S, PATH
from muster.features.bmc.settings import IPMISettings
from muster.kernel import process
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable, Unsupported
from muster.kernel.names import in_url, shown
from muster.kernel.process import Finished

_BOOT = {"pxe": "PXE", "disk": "HARD-DRIVE", "cdrom": "CD-DVD", "bios": "BIOS-SETUP"}
_LAN = {
    "ip": "ip_address", "netmask": "subnet_mask", "mac": "mac_address", "gateway": "default_gateway_ip_address",
    "vlanid": "vlan_id",
}  # fmt: skip
# FreeIPMI's labels of what ipmitool calls otherwise.
_FRU = {
    "fru_product_manufacturer_name": "product_manufacturer",
    "fru_product_name": "product_name",
    "fru_product_serial_number": "product_serial",
    "fru_product_asset_tag": "product_asset_tag",
    "fru_board_manufacturer": "board_mfg",
    "fru_board_product_name": "board_product",
    "fru_board_serial_number": "board_serial",
    "fru_chassis_serial_number": "chassis_serial",
}
_LEVELS = {"CALLBACK": "CALLBACK", "USER": "USER", "OPERATOR": "OPERATOR", "ADMINISTRATOR": "ADMIN"}
# What some BMCs want of RMCP+, and FreeIPMI does when it is told to; nothing has been asked of the machine by then.
_OTHER_WAY, _ASKS_FOR_IT = "opensesspriv", "privilege level cannot be obtained"
_SAYS: tuple[tuple[tuple[str, ...], type[MusterError], str], ...] = (
    (("timeout", "unreachable", "not resolve", "invalid hostname"), Unavailable, "did not answer"),
    (("password invalid", "username invalid", _ASKS_FOR_IT, "privilege level insufficient"), Rejected, "refuses us"),
    (("unsupported", "unavailable for this"), Unsupported, "cannot do this"),
)


class FreeIPMIBMC:
    """Asks with ``ipmipower``, ``ipmi-chassis`` and their like."""

    needs_credentials: ClassVar[bool] = True

    def __init__(self, settings: IPMISettings) -> None:
        self._settings = settings

    async def power(self, device: Device) -> str:
        said = (await self._ask(device, "ipmipower", "--stat")).rpartition(":")[2].strip().lower()
        if said not in ("on", "off"):
            raise Unavailable(f"ipmipower does not say whether {device.host} is on: {shown(said)}")
        return said

    async def switch(self, device: Device, action: Power) -> None:
        if action == "cycle" and await self.power(device) == "off":
            action = "on"
        await self._ask(device, "ipmipower", f"--{action}")

    async def identified(self, device: Device) -> str:  # noqa: ARG002
        raise Unsupported("FreeIPMI cannot ask whether the light is on")

    async def identify(self, device: Device, *, lit: bool) -> None:
        await self._ask(device, "ipmi-chassis", f"--chassis-identify={'255' if lit else 'TURN-OFF'}")

    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:
        pairs = {"Boot_Device": _BOOT[target], "Boot_Flags_Persistent": "Yes" if persistent else "No"}
        await self._ask(
            device, "ipmi-config", "--category=chassis", "--commit",
            *(f"--key-pair=Chassis_Boot_Flags:{name}={value}" for name, value in pairs.items()),
        )  # fmt: skip

    async def lan(self, device: Device, field: LanField) -> Any:
        if field == "snmp":
            raise Unsupported("FreeIPMI does not tell the SNMP community among a BMC's network settings")
        # What the section leaves out of itself has to be named.
        vlan = ("--key-pair=Lan_Conf:Vlan_id", "--key-pair=Lan_Conf:Vlan_Id_Enable")
        what = vlan if field == "vlanid" else ("--section=Lan_Conf",)
        said = await self._ask(device, "ipmi-config", "--category=core", "--checkout", *what)
        rows = (line.split(None, 1) for line in said.splitlines() if line.startswith("\t") and "#" not in line)
        found = {shapes.key(row[0]): row[1].strip() for row in rows if len(row) == 2}
        if field == "print":
            return found
        if field == "ipsrc":
            return "dhcp" if "dhcp" in found.get("ip_address_source", "").lower() else "static"
        if field == "vlanid" and found.get("vlan_id_enable") != "Yes":
            return None
        return found.get(_LAN[field])

    async def fru(self, device: Device, field: FruField) -> Any:
        found = shapes.frus(await self._ask(device, "ipmi-fru", reads_sdr=True), "FRU Inventory Device", _FRU)
        return shapes.of_frus(found, field)

    async def controller(self, device: Device, field: ControllerField) -> Any:
        if field == "info":
            return shapes.info(await self._ask(device, "bmc-info", "--get-device-id"))
        if field == "guid":
            return (await self._ask(device, "bmc-info", "--get-system-guid")).strip()
        # Ruby's answer is the tool's version, too.
        done = await process.run([_program("ipmipower"), "--version"], timeout_s=LONGEST_S)
        return next(iter(done.stdout.splitlines()), "").rpartition(" ")[2] or None

    async def reset(self, device: Device, kind: Reset) -> None:
        await self._ask(device, "bmc-device", f"--{kind}-reset")

    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:
        said = await self._ask(device, "ipmi-sensors", "--no-header-output", reads_sdr=True)
        found = {}
        for row in ([c.strip() for c in line.split("|")] for line in said.splitlines()):
            if len(row) == 6:
                _, name, kind, value, unit, status = (None if c in ("", "N/A") else c for c in row)
                name = shapes.key(name or "")
                found[name] = {"name": name, "type": kind, "value": value, "unit": unit, "status": status}
        return found

    async def _ask(self, device: Device, program: str, *words: str, reads_sdr: bool = False) -> str:
        """Run one program and return its output; the only place where its failures are translated.

        Raises:
            Rejected, Unavailable, Unsupported: as the contract says.
        """
        if reads_sdr:
            # Programs keep what a BMC has of sensors in the account's home, by name alone, and ask no more.
            with tempfile.TemporaryDirectory(prefix="muster-bmc-") as kept:
                cache = ("--quiet-cache", f"--sdr-cache-directory={kept}")
                return await self._ask(device, program, *words, *cache)
        done = await self._run(device, program, *words)
        if done.status != 0 and _ASKS_FOR_IT in done.stderr + done.stdout:
            done = await self._run(device, program, *words, f"--workaround-flags={_OTHER_WAY}")
        if done.status == 0:
            return done.stdout
        lines = [
            line for line in (done.stderr + done.stdout).splitlines() if line.strip() and not line.startswith("#")
        ] or ["it says nothing"]
        said = lines[0].rpartition(": ")[2]
        for texts, kind, what in _SAYS:
            if any(text in said for text in texts):
                raise kind(f"The BMC {device.host} {what}: {program} says {shown(said, 200)}")
        raise Rejected(f"{program} failed for the BMC {device.host}: {shown(said, 200)}")

    async def _run(self, device: Device, program: str, *words: str) -> Finished:
        driver = "LAN" if device.driver == "lan" else "LAN_2_0"
        suite = () if device.driver == "lan" else (f"--cipher-suite-id={self._settings.cipher_suite}",)
        level = (f"--privilege-level={_LEVELS[device.privilege]}",) if device.privilege else ()
        to = (f"--hostname={in_url(device.host)}:{self._settings.port}", f"--driver-type={driver}", *suite, *level)
        # A file, for what a process of ours has as its input may be a socket, which cannot be opened by a name.
        with tempfile.TemporaryDirectory(prefix="muster-bmc-") as place:
            file = Path(place) / "freeipmi.conf"
            file.touch(mode=0o600)
            file.write_text(configuration(device), "utf-8")
            arguments = [_program(program), *to, f"--config-file={file}", *words]
            return await process.run(arguments, timeout_s=LONGEST_S)


def configuration(device: Device) -> str:
    """Return the configuration that names user and password.

    Within quotes a number sign, a quote and a backslash stand behind a backslash.
    """
    return f"username {_quoted(device.user)}\npassword {_quoted(device.password.reveal())}\n"


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\{c}" if c in '\\"#' else c for c in text) + '"'


def _program(name: str) -> str:
    return shutil.which(name, path=PATH) or name


def found(settings: IPMISettings) -> FreeIPMIBMC:
    """Return the provider.

    Raises:
        Misconfigured: its programs are not on this host.
    """
    if shutil.which("ipmipower", path=PATH) is None:
        raise Misconfigured("no ipmipower on this host (package freeipmi-tools)")
    return FreeIPMIBMC(settings)
