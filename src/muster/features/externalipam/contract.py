"""What an IPAM provider promises."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol

from muster.kernel.errors import NotFound, Rejected
from muster.kernel.names import MACAddress, shown
from muster.policy.marks import change, query

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Group:
    """Subnets that belong together: a VRF of NetBox, a section of phpIPAM.

    Attributes:
        id: the IPAM's own; None where it has none.
    """

    name: str
    description: str = ""
    id: str | int | None = None


@dataclass(frozen=True)
class Subnet:
    """A subnet as the IPAM has it.

    Attributes:
        space: within what its addresses are unique; subnets of one space that overlap share addresses.
        id: the IPAM's own.
        group: the group that it was asked for in; empty: none was named.
        first, last: what is offered of it, both included; None: all that hosts can have.
        excluded: what is not offered all the same.
    """

    network: IPNetwork
    space: str
    description: str = ""
    id: str | int = ""
    group: str = ""
    first: IPAddress | None = None
    last: IPAddress | None = None
    excluded: frozenset[IPAddress] = frozenset()

    def __str__(self) -> str:
        return f"{self.network} of group {shown(self.group)}" if self.group else str(self.network)

    @property
    def span(self) -> tuple[int, int]:
        """First and last address that may be offered, as numbers.

        A network's own address is none, nor an IPv4 network's last, but where a network has but two or one (RFC 3021,
        RFC 6164); the first of an IPv6 network is that of its routers (RFC 4291 §2.6.1).
        """
        low, high = int(self.network.network_address), int(self.network.broadcast_address)
        if self.network.num_addresses > 2:
            low, high = low + 1, high - (self.network.version == 4)
        return (
            max(low, int(self.first)) if self.first is not None else low,
            min(high, int(self.last)) if self.last is not None else high,
        )

    def address(self, number: int) -> IPAddress:
        """Return an address of the subnet's family."""
        return IPv4Address(number) if self.network.version == 4 else IPv6Address(number)


class IPAMProvider(Protocol):
    """Groups, subnets and addresses of one IPAM; IPv4 and IPv6.

    What others do in the IPAM is seen. What was promised to a new host and is not in the IPAM yet is none of a provider's
    business: the service keeps that (:mod:`muster.features.externalipam.promises`).

    Concurrency: any number of calls, of any number of members, at once. Members change one address one at a time; others
    may change it meanwhile.
    """

    @query
    async def reached(self) -> None:
        """Return when the IPAM has answered any question that needs our rights; cheap.

        Raises:
            Unavailable: it did not answer.
            Misconfigured: it cannot be asked with the settings there are, or refuses our account.
        """

    @query
    async def groups(self) -> Sequence[Group]:
        """Return the groups, in the IPAM's order; empty when there are none.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def subnets(self, group: str) -> Sequence[Subnet]:
        """Return the subnets of a group, in the IPAM's order; empty when it has none.

        Raises:
            NotFound: there is no such group.
            Rejected: several have that name.
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def subnet(self, network: IPNetwork, group: str) -> Subnet:
        """Return the subnet that is exactly this network; ``group`` is empty when none is named.

        Raises:
            NotFound: there is none, or no such group.
            Rejected: no group is named, and several have such a subnet.
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def holds(self, subnet: Subnet, ip: IPAddress) -> bool:
        """Whether the address is in use in the subnet's space; a change that was acknowledged to any member is seen.

        Raises:
            Unavailable, Misconfigured: as for ``reached``.
        """

    @query
    async def free(self, subnet: Subnet, but: Collection[IPAddress], at_most: int) -> Sequence[IPAddress]:
        """Return the lowest addresses that are not in use and not among ``but``, ascending; empty: there are none.

        What is in use since the question began may be among them.

        Raises:
            Unsupported: the IPAM tells of one address only, and remembers that it did; ``offered`` asks for it.
            Unavailable: it did not answer, or has too many addresses to tell.
            Misconfigured: as for ``reached``.
        """

    @change(repeatable=True)
    async def offered(self, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:
        """Return an address that the IPAM itself promises to a new host; None: it has none.

        Raises:
            Unsupported: it promises nothing; then addresses are promised here, of ``free``.
            Unavailable, Misconfigured: as for ``reached``.
        """

    # Whoever repeats it cannot tell his own address from another's.
    @change(repeatable=False)
    async def add(self, subnet: Subnet, ip: IPAddress, mac: MACAddress | None) -> None:
        """Have the address in use.

        Args:
            subnet: as the IPAM told it.
            ip: an address of it.
            mac: whom it was promised to; None: nobody, or nobody said.

        Raises:
            Conflict: it is in use already; nothing was changed.
            Rejected: the IPAM refuses it; nothing was changed.
            Unavailable: it did not answer; whether the address is in use is unknown.
            Misconfigured: it refuses our account; nothing was changed.
        """

    @change(repeatable=True)
    async def remove(self, subnet: Subnet, ip: IPAddress) -> None:
        """Have the address no longer in use.

        Raises:
            NotFound: it was not in use.
            Rejected, Unavailable, Misconfigured: as for ``add``.
        """


def lowest(
    subnet: Subnet, taken: Collection[IPAddress], at_most: int, since: IPAddress | None = None
) -> list[IPAddress]:
    """Return the lowest addresses of a subnet that may be offered and are not taken, from ``since`` on."""
    low, high = subnet.span
    numbers = {int(ip) for ip in (*taken, *subnet.excluded)}
    found: list[IPAddress] = []
    number = max(low, int(since)) if since is not None else low
    while number <= high and len(found) < at_most:
        if number not in numbers:
            found.append(subnet.address(number))
        number += 1
    return found


def only(found: Iterable[Subnet], network: IPNetwork, what: str) -> Subnet:
    """Return the one subnet of several groups, when none was named.

    Raises:
        NotFound: there is none.
        Rejected: there are several; ``what`` is the IPAM's word for a group.
    """
    some = list(found)
    if not some:
        raise NotFound(f"The IPAM has no subnet {network}")
    if len(some) > 1:
        raise Rejected(f"Several {what}s have a subnet {network}; name the group of the subnet in Foreman")
    return some[0]
