"""What a BMC provider promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from muster.kernel.errors import MusterError
from muster.kernel.secrets import Secret
from muster.policy.marks import change, query

Power = Literal["on", "off", "cycle", "soft", "reset"]
BootDevice = Literal["pxe", "disk", "bios", "cdrom"]
LanField = Literal["ip", "netmask", "mac", "gateway", "snmp", "vlanid", "ipsrc", "print"]
FruField = Literal["list", "serial", "manufacturer", "model", "asset_tag"]
ControllerField = Literal["info", "guid", "version"]
Reset = Literal["cold", "warm"]
Driver = Literal["lan", "lanplus"]
Privilege = Literal["CALLBACK", "USER", "OPERATOR", "ADMINISTRATOR"]


class NoCredentials(MusterError):
    """The call brings no user and password for the BMC."""

    status = 401


@dataclass(frozen=True)
class Device:
    """A BMC and who asks it. It shows neither user nor password.

    Attributes:
        host: a host name or an address, validated whole.
        driver: IPMI's: ``lan`` is 1.5, ``lanplus`` 2.0; None: the provider's own.
        privilege: IPMI's level to ask with; None: the provider's own.
    """

    host: str
    user: str = field(default="", repr=False)
    password: Secret = field(default_factory=lambda: Secret(""), repr=False)
    driver: Driver | None = None
    privilege: Privilege | None = None


class BMCProvider(Protocol):
    """One way to speak to the BMCs of machines: each call names the BMC and brings user and password.

    Every operation may raise

    * Rejected: the BMC refuses user and password, or what is asked of it; nothing was changed.
    * Unavailable: it did not answer, or not with what its protocol says; whether a change happened is unknown.
    * Unsupported: the provider, or this BMC, cannot do it, ever.

    Concurrency: any number of calls at once. Two that switch one machine at once are in nobody's order.

    Attributes:
        needs_credentials: whether a call without user and password is refused before anything is asked.
    """

    needs_credentials: ClassVar[bool]

    @query
    async def power(self, device: Device) -> str:
        """Return the state in lower case: ``on``, ``off``, and what else the BMC says (Redfish: ``poweringon``)."""

    @change(repeatable=False)
    async def switch(self, device: Device, action: Power) -> None:
        """Switch the machine.

        ``off`` and ``reset`` do not ask its system, ``soft`` does; ``cycle`` starts a machine that is off. To switch on what
        is on, and off what is off, is success. The BMC has taken the order on return; the machine may follow later.
        """

    @query
    async def identified(self, device: Device) -> str:
        """Return what the light that identifies the machine does: ``on``, ``off`` or ``blinking``."""

    @change(repeatable=True)
    async def identify(self, device: Device, *, lit: bool) -> None:
        """Light or darken it; by IPMI it goes out by itself after 255 seconds."""

    @change(repeatable=True)
    async def boot(self, device: Device, target: BootDevice, *, persistent: bool) -> None:
        """Have the machine boot from a device, once or from now on."""

    @query
    async def lan(self, device: Device, field: LanField) -> Any:
        """Return a fact of the BMC's own network interface; None where it has none. ``print``: all, as it names them."""

    @query
    async def fru(self, device: Device, field: FruField) -> Any:
        """Return a fact of what the machine is; None where the BMC does not say. ``list``: all, by part."""

    @query
    async def controller(self, device: Device, field: ControllerField) -> Any:
        """Return a fact of the BMC itself: a mapping for ``info``, else a text, or lines of one."""

    @change(repeatable=False)
    async def reset(self, device: Device, kind: Reset) -> None:
        """Start the BMC anew; the machine goes on."""

    @query
    async def sensors(self, device: Device) -> Mapping[str, Mapping[str, Any]]:
        """Return every sensor by name (lower case, underscores) with ``name``, ``value``, ``unit`` and ``status``."""
