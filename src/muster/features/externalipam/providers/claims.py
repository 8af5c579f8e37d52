"""Addresses in the cluster's store: what is in use is a row there, one an address, whichever member was asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from muster.features.externalipam.contract import Group, IPAddress, IPNetwork, Subnet
from muster.features.externalipam.kept import Described
from muster.features.externalipam.promises import address, key
from muster.features.externalipam.settings import KeptSettings
from muster.kernel.errors import Conflict, NotFound, Unsupported
from muster.kernel.names import MACAddress
from muster.store.engine import Store
from muster.store.reading import Query, Readable
from muster.store.writing import Change, Writing

# In one statement: a subnet may have millions of them.
_PAGE = 2000

_ONE = Query("SELECT address FROM ipam_addresses WHERE space = :space AND address = :address")
_HELD = Query(
    "SELECT address FROM ipam_addresses WHERE space = :space AND address BETWEEN :first AND :last ORDER BY address"
    " LIMIT :most"
)
_ALL = Query("SELECT space, address, subnet, mac, at FROM ipam_addresses ORDER BY space, address")
_ADD = Change(
    "INSERT INTO ipam_addresses (space, address, subnet, mac, at) VALUES (:space, :address, :subnet, :mac, {now})"
    " ON CONFLICT (space, address) DO NOTHING"
)
_REMOVE = Change("DELETE FROM ipam_addresses WHERE space = :space AND address = :address")


class ClaimedIPAM:
    """Subnets are in the settings, addresses in the store; a space is a group."""

    def __init__(self, store: Store, settings: KeptSettings) -> None:
        self._store = store
        self._described = Described(settings)

    async def reached(self) -> None:
        async with self._store.read() as uow:
            await uow.now()

    async def groups(self) -> Sequence[Group]:
        return self._described.groups()

    async def subnets(self, group: str) -> Sequence[Subnet]:
        return self._described.subnets(group)

    async def subnet(self, network: IPNetwork, group: str) -> Subnet:
        return self._described.subnet(network, group)

    async def holds(self, subnet: Subnet, ip: IPAddress) -> bool:
        async with self._store.read() as uow:
            return bool(await uow.rows(_ONE, space=subnet.space, address=key(ip)))

    async def free(self, subnet: Subnet, but: Collection[IPAddress], at_most: int) -> Sequence[IPAddress]:
        low, high = subnet.span
        skipped = {int(ip) for ip in (*but, *subnet.excluded)}
        found: list[IPAddress] = []
        async with self._store.read() as uow:
            while low <= high and len(found) < at_most:
                bounds = {"first": key(subnet.address(low)), "last": key(subnet.address(high))}
                rows = await uow.rows(_HELD, space=subnet.space, **bounds, most=_PAGE)
                held = {int(address(row["address"])) for row in rows}
                # Behind the last row of a whole page nothing is known yet.
                known = max(held) if len(rows) == _PAGE else high
                while low <= known and len(found) < at_most:
                    if low not in held and low not in skipped:
                        found.append(subnet.address(low))
                    low += 1
        return found

    async def offered(self, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:  # noqa: ARG002
        raise Unsupported("claims are promised as everybody's are")

    async def add(self, subnet: Subnet, ip: IPAddress, mac: MACAddress | None) -> None:
        row = {"space": subnet.space, "address": key(ip), "subnet": str(subnet.network), "mac": str(mac or "")}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_ADD, row) == 1

        if not await self._store.carry_out("ipam-added", work):
            raise Conflict(f"{ip} is in use already in {subnet}")

    async def remove(self, subnet: Subnet, ip: IPAddress) -> None:
        row = {"space": subnet.space, "address": key(ip)}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_REMOVE, row) == 1

        if not await self._store.carry_out("ipam-removed", work):
            raise NotFound(f"{ip} is not in use in {subnet}")


@dataclass(frozen=True)
class Kept:
    """An address in use.

    Attributes:
        group: empty: none.
        mac: whom it was promised to before; empty: nobody said.
        at: since when, in store time.
    """

    group: str
    ip: IPAddress
    subnet: str
    mac: str
    at: float


async def addresses(store: Readable) -> Sequence[Kept]:
    """Return all addresses in use, by group and address.

    Raises:
        Unavailable: the store did not answer.
    """
    async with store.read() as uow:
        rows = await uow.rows(_ALL)
    return [Kept(r["space"], address(r["address"]), r["subnet"], r["mac"], r["at"]) for r in rows]
