"""Host reservations as Kea keeps them, and Foreman's.

Kea names no reservation, and has one text for a host's name. Both of Foreman's names are kept all the same: what a member
makes carries its name as ``user-context: {"muster": {"name": …}}``, which Kea keeps as it is and gives no meaning. That
says, too, who made it, so that nobody removes over Foreman what an administrator has written.

Source: Kea Administrator Reference Manual, "Host Reservations in DHCPv4"; docs/facts/kea.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Any

from muster.features.dhcp import asked
from muster.features.dhcp.contract import Options, Reservation, Subnet, ordered, same
from muster.kernel.errors import Conflict, Rejected
from muster.kernel.names import MACAddress, shown

LONGEST_FILENAME = 127
"""Octets of a boot loader's name; Kea refuses a longer one, and the field of BOOTP ends with a zero."""
_MARK = "muster"
_IDENTIFIERS = ("hw-address", "duid", "circuit-id", "client-id", "flex-id")
_NO_ADDRESS = "0.0.0.0"


@dataclass(frozen=True)
class Host:
    """A reservation of Kea's, for whatever it knows a machine by.

    Attributes:
        subnet_id: Kea's number of the subnet; 0: of all.
        identifier: as ``client-id 01aabb``, for messages.
        mac: None: the machine is known by something else.
        ip: None: no address is reserved.
        name: Foreman's; else the hostname, else the identifier.
        removable: whether a member made it, or it stands in a database.
        in_database: whether it stands there.
    """

    subnet_id: int
    identifier: str
    mac: MACAddress | None
    ip: IPv4Address | None
    name: str
    removable: bool
    options: Options = field(default_factory=dict)
    in_database: bool = False

    def __str__(self) -> str:
        return f"{shown(self.name)} ({self.ip or 'no address'} / {shown(self.mac or self.identifier)})"

    def reservation(self, subnet: Subnet) -> Reservation | None:
        """Return what Foreman can be told; None: there is no address, or no hardware address."""
        if self.mac is None or self.ip is None or self.ip not in subnet.network:
            return None
        return Reservation(self.name, self.ip, self.mac, subnet, self.options, self.removable)


def host(one: Mapping[str, Any], subnet_id: int, *, in_database: bool = False) -> Host:
    """Return a reservation as Kea tells it.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    kind = next(k for k in (*_IDENTIFIERS, "") if not k or one.get(k))
    identifier = str(one[kind]) if kind else ""
    address = one.get("ip-address")
    ip = IPv4Address(address) if address and address != _NO_ADDRESS else None
    hostname, mark = str(one.get("hostname") or ""), _mark(one)
    options: dict[str, Any] = {"hardware_type": "ethernet"}
    if hostname:
        options["hostname"] = hostname
    if filename := one.get("boot-file-name"):
        options["filename"] = str(filename)
    if (server := one.get("next-server")) and server != _NO_ADDRESS:
        options["nextServer"] = str(server)
    name = (mark or {}).get("name") or hostname or identifier
    return Host(
        subnet_id,
        f"{kind or 'nothing'} {identifier}",
        mac(identifier) if kind == "hw-address" else None,
        ip,
        str(name),
        in_database or mark is not None,
        ordered(options),
        in_database,
    )


def mac(text: object) -> MACAddress | None:
    """Return a hardware address as Foreman knows them; None: it is none."""
    try:
        return asked.mac(str(text))
    except Rejected:
        return None


def _mark(one: Mapping[str, Any]) -> Mapping[str, Any] | None:
    context = one.get("user-context")
    mark = context.get(_MARK) if isinstance(context, dict) else None
    return mark if isinstance(mark, dict) else None


def written(reservation: Reservation) -> dict[str, Any]:
    """Return a reservation as Kea takes it."""
    options = reservation.options
    told = {
        "hw-address": str(reservation.mac),
        "ip-address": str(reservation.ip),
        "hostname": options.get("hostname"),
        "boot-file-name": options.get("filename"),
        "next-server": options.get("nextServer"),
    }
    return {
        **{name: value for name, value in told.items() if value},
        "user-context": {_MARK: {"name": reservation.name}},
    }


def kept(reservation: Reservation) -> Options:
    """Return the options that Kea keeps of a reservation's: no vendor's, no zero-touch provisioning.

    Raises:
        Rejected: the boot loader's name is too long.
    """
    found = {name: reservation.options.get(name) for name in ("hostname", "filename", "nextServer")}
    if len(str(found["filename"] or "")) > LONGEST_FILENAME:
        raise Rejected(f"Invalid filename: Kea keeps up to {LONGEST_FILENAME} characters")
    if found["nextServer"] == _NO_ADDRESS:
        del found["nextServer"]
    return ordered({"hardware_type": "ethernet", **found})


def is_there(
    wanted: Reservation, subnet_id: int, among: Iterable[Host], related: Collection[MACAddress], *, one_each: bool
) -> bool:
    """Whether a reservation is among those of a server already, as it is wanted.

    Args:
        wanted: as the server would keep it.
        subnet_id: the server's number of its subnet.
        among: at least those with its address, hardware address or name.
        related: who may have the same address.
        one_each: whether the server keeps one reservation an address.

    Raises:
        Conflict: another one has its address or hardware address.
        Rejected: another one has its name, or the server keeps no second one of the address.
    """
    others = list(among)
    # What counts for all subnets is found by Kea before whatever stands in one.
    own = [h for h in others if h.mac == wanted.mac and h.subnet_id in (subnet_id, 0)]
    for held in own:
        found = held.reservation(wanted.subnet)
        if found is not None and same(found, wanted):
            return True
    sharing = [h for h in others if h.ip == wanted.ip and h not in own]
    if clash := next((h for h in (*own, *sharing) if h in own or h.mac is None or h.mac not in related), None):
        raise Conflict(f"{wanted} conflicts with {clash}")
    if any(wanted.name.lower() == h.name.lower() for h in others):
        raise Rejected(f"Failed to add DHCP reservation for {wanted}: Entry already exists")
    if sharing and one_each:
        raise Rejected(
            f"Kea keeps one reservation of {wanted.ip}, and {sharing[0]} has it: set ip-reservations-unique to false in "
            "Kea's configuration for the ports of bonds"
        )
    return False
