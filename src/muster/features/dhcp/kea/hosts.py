"""Hosts of a Kea that has the library ``host_cmds``: asked for and changed one by one.

What is made there goes into the database of hosts, where Kea has one. Else it stands in Kea's memory, as the hosts of its
configuration do, and is kept by having Kea write that.

Source: Kea Administrator Reference Manual, "libdhcp_host_cmds.so"; docs/facts/kea.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from muster.features.dhcp.contract import Reservation, Subnet
from muster.features.dhcp.kea import reservations
from muster.features.dhcp.kea.commands import Answer, Kea
from muster.features.dhcp.kea.configuration import EVERYWHERE, Configuration
from muster.features.dhcp.kea.reservations import Host
from muster.features.dhcp.kea.unwritten import Unwritten, already_changed, unwritable
from muster.kernel.errors import Conflict, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import MACAddress, shown

COMMANDS = frozenset(
    {"reservation-add", "reservation-del", "reservation-get-by-address", "reservation-get-by-id",
     "reservation-get-by-hostname", "reservation-get-page"}
)  # fmt: skip
"""What the library gives Kea, as far as it is needed."""
_PAGE = 1000
_FEW = 16
_MEMORY, _DATABASE = "memory", "database"
_ALREADY = ("already been added", "already a reservation", "duplicate")


class Hosts:
    """Hosts of one Kea that has :data:`COMMANDS`."""

    def __init__(self, kea: Kea, unwritten: Unwritten) -> None:
        self._kea = kea
        self._unwritten = unwritten

    async def all(self, on: Configuration, subnet: Subnet) -> Sequence[Host]:
        """Return the hosts of a subnet and those of all."""
        number = on.of(subnet).id
        return [h for of in (number, EVERYWHERE) for where in _places(on) for h in await self._pages(of, where)]

    async def at(self, on: Configuration, ip: IPv4Address) -> Sequence[Host]:
        """Return the hosts of an address."""
        return await self._found(on, "reservation-get-by-address", {"ip-address": str(ip)})

    async def of(self, on: Configuration, mac: MACAddress) -> Sequence[Host]:
        """Return the hosts of a hardware address, in whatever subnet."""
        return await self._found(on, "reservation-get-by-id", {"identifier-type": "hw-address", "identifier": str(mac)})

    async def taken(self, on: Configuration, subnet: Subnet, among: Collection[IPv4Address]) -> set[IPv4Address]:
        """Return which addresses are somebody's, whatever Kea knows the machine by."""
        if len(among) <= _FEW:
            return {ip for ip in among if await self.at(on, ip)}
        return {h.ip for h in await self.all(on, subnet) if h.ip is not None} & set(among)

    async def add(self, on: Configuration, wanted: Reservation, related: Collection[MACAddress]) -> None:
        """Make a reservation exist; as the contract's ``add``."""
        number = on.of(wanted.subnet).id
        if reservations.is_there(wanted, number, await self._like(on, wanted), related, one_each=on.one_each):
            if not on.database:
                await self._unwritten.settled(own=True)
            return
        if on.database:
            await self._added(on, wanted, number, related)
            return
        async with self._unwritten.marked():
            await self._added(on, wanted, number, related)
            await self._kept(wanted, number)

    async def _like(self, on: Configuration, wanted: Reservation) -> Sequence[Host]:
        """Return the hosts that have something of a reservation's."""
        names = {wanted.name.lower(), str(wanted.options.get("hostname") or wanted.name).lower()}
        named = [
            h
            for name in sorted(names)
            for h in await self._found(on, "reservation-get-by-hostname", {"hostname": name})
        ]
        return [*await self.of(on, wanted.mac), *await self.at(on, wanted.ip), *named]

    async def _added(
        self, on: Configuration, wanted: Reservation, number: int, related: Collection[MACAddress]
    ) -> None:
        new = {"reservation": {**reservations.written(wanted), "subnet-id": number}, "operation-target": _target(on)}
        try:
            await self._kea.ask("reservation-add", new)
        except Rejected as e:
            if not any(word in str(e).lower() for word in _ALREADY):
                raise
            # Somebody was quicker since it was looked for, maybe with the very same.
            if not reservations.is_there(wanted, number, await self._like(on, wanted), related, one_each=on.one_each):
                raise Conflict(f"{wanted} conflicts with what Kea has: {e}") from e

    async def remove(self, on: Configuration, one: Reservation) -> None:
        """Make a reservation not exist; as the contract's ``remove``."""
        on.of(one.subnet)
        held = next((h for h in await self.of(on, one.mac) if h.ip == one.ip), None)
        if held is None:
            raise NotFound(f"There is no reservation {one}")
        if not held.removable or held.subnet_id == EVERYWHERE:
            raise Rejected(f"{held} is static - unable to delete")
        # Where it is, and not where one would be made now: Kea may have been given a database, or other numbers, since.
        if held.in_database:
            await self._deleted(held.subnet_id, one, _DATABASE)
            return
        async with self._unwritten.marked():
            await self._deleted(held.subnet_id, one, _MEMORY)
            await self._gone(one, held.subnet_id)

    async def _kept(self, wanted: Reservation, number: int) -> None:
        """Have what was added to Kea's memory written."""
        try:
            with already_changed():
                await self._unwritten.write()
        except Rejected as e:
            await self._undone("reservation-del", {**_which(wanted, number), "operation-target": _MEMORY})
            raise unwritable(e) from e
        if not await self._is_there(wanted, number):
            raise Unavailable(f"Kea has taken {wanted} and has it no more, as when it was started again meanwhile")

    async def _gone(self, one: Reservation, number: int) -> None:
        """Have what was removed from Kea's memory written."""
        try:
            with already_changed():
                await self._unwritten.write()
        except Rejected as e:
            back = {**reservations.written(one), "subnet-id": number}
            await self._undone("reservation-add", {"reservation": back, "operation-target": _MEMORY})
            raise unwritable(e) from e
        if await self._is_there(one, number):
            raise Unavailable(f"Kea has removed {one} and has it again, as when it was started again meanwhile")

    async def _undone(self, command: str, arguments: Mapping[str, Any]) -> None:
        try:
            await self._kea.ask(command, arguments)
        except MusterError as e:
            raise Unavailable(
                f"Kea cannot write its configuration, nor go back; the change counts until it ends: {e}"
            ) from e

    async def _is_there(self, one: Reservation, number: int) -> bool:
        which = {"identifier-type": "hw-address", "identifier": str(one.mac), "operation-target": _MEMORY}
        try:
            found = _hosts(await self._kea.ask("reservation-get-by-id", which), _MEMORY)
        except MusterError as e:
            raise Unavailable(f"Kea has taken a change, and whether it keeps it is unknown: {e}") from e
        return any((h.subnet_id, h.ip) == (number, one.ip) for h in found)

    async def _deleted(self, number: int, one: Reservation, where: str) -> None:
        if not (await self._kea.ask("reservation-del", {**_which(one, number), "operation-target": where})).found:
            raise NotFound(f"There is no reservation {one}")

    async def _found(self, on: Configuration, command: str, which: Mapping[str, Any]) -> list[Host]:
        found = []
        for where in _places(on):
            answer = await self._kea.ask(command, {**which, "operation-target": where})
            found += _hosts(answer, where)
        return found

    async def _pages(self, number: int, where: str) -> Sequence[Host]:
        found: list[Host] = []
        begin: dict[str, Any] = {}
        while True:
            asked = {"subnet-id": number, "limit": _PAGE, "operation-target": where, **begin}
            answer = await self._kea.ask("reservation-get-page", asked)
            page = _hosts(answer, where)
            found += page
            following = answer.arguments.get("next")
            if not page or not isinstance(following, dict):
                return found
            following = {name: following[name] for name in ("from", "source-index") if name in following}
            if following == begin:
                raise Unavailable(f"{self._kea.url} tells the same hosts again and again")
            begin = following


def _which(one: Reservation, number: int) -> dict[str, Any]:
    return {"subnet-id": number, "identifier-type": "hw-address", "identifier": str(one.mac)}


def _places(on: Configuration) -> Sequence[str]:
    return (_MEMORY, _DATABASE) if on.database else (_MEMORY,)


def _target(on: Configuration) -> str:
    return _DATABASE if on.database else _MEMORY


def _hosts(answer: Answer, where: str) -> list[Host]:
    try:
        return [
            reservations.host(one, int(one.get("subnet-id", EVERYWHERE)), in_database=where == _DATABASE)
            for one in answer.arguments.get("hosts") or ()
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        what = shown(f"{type(e).__name__}: {e}", 200)
        raise Unavailable(f"What Kea tells are no hosts as they are known here: {what}") from e
