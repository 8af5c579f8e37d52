"""The records of a cluster: the address and its aliases, and what members and balancers have of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from muster.balancer.words import ip, word
from muster.cluster.file import ClusterFile
from muster.kernel.errors import Misconfigured

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Record:
    """One address record; ``reverse`` says whether its address leads back to this name: the address's never does."""

    name: str
    address: IPAddress
    reverse: bool

    @property
    def type(self) -> str:
        return "A" if self.address.version == 4 else "AAAA"


def zone(cluster: ClusterFile) -> str:
    """Return the zone of the address, without a dot at its end.

    Raises:
        Misconfigured: nobody said, and the address has no parent that could be one.
    """
    if cluster.network.dns_zone is not None:
        return word(str(cluster.network.dns_zone).lower())
    parent = str(cluster.address).lower().partition(".")[2]
    if "." not in parent:
        raise Misconfigured(f"{cluster.address} says no zone; network: {{dns_zone: ZONE}} does")
    return word(parent)


def records(cluster: ClusterFile) -> list[Record]:
    """Return every record that follows from the file, those of the address first.

    Raises:
        Misconfigured: nothing says to which IP address the name leads.
    """
    there = entrances(cluster)
    if not there:
        raise Misconfigured(
            "Nothing says to which IP address the cluster's name leads: a virtual_address, or balancers with IP addresses"
        )
    found = [Record(word(str(n).lower()), at, False) for n in cluster.names for at in there]
    for member in cluster.members:
        if (at := ip(member.address)) is not None:
            found.append(Record(word(str(member.name).lower()), at, True))
    return found


def entrances(cluster: ClusterFile) -> list[IPAddress]:
    """Return the IP addresses at which clients reach the services: the virtual one, else each balancer's."""
    if cluster.virtual_address is not None:
        return [ipaddress.ip_interface(cluster.virtual_address.address).ip]
    found = (ip(b.bind if b.bind != "*" else b.address) for b in cluster.balancers)
    return list(dict.fromkeys(at for at in found if at is not None))


def inside(name: str, of: str) -> bool:
    """Whether a name stands in a zone."""
    return name == of or name.endswith(f".{of}")


def split(cluster: ClusterFile) -> tuple[list[Record], list[Record]]:
    """Return the records of the zone, and those of others."""
    of = zone(cluster)
    found = records(cluster)
    return [r for r in found if inside(r.name, of)], [r for r in found if not inside(r.name, of)]


def remarks(others: list[Record]) -> Iterator[str]:
    """Return a line for each record that stands elsewhere."""
    for one in others:
        yield f"not in this zone: {one.name} {one.type} {one.address}"
