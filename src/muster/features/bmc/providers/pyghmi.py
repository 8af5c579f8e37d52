"""IPMI 2.0 by the library pyghmi, one process of ours a call.

In a process, for the library has one loop for all sessions of a process, which a thread that waits cannot leave: a call ends
with its deadline, and what a session knew of user and password ends with it.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from muster.features.bmc import shapes
from muster.features.bmc.contract import BootDevice, ControllerField, Device, FruField, LanField, Power, Reset
from muster.features.bmc.providers.ipmitool import LONGEST_S
from muster.features.bmc.settings import BMCSettings
from muster.kernel import process
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable, Unsupported
from muster.kernel.names import shown

_CALLS = Path(__file__).with_name("pyghmi_calls.py")
_LEVELS = {"CALLBACK": 1, "USER": 2, "OPERATOR": 3, "ADMINISTRATOR": 4}
_KINDS: Mapping[str, type[MusterError]] = {"rejected": Rejected, "unavailable": Unavailable, "unsupported": Unsupported}
_LAN = {"ip": "ipv4_address", "mac": "mac_address", "gateway": "ipv4_gateway", "vlanid": "vlan_id"}


class PyghmiBMC:
    """Asks with pyghmi, which speaks IPMI 2.0 with the cipher suites 3 and 17, whichever the BMC has."""

    needs_credentials: ClassVar[bool] = True

    def __init__(self, port: int) -> None:
        self._port = port

    async def power(self, device: Device) -> str:
        return str(await self._ask(device, "power"))

    async def switch(self, device: Device, action: Power) -> None:
        await self._ask(device, "switch", action)

    async def identified(self, device: Device) -> str:
        return str(await self._ask(device, "identified"))

    async def identify(self, device: Device, *, lit: bool) -> None:
        await self._ask(device, "identify", lit)

    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:
        await self._ask(device, "boot", target, persistent)

    async def lan(self, device: Device, field: LanField) -> Any:
        if field == "snmp":
            return await self._ask(device, "community")
        found: dict[str, Any] = await self._ask(device, "lan")
        address, _, prefix = (found.get("ipv4_address") or "").partition("/")
        found |= {"ipv4_address": address or None, "netmask": _netmask(prefix)}
        if field == "print":
            return found
        if field == "ipsrc":
            return "dhcp" if "dhcp" in str(found.get("ipv4_configuration")).lower() else "static"
        return found.get(_LAN.get(field, field))

    async def fru(self, device: Device, field: FruField) -> Any:
        return shapes.of_frus(await self._ask(device, "fru"), field)

    async def controller(self, device: Device, field: ControllerField) -> Any:
        return await self._ask(device, field)

    async def reset(self, device: Device, kind: Reset) -> None:
        await self._ask(device, "reset", kind)

    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:
        rows: list[dict[str, Any]] = await self._ask(device, "sensors")
        return {shapes.key(row["name"]): {**row, "name": shapes.key(row["name"])} for row in rows}

    async def _ask(self, device: Device, call: str, *arguments: Any) -> Any:
        """Make one call and return what it found; the only place where its failures are translated.

        Raises:
            Rejected, Unavailable, Unsupported: as the contract says.
        """
        if device.driver == "lan":
            raise Unsupported("Provider pyghmi speaks IPMI 2.0 alone")
        asked = {
            "host": device.host, "port": self._port, "user": device.user, "password": device.password.reveal(),
            "level": _LEVELS[device.privilege] if device.privilege else None, "call": call, "arguments": arguments,
        }  # fmt: skip
        # -P: nothing of the directory that this process happens to run in is taken for a library.
        try:
            done = await process.run(
                [sys.executable, "-P", _CALLS], timeout_s=LONGEST_S, stdin=json.dumps(asked).encode()
            )
        except OSError as e:
            raise Unavailable(f"A process for pyghmi ended before it was told what to ask: {e.strerror}") from e
        try:
            said = json.loads(done.stdout)
        except ValueError:
            last = (done.stderr.strip().splitlines() or [f"status {done.status}"])[-1]
            raise Unavailable(f"pyghmi broke off a call to the BMC {device.host}: {shown(last, 200)}") from None
        if "found" in said:
            return said["found"]
        raise _KINDS[said["kind"]](f"The BMC {device.host} {shown(said['text'], 200)}")


def _netmask(prefix: str) -> str | None:
    if not prefix.isdigit() or int(prefix) > 32:
        return None
    bits = (0xFFFFFFFF << (32 - int(prefix))) & 0xFFFFFFFF
    return ".".join(str(bits >> shift & 0xFF) for shift in (24, 16, 8, 0))


def found(settings: BMCSettings) -> PyghmiBMC:
    """Return the provider.

    Raises:
        Misconfigured: the library is not installed.
    """
    if importlib.util.find_spec("pyghmi") is None:
        raise Misconfigured("no pyghmi on this host: packaging/requirements-bmc.txt has it (packaging/README.md)")
    return PyghmiBMC(settings.ipmi.port)
