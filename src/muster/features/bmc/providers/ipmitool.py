"""IPMI by Debian's ``ipmitool``, one process a call: no shell, the password in its environment alone.

Source: docs/facts/smart-proxy-protocol.md §13; docs/facts/content-and-boot.md says why the cipher suite is named.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from typing import Any, ClassVar

from muster.features.bmc import shapes
from muster.features.bmc.contract import BootDevice, ControllerField, Device, FruField, LanField, Power, Reset
from muster.features.bmc.settings import IPMISettings
from muster.kernel import process
from muster.kernel.errors import Misconfigured, Rejected, Unavailable, Unsupported
from muster.kernel.names import shown

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Deadlines end a call sooner; this is for a tool that heeds none.
LONGEST_S = 600.0
_LAN = {
    "ip": "ip_address", "netmask": "subnet_mask", "mac": "mac_address", "gateway": "default_gateway_ip",
    "snmp": "snmp_community_string", "vlanid": "8021q_vlan_id",
}  # fmt: skip
_NO_SESSION = "Unable to establish"


class IPMIToolBMC:
    """Asks with ``ipmitool``."""

    needs_credentials: ClassVar[bool] = True

    def __init__(self, program: str, settings: IPMISettings) -> None:
        self._program = program
        self._settings = settings

    async def power(self, device: Device) -> str:
        said = (await self._ask(device, "power", "status")).lower().split()
        for word in said:
            if word in ("on", "off"):
                return word
        raise Unavailable(f"ipmitool does not say whether {device.host} is on: {shown(' '.join(said))}")

    async def switch(self, device: Device, action: Power) -> None:
        # A chassis that is off has nothing to cycle, and many BMCs refuse it.
        if action == "cycle" and await self.power(device) == "off":
            action = "on"
        await self._ask(device, "power", action)

    async def identified(self, device: Device) -> str:  # noqa: ARG002
        raise Unsupported("ipmitool cannot ask whether the light is on")

    async def identify(self, device: Device, *, lit: bool) -> None:
        await self._ask(device, "chassis", "identify", "255" if lit else "0")

    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:
        if persistent:
            await self._ask(device, "chassis", "bootdev", target, "options=persistent")
        else:
            await self._ask(device, "chassis", "bootparam", "set", "bootflag", f"force_{target}")

    async def lan(self, device: Device, field: LanField) -> Any:
        found = shapes.lan(await self._ask(device, "lan", "print"))
        if field == "print":
            return found
        if field == "ipsrc":
            return "dhcp" if "dhcp" in found.get("ip_address_source", "").lower() else "static"
        value = found.get(_LAN[field])
        return None if field == "vlanid" and value == "Disabled" else value

    async def fru(self, device: Device, field: FruField) -> Any:
        return shapes.of_frus(shapes.frus(await self._ask(device, "fru"), "FRU Device Description"), field)

    async def controller(self, device: Device, field: ControllerField) -> Any:
        if field == "info":
            return shapes.info(await self._ask(device, "bmc", "info"))
        if field == "guid":
            return (await self._ask(device, "bmc", "guid")).splitlines(keepends=True)
        # Ruby's answer is the tool's version, too.
        done = await process.run([self._program, "-V"], timeout_s=LONGEST_S)
        return done.stdout.split()[-1] if done.stdout.split() else None

    async def reset(self, device: Device, kind: Reset) -> None:
        await self._ask(device, "bmc", "reset", kind)

    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:
        return shapes.sensors(await self._ask(device, "sensor"))

    async def _ask(self, device: Device, *words: str) -> str:
        """Run one command and return its output; the only place where its failures are translated.

        Raises:
            Rejected, Unavailable: as the contract says.
        """
        driver = device.driver or "lanplus"
        suite = ("-C", str(self._settings.cipher_suite)) if driver == "lanplus" else ()
        level = ("-L", device.privilege) if device.privilege else ()
        to = ("-I", driver, "-H", device.host, "-p", str(self._settings.port), "-U", device.user, "-E", *suite, *level)
        done = await process.run(
            [self._program, *to, *words],
            timeout_s=LONGEST_S,
            environment={"IPMITOOL_PASSWORD": device.password.reveal()},
        )
        if done.status == 0:
            return done.stdout
        lines = [line for line in done.stderr.splitlines() if line.strip()] or done.stdout.splitlines() or [""]
        if any(_NO_SESSION in line for line in lines):
            raise Unavailable(
                f"The BMC {device.host} made no session with ipmitool (cipher suite {self._settings.cipher_suite}): it does "
                "not answer, or refuses the user, the password or the suite; nothing was changed"
            )
        raise Rejected(f"ipmitool {' '.join(words)} failed for the BMC {device.host}: {shown(lines[-1], 200)}")


def found(settings: IPMISettings) -> IPMIToolBMC:
    """Return the provider.

    Raises:
        Misconfigured: the program is not on this host.
    """
    program = shutil.which("ipmitool", path=PATH)
    if program is None:
        raise Misconfigured("no ipmitool on this host (package ipmitool)")
    return IPMIToolBMC(program, settings)
