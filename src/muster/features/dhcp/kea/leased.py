"""What a Kea has leased, asked piece by piece.

``lease4-get-all`` would tell all of it in one answer, however many there are; ``lease4-get-page`` tells leases in the order
of their addresses, so many at a time, beginning behind one, which is all that one subnet needs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from ipaddress import IPv4Address
from typing import Any

from muster.features.dhcp.contract import Lease, Subnet
from muster.features.dhcp.kea import leases
from muster.features.dhcp.kea.commands import Kea
from muster.features.dhcp.kea.reservations import mac
from muster.kernel.clock import Clock
from muster.kernel.errors import Unavailable
from muster.kernel.names import MACAddress, shown

COMMANDS = frozenset({"lease4-get", "lease4-get-by-hw-address", "lease4-get-page"})
"""What the library ``lease_cmds`` gives Kea, as far as it is needed."""
_PAGE = 1000
# Fewer are asked for one by one.
_FEW = 16
_NONE = (KeyError, TypeError, ValueError, AttributeError)


class Leased:
    """Leases of one Kea that has :data:`COMMANDS`."""

    def __init__(self, kea: Kea, clock: Clock) -> None:
        self._kea = kea
        self._clock = clock

    async def all(self, subnet: Subnet) -> Sequence[Lease]:
        """Return the leases of a subnet that are in force, by address."""
        now = self._clock.now()
        found = []
        network = subnet.network
        async for page in self._pages(network.network_address, network.broadcast_address):
            found += [lease for one in page if (lease := _lease(one, subnet, now)) is not None]
        return found

    async def at(self, subnet: Subnet, ip: IPv4Address) -> Lease | None:
        """Return the lease of an address."""
        answer = await self._kea.ask("lease4-get", {"ip-address": str(ip)})
        return _lease(answer.arguments, subnet, self._clock.now()) if answer.found else None

    async def by_nobody_known(self, ip: IPv4Address) -> bool:
        """Whether an address is leased, or declined, and by no machine that Foreman could be told of."""
        answer = await self._kea.ask("lease4-get", {"ip-address": str(ip)})
        return answer.found and _taken(answer.arguments, self._clock.now()) and not _is_known(answer.arguments)

    async def of(self, subnet: Subnet, mac: MACAddress) -> Lease | None:
        """Return a machine's lease; of several the newest."""
        answer = await self._kea.ask("lease4-get-by-hw-address", {"hw-address": str(mac)})
        now = self._clock.now()
        found = [_lease(one, subnet, now) for one in _listed(answer.arguments)]
        there = [one for one in found if one is not None and one.ip in subnet.network]
        return max(there, key=lambda one: one.starts, default=None)

    async def taken(self, among: Collection[IPv4Address]) -> set[IPv4Address]:
        """Return which addresses are leased or declined, whoever has them."""
        now = self._clock.now()
        if len(among) <= _FEW:
            answers = [await self._kea.ask("lease4-get", {"ip-address": str(ip)}) for ip in among]
            return {ip for ip, one in zip(among, answers, strict=True) if one.found and _taken(one.arguments, now)}
        found: set[IPv4Address] = set()
        async for page in self._pages(min(among), max(among)):
            found |= {IPv4Address(one["ip-address"]) for one in page if _taken(one, now)}
        return found & set(among)

    async def _pages(self, first: IPv4Address, last: IPv4Address) -> AsyncIterator[Sequence[Mapping[str, Any]]]:
        # What stands there is the address behind which a page begins.
        behind = str(first - 1) if int(first) else "start"
        while True:
            answer = await self._kea.ask("lease4-get-page", {"from": behind, "limit": _PAGE})
            page = _listed(answer.arguments)
            try:
                yield [one for one in page if first <= IPv4Address(one["ip-address"]) <= last]
                if len(page) < _PAGE or (end := IPv4Address(page[-1]["ip-address"])) >= last:
                    return
                if behind != "start" and end <= IPv4Address(behind):
                    raise Unavailable(f"{self._kea.url} tells leases in no order: {end} behind {behind}")
            except _NONE as e:
                raise _strange(e) from e
            behind = str(end)


def _listed(arguments: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found = arguments.get("leases", [])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise Unavailable(f"What Kea tells are no leases: {shown(found)}")
    return found


def _lease(one: Mapping[str, Any], subnet: Subnet, now: Any) -> Lease | None:
    try:
        return leases.lease(one, subnet, now)
    except _NONE as e:
        raise _strange(e) from e


def _taken(one: Mapping[str, Any], now: Any) -> bool:
    try:
        return leases.is_taken(one, now)
    except _NONE as e:
        raise _strange(e) from e


def _is_known(one: Mapping[str, Any]) -> bool:
    return mac(one.get("hw-address") or "") is not None


def _strange(error: Exception) -> Unavailable:
    return Unavailable(
        f"What Kea tells is no lease as it is known here: {shown(f'{type(error).__name__}: {error}', 200)}"
    )
