"""Reservations as they are written for dnsmasq, and back: one file of its hosts and one of its options for an address.

dnsmasq knows one line of an address; the second one it drops. So the ports of one bond stand in one line, and what Foreman
calls each of them in comments, which dnsmasq skips. Where a machine boots from it is told by options for a tag that only the
address' line sets.

Source: dnsmasq(8) of 2.90, ``dhcp-hostsdir``, ``dhcp-optsdir``, ``dhcp-optsfile``; docs/facts/content-and-boot.md §5.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from muster.features.dhcp.contract import Reservation
from muster.features.dhcp.dnsmasq.configuration import Host, host, lines, mac
from muster.kernel.errors import Rejected
from muster.kernel.names import FQDN, MACAddress, shown

TAG = "muster"
"""The tag of every host that is written here: an administrator's ``dhcp-boot=tag:!muster,…`` leaves those alone."""

_HEAD = "# Muster writes and removes this file."
_PORT = re.compile(r"# (\S{17}) (\S{1,253}) (\S{1,253})\Z")
# The field of the packet has 128 octets and ends with a zero; dnsmasq cuts what is longer.
_FILENAME = re.compile(r"[!$-+\--\[\]-~](?:[ !$-+\--\[\]-~]{0,125}[!$-+\--\[\]-~])?\Z")
# What a host's line takes for something else.
_NO_NAME = re.compile(r"(?:\d{1,253}[smhdw]?|infinite|deprecated|ignore)\Z", re.IGNORECASE)


@dataclass(frozen=True)
class Port:
    """A hardware address that has an address.

    Attributes:
        name: what Foreman calls the reservation.
        hostname: what it wants the machine to be told.
    """

    mac: MACAddress
    name: str
    hostname: str


@dataclass(frozen=True)
class Written:
    """What is written for an address.

    Attributes:
        ports: at least one; all are told the first one's host name.
        filename, next_server: None: none is told here.
    """

    ip: IPv4Address
    ports: Sequence[Port]
    filename: str | None = None
    next_server: IPv4Address | None = None

    @property
    def name(self) -> str:
        """The name of its files."""
        return str(self.ip)

    def hosts(self, *, is_tagged: bool) -> str:
        """Return its file of hosts."""
        tags = (f"set:{TAG}", f"set:{_tag(self.ip)}") if is_tagged else ()
        line = ",".join([*(str(p.mac) for p in self.ports), *tags, str(self.ip), self.ports[0].hostname])
        return "\n".join([_HEAD, *(f"# {p.mac} {p.name} {p.hostname}" for p in self.ports), line, ""])

    def options(self) -> str | None:
        """Return its file of options, None where it has none."""
        said = [f"tag:{_tag(self.ip)},option:bootfile-name,{self.filename}"] if self.filename is not None else []
        if self.next_server is not None:
            # dnsmasq's name of the packet's own field, which is no option.
            said.append(f"tag:{_tag(self.ip)},option:server-ip-address,{self.next_server}")
        return "\n".join([_HEAD, *said, ""]) if said else None


def of(reservation: Reservation, *, is_tagged: bool) -> Written:
    """Return what is written for a reservation, without what dnsmasq does not keep.

    ``is_tagged``: whether reservations say where machines boot from.

    Raises:
        Rejected: dnsmasq could not keep it as it is.
    """
    name = str(FQDN.parse(reservation.name))
    hostname = str(FQDN.parse(str(reservation.options.get("hostname", name))))
    if _NO_NAME.match(hostname) or _is_address(hostname):
        raise Rejected(f"dnsmasq would not take {shown(hostname)} for the name of a host")
    if len(reservation.mac.split(":")) != 6:
        raise Rejected(f"dnsmasq gives no address to {reservation.mac}: of a hardware address it keeps 6 octets")
    filename, next_server = reservation.options.get("filename"), reservation.options.get("nextServer")
    if not is_tagged:
        filename = next_server = None
    if filename is not None and not _FILENAME.match(str(filename)):
        raise Rejected(
            f"dnsmasq cannot tell a machine to boot {shown(filename)}: up to 127 printable ASCII characters are expected, "
            "no quotes, backslashes, commas or #, and no space at either end"
        )
    if next_server is not None and not _is_address(str(next_server)):
        raise Rejected(f"dnsmasq keeps no next server by its name: {shown(next_server)}")
    return Written(
        reservation.ip,
        (Port(reservation.mac, name, hostname),),
        None if filename is None else str(filename),
        None if next_server is None else IPv4Address(str(next_server)),
    )


def ports(content: str) -> tuple[Host, Sequence[Port]] | None:
    """Return what a file of ours says: its line, and its ports; None: it is none of ours."""
    if not content.startswith(_HEAD):
        return None
    said = [host(line) for line in lines(content)]
    if len(said) != 1 or said[0].ip is None or said[0].name is None:
        return None
    one = said[0]
    named = {mac(m[1]): (m[2], m[3]) for line in content.splitlines() if (m := _PORT.match(line)) is not None}
    return one, tuple(Port(m, *named.get(m, (str(one.name), str(one.name)))) for m in one.macs)


def _tag(ip: IPv4Address) -> str:
    return f"{TAG}-{int(ip):08x}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return True
