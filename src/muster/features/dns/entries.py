"""Host entries in the definition of a libvirt network: an address and its names, which its dnsmasq tells both ways. Pure.

Source: libvirt's format of networks (formatnetwork), ``<dns><host ip=…><hostname>``; seen with 9.0.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from xml.etree import ElementTree

from muster.edge import virsh
from muster.features.dns.contract import Data, RecordType
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, ServiceName, shown

Address = IPv4Address | IPv6Address
_OF_VERSION = {4: RecordType.A, 6: RecordType.AAAA}


@dataclass(frozen=True)
class Entry:
    """An address and its names, at least one; the first is what its reverse name points to."""

    ip: Address
    names: tuple[FQDN, ...]

    def gives(self, name: str, kind: RecordType) -> Data | None:
        """Return what it says of a name in records of a type, None when nothing."""
        if kind is RecordType.PTR:
            return self.names[0] if self.ip.reverse_pointer == name.lower() else None
        return self.ip if _OF_VERSION[self.ip.version] is kind and name in self.names else None


@dataclass(frozen=True)
class Entries:
    """What a definition has.

    Attributes:
        are_told: whether the network's dnsmasq answers DNS at all.
    """

    all: Sequence[Entry]
    are_told: bool

    def of(self, name: str, kind: RecordType) -> Sequence[Entry]:
        """Return the entries that give a name records of a type."""
        return [one for one in self.all if one.gives(name, kind) is not None]

    def at(self, ip: Address) -> Entry | None:
        """Return the entry of an address; libvirt keeps one at most."""
        return next((one for one in self.all if one.ip == ip), None)


def defined(text: str) -> Entries:
    """Return what a definition says; an entry without an address or a name is left out.

    Raises:
        Unavailable: it is none.
    """
    found: list[Entry] = []
    dns = virsh.definition(text).find("dns")
    for host in () if dns is None else dns.iterfind("host"):
        # Names need not be those of hosts: they are compared and shown, never sent on.
        names = tuple(FQDN(name) for one in host.iterfind("hostname") if (name := (one.text or "").strip(" .")))
        try:
            ip = ipaddress.ip_address(host.get("ip") or "")
        except ValueError:
            continue
        if names:
            found.append(Entry(ip, names))
    return Entries(found, dns is None or dns.get("enable") != "no")


def element(ip: Address, name: FQDN | None = None) -> str:
    """Return the element of an entry: with its one name, as it is made, or by its address alone, as it is removed.

    With a name libvirt would remove by that, too, and refuse where the name has another address.
    """
    host = ElementTree.Element("host", {"ip": str(ip)})
    if name is not None:
        ElementTree.SubElement(host, "hostname").text = str(FQDN.parse(name.lower()))
    return ElementTree.tostring(host, encoding="unicode")


def address(reverse: FQDN | ServiceName) -> Address:
    """Return the address of a reverse name.

    Raises:
        Rejected: it is of a whole network, or of none.
    """
    labels = reverse.lower().split(".")
    digits, top = labels[-3::-1], labels[-2:]
    try:
        if top == ["in-addr", "arpa"]:
            found: Address = IPv4Address(".".join(digits))
        else:
            found = IPv6Address(int("".join(digits), 16))
    except ValueError:
        found = IPv6Address(0)
    if found.reverse_pointer != reverse.lower():
        raise Rejected(f"{shown(str(reverse))} is the reverse name of no address")
    return found
