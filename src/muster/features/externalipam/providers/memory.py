"""Addresses in a set: the contract without an IPAM. It can be told to fail."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from muster.features.externalipam.contract import Group, IPAddress, IPNetwork, Subnet, lowest
from muster.features.externalipam.kept import Described
from muster.features.externalipam.settings import KeptSettings
from muster.kernel.errors import Conflict, MusterError, NotFound, Unsupported
from muster.kernel.names import MACAddress


class MemoryIPAM:
    """Keeps addresses until the process ends. One event loop.

    Attributes:
        failure: raised by every operation while set.
        held: what is in use, by space.
    """

    def __init__(self, settings: KeptSettings) -> None:
        self._described = Described(settings)
        self.held: set[tuple[str, IPAddress]] = set()
        self.failure: MusterError | None = None

    async def reached(self) -> None:
        self._may_fail()

    async def groups(self) -> Sequence[Group]:
        self._may_fail()
        return self._described.groups()

    async def subnets(self, group: str) -> Sequence[Subnet]:
        self._may_fail()
        return self._described.subnets(group)

    async def subnet(self, network: IPNetwork, group: str) -> Subnet:
        self._may_fail()
        return self._described.subnet(network, group)

    async def holds(self, subnet: Subnet, ip: IPAddress) -> bool:
        self._may_fail()
        return (subnet.space, ip) in self.held

    async def free(self, subnet: Subnet, but: Collection[IPAddress], at_most: int) -> Sequence[IPAddress]:
        self._may_fail()
        return lowest(subnet, [*but, *(ip for space, ip in self.held if space == subnet.space)], at_most)

    async def offered(self, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:  # noqa: ARG002
        self._may_fail()
        raise Unsupported("memory promises nothing")

    async def add(self, subnet: Subnet, ip: IPAddress, mac: MACAddress | None) -> None:  # noqa: ARG002
        self._may_fail()
        if (subnet.space, ip) in self.held:
            raise Conflict(f"{ip} is in use already")
        self.held.add((subnet.space, ip))

    async def remove(self, subnet: Subnet, ip: IPAddress) -> None:
        self._may_fail()
        if (subnet.space, ip) not in self.held:
            raise NotFound(f"{ip} is not in use")
        self.held.remove((subnet.space, ip))

    def _may_fail(self) -> None:
        if self.failure is not None:
            raise self.failure
