"""The records of a cluster: the address and its aliases, and what members and balancers have of their own."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from muster.balancer.words import address, ip, word
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
        Misconfigured: nothing says to which IP address the name leads, or of one balancer nothing does.
    """
    there = entrances(cluster)
    if not there:
        raise Misconfigured(
            "Nothing says to which IP address the cluster's name leads: a virtual_address, or balancers with IP addresses"
        )
    found = [Record(word(str(n).lower()), at, False) for n in cluster.names for at in there]
    for member in cluster.members:
        if (at := _recorded(member.address)) is not None:
            found.append(Record(word(str(member.name).lower()), at, True))
    return found


def entrances(cluster: ClusterFile) -> list[IPAddress]:
    """Return the IP addresses at which clients reach the services: the virtual one, else each balancer's.

    Raises:
        Misconfigured: one balancer has none that a record could hold; without it the records would lead past that one.
    """
    if cluster.virtual_address is not None:
        return [ipaddress.ip_interface(cluster.virtual_address.address).ip]
    found = []
    for balancer in cluster.balancers:
        bound = ip(balancer.bind)
        wide = balancer.bind == "*" or (bound is not None and bound.is_unspecified)
        said = balancer.address if wide else balancer.bind
        if (at := _recorded(said)) is None:
            raise Misconfigured(
                f"The cluster's name would not lead to balancer {balancer.name}: {said} is nothing that a record holds; "
                "write its IP address, or a virtual_address"
            )
        found.append(at)
    return list(dict.fromkeys(found))


def _recorded(text: str) -> IPAddress | None:
    """Return the address as a record may hold it; None of a name, and of what is an address on one link alone."""
    found = ip(text)
    return None if found is None or found.is_link_local or found.is_unspecified else found


def inside(name: str, of: str) -> bool:
    """Whether a name stands in a zone."""
    return name == of or name.endswith(f".{of}")


def split(cluster: ClusterFile) -> tuple[list[Record], list[Record]]:
    """Return the records of the zone, and those of others."""
    of = zone(cluster)
    found = records(cluster)
    return [r for r in found if inside(r.name, of)], [r for r in found if not inside(r.name, of)]


def remarks(cluster: ClusterFile, others: list[Record]) -> Iterator[str]:
    """Return a line for each record that stands elsewhere, and for each member that has none."""
    for one in others:
        yield f"not in this zone: {one.name} {one.type} {one.address}"
    for member in cluster.members:
        if _recorded(member.address) is None:
            yield f"no record of {word(str(member.name).lower())}: its address in the file is {address(member.address)}"
