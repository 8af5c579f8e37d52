"""What libvirt's definition of a network and its list of leases say, and a reservation as a part of a definition. Pure.

Source: libvirt's format of networks (formatnetwork), virsh(1) ``net-dhcp-leases``; seen with 9.0.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network
from typing import Any
from xml.etree import ElementTree

from muster.edge import virsh
from muster.features.dhcp import asked
from muster.features.dhcp.contract import Lease, Reservation, Subnet, ordered
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, MACAddress

_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = datetime(2038, 1, 19, 3, 14, 7, tzinfo=UTC)
_LEASE = re.compile(
    r"\s*(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\s+(\S{1,64})\s+ipv4\s+(\S{1,15})/\d{1,2}\s+(\S{1,255})(?:\s|\Z)"
)


@dataclass(frozen=True)
class Network:
    """A network as it is defined.

    Attributes:
        subnets: those that addresses are given in, mostly one.
        fixed: addresses of hosts that Foreman cannot be told of.
        own: the host's own addresses there.
    """

    subnets: Sequence[Subnet]
    reservations: Sequence[Reservation]
    fixed: frozenset[IPv4Address]
    own: frozenset[IPv4Address]


def defined(text: str) -> Network:
    """Return what a definition says.

    Raises:
        Unavailable: it is none.
    """
    root = virsh.definition(text)
    subnets: list[Subnet] = []
    reservations: list[Reservation] = []
    fixed: set[IPv4Address] = set()
    for one in root.iterfind("ip"):
        block = one.find("dhcp")
        network = _network(one)
        if block is None or network is None:
            continue
        subnet = Subnet(network, _sent(root, one, block))
        subnets.append(subnet)
        for host in block.iterfind("host"):
            told = _reservation(host, subnet)
            if told is not None:
                reservations.append(told)
            elif (ip := _address(host.get("ip"))) is not None:
                fixed.add(ip)
    own = (_address(one.get("address")) for one in root.iterfind("ip"))
    return Network(subnets, reservations, frozenset(fixed), frozenset(ip for ip in own if ip is not None))


def _network(one: ElementTree.Element) -> IPv4Network | None:
    mask = one.get("netmask") or one.get("prefix")
    try:
        return IPv4Network(f"{one.get('address')}/{mask}", strict=False)
    except ValueError:
        # Of IPv6.
        return None


def _sent(root: ElementTree.Element, one: ElementTree.Element, block: ElementTree.Element) -> dict[str, Any]:
    # libvirt's dnsmasq is the router of the network, unless it is an isolated one of nobody's.
    sent: dict[str, Any] = {"routers": [str(one.get("address"))]}
    if (domain := root.find("domain")) is not None and domain.get("name"):
        sent["domain_name"] = str(domain.get("name"))
    mtu = root.find("mtu")
    if mtu is not None and (size := mtu.get("size", "")).isascii() and size.isdigit() and len(size) <= 9:
        sent["interface_mtu"] = int(size)
    spans = block.findall("range")
    if spans:
        sent["range"] = [str(spans[-1].get("start")), str(spans[-1].get("end"))]
    return sent


def _reservation(host: ElementTree.Element, subnet: Subnet) -> Reservation | None:
    ip = _address(host.get("ip"))
    try:
        mac = asked.mac(host.get("mac"))
    except Rejected:
        return None
    if ip is None or ip not in subnet.network:
        return None
    name = host.get("name") or mac.replace(":", "-")
    return Reservation(name, ip, mac, subnet, ordered({"hostname": name, "hardware_type": "ethernet"}))


def leases(text: str, subnets: Sequence[Subnet], now: datetime) -> list[Lease]:
    """Return the leases of IPv4 in virsh's table, whose times are in UTC; what is no lease now is left out."""
    found: list[Lease] = []
    for line in text.splitlines():
        row = _LEASE.match(line)
        ip = _address(row[3]) if row is not None else None
        subnet = next((s for s in subnets if ip is not None and ip in s.network), None)
        if row is None or ip is None or subnet is None:
            continue
        try:
            ends, mac = datetime.fromisoformat(f"{row[1]}+00:00"), asked.mac(row[2])
        except (ValueError, Rejected):
            continue
        if ends == _BEGINNING or ends > _NEVER:
            ends = _NEVER
        if ends > now:
            options = {} if row[4] == "-" else {"client_hostname": row[4]}
            found.append(Lease(ip, mac, subnet, _BEGINNING, ends, options=options))
    return found


def host(reservation: Reservation) -> str:
    """Return the element of a reservation."""
    element = ElementTree.Element(
        "host",
        {"mac": str(reservation.mac), "name": str(FQDN.parse(reservation.name)), "ip": str(reservation.ip)},
    )
    return ElementTree.tostring(element, encoding="unicode")


def hardware(mac: MACAddress) -> None:
    """Return when libvirt keeps such a hardware address.

    Raises:
        Rejected: it does not.
    """
    if len(mac.split(":")) != 6:
        raise Rejected(f"libvirt keeps hardware addresses of 6 octets, not {mac}")


def _address(text: str | None) -> IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text or "")
    except ValueError:
        return None
