"""Machines in a dictionary: the contract without a BMC. It can be told to fail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from muster.features.bmc.contract import BootDevice, ControllerField, Device, FruField, LanField, Power, Reset
from muster.kernel.errors import MusterError


@dataclass
class Machine:
    """One machine; it is off when somebody asks for the first time."""

    power: str = "off"
    identified: str = "off"
    boot: tuple[BootDevice, bool] | None = None
    resets: int = 0


class MemoryBMC:
    """Keeps machines by host until the process ends. One event loop.

    Attributes:
        failure: raised by every operation while set.
    """

    needs_credentials: ClassVar[bool] = True

    def __init__(self) -> None:
        self.machines: dict[str, Machine] = {}
        self.failure: MusterError | None = None

    async def power(self, device: Device) -> str:
        return self._of(device).power

    async def switch(self, device: Device, action: Power) -> None:
        self._of(device).power = "off" if action in ("off", "soft") else "on"

    async def identified(self, device: Device) -> str:
        return self._of(device).identified

    async def identify(self, device: Device, *, lit: bool) -> None:
        self._of(device).identified = "on" if lit else "off"

    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:
        self._of(device).boot = (target, persistent)

    async def lan(self, device: Device, field: LanField) -> Any:
        self._of(device)
        known = {"ip": device.host, "ipsrc": "static"}
        return known if field == "print" else known.get(field)

    async def fru(self, device: Device, field: FruField) -> Any:
        self._of(device)
        known = {"manufacturer": "Muster", "model": "memory", "serial": "1"}
        return {"machine": known} if field == "list" else known.get(field)

    async def controller(self, device: Device, field: ControllerField) -> Any:
        self._of(device)
        return {"Device ID": "1"} if field == "info" else "1"

    async def reset(self, device: Device, kind: Reset) -> None:  # noqa: ARG002
        self._of(device).resets += 1

    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:
        is_on = self._of(device).power == "on"
        return {
            "fan_1": {"name": "fan_1", "value": "4000" if is_on else "0", "unit": "RPM", "status": "ok"},
            "inlet_temp": {"name": "inlet_temp", "value": "21", "unit": "degrees C", "status": "ok"},
        }

    def _of(self, device: Device) -> Machine:
        if self.failure is not None:
            raise self.failure
        return self.machines.setdefault(device.host, Machine())
