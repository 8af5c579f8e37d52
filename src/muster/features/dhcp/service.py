"""Rules common to all DHCP providers: which subnet is meant, what conflicts, and which addresses are free.

Source: docs/facts/smart-proxy-protocol.md §8, recorded in ``tests/wire/recorded/smart-proxy/dhcp.jsonl``.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from ipaddress import IPv4Address
from typing import Any, Literal

from muster.edge.feature import Surroundings
from muster.edge.provided import provided
from muster.features.dhcp import asked, free, probes, providers
from muster.features.dhcp.claims import Claims
from muster.features.dhcp.contract import DHCPProvider, Lease, Record, Records, Reservation, Subnet, Unreached, same
from muster.features.dhcp.free import FreeAddresses, Span
from muster.features.dhcp.isc import feed
from muster.features.dhcp.isc.feed import Source
from muster.features.dhcp.probes import NoProbes
from muster.features.dhcp.settings import DHCPSettings
from muster.features.dhcp.several import GROUPABLE
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable, Unsupported
from muster.kernel.happenings import FAILED, Happening, Tell, told, untold
from muster.kernel.log import logger
from muster.kernel.names import MACAddress, shown

_log = logger("features")

# Of a server that finds addresses itself: others may have been told of the same one.
_OFFERED_WITHIN_S = 20.0
_SAME_OFFERS = 3


class DHCP:
    """The feature's service.

    Args:
        subnets: those that Foreman sees; empty: all of the server's.
        files: what tells other members dhcpd's files; None: this one tells nobody.
        tell: hears what becomes of machines' addresses; ``called`` is the provider's word there.
    """

    def __init__(
        self,
        provider: DHCPProvider,
        claims: Claims,
        addresses: FreeAddresses,
        subnets: Collection[Any] = (),
        files: Source | None = None,
        *,
        tell: Tell = untold,
        called: str = "",
    ) -> None:
        self.files = files
        self.provider = provider
        self._claims = claims
        self._free = addresses
        self._seen = frozenset(subnets)
        self._tell = tell
        self._called = called

    async def reached(self) -> None:
        await self.provider.reached()

    async def subnets(self) -> Sequence[Subnet]:
        """Return the subnets that Foreman sees."""
        found = await self.provider.subnets()
        return [s for s in found if not self._seen or s.network in self._seen]

    async def records(self, network: str) -> Records:
        """Return what there is in a subnet.

        Raises:
            Rejected: that is no address.
            NotFound: no subnet is called so, or holds it.
        """
        subnet, is_named = await self._subnet(network)
        # As the Ruby proxy, which finds the subnet by any address of it and its records by its name alone.
        return await self.provider.records(subnet) if is_named else Records()

    async def at(self, network: str, ip: str) -> Sequence[Record]:
        """Return what has an address, at least one.

        Raises:
            Rejected: one of them is no address.
            NotFound: there is no such subnet, or nothing has it.
        """
        subnet, is_named = await self._subnet(network)
        address = asked.address(ip)
        found = await self._within(subnet, address) if is_named else ()
        if not found:
            raise NotFound(f"No DHCP records for IP {network}/{address} found")
        return found

    async def of(self, network: str, mac: str) -> Record:
        """Return the reservation of a hardware address, else its lease.

        Raises:
            As :meth:`at`.
        """
        subnet, is_named = await self._subnet(network)
        wanted = asked.mac(mac)
        found = await self.provider.of(subnet, wanted) if is_named else None
        if found is None:
            raise NotFound(f"No DHCP record for MAC {network}/{wanted} found")
        return found

    async def whose(self, address: str) -> MACAddress | None:
        """Return to whom the DHCP server gave an address, by reservation or else by lease; None: to nobody, or it is IPv6.

        Raises:
            Unavailable, Misconfigured: the DHCP server does not answer.
        """
        try:
            ip = IPv4Address(address)
        except ValueError:
            return None
        around = [s for s in await self.subnets() if ip in s.network]
        found = await self._within(max(around, key=lambda s: s.network.prefixlen), ip) if around else ()
        return found[0].mac if found else None

    async def unused(self, network: str, mac: str | None, first: str | None, last: str | None) -> IPv4Address | None:
        """Return an address for a new host, which nobody else is told for a time; None when there is none.

        A hardware address that has an address of the range already keeps it.

        Raises:
            Rejected: a parameter is none, or the range has no address that a host can have.
            NotFound: there is no such subnet.
            Unavailable: the DHCP server or the store did not answer, so nothing can be promised.
        """
        subnet, _ = await self._subnet(network)
        whose = asked.mac(mac) if mac is not None else None
        low, high = asked.span(subnet, first, last)
        if whose is not None:
            has = await self.provider.of(subnet, whose)
            if has is not None and low <= has.ip <= high and await self._may_keep(has):
                self._tell(Happening("offered", whose, str(has.ip)))
                return has.ip
        try:
            found = await self._offered(subnet, low, high, str(whose or ""))
        except Unsupported:
            span = Span(subnet, low, high, lambda among: self.provider.taken(subnet, among))
            found = await self._free.one(span, str(whose or ""))
        if found is None:
            _log.warning(f"No free IPs in range {low}..{high} of {subnet}: each has a record, answers, or was offered")
            self._tell(Happening("offered", whose, detail={FAILED: f"none is free in {low} to {high}"}))
        else:
            self._tell(Happening("offered", whose, str(found)))
        return found

    async def _may_keep(self, has: Record) -> bool:
        """Whether a machine may be told the address it has: others may have been told of a lease's once it had ended."""
        return isinstance(has, Reservation) or await self._claims.keep(has.ip, has.mac)

    async def _offered(self, subnet: Subnet, low: IPv4Address, high: IPv4Address, mac: str) -> IPv4Address | None:
        seen: dict[IPv4Address, int] = {}
        try:
            async with asyncio.timeout(_OFFERED_WITHIN_S):
                # It may have forgotten what it offered, and goes through all of it once more.
                while max(seen.values(), default=0) < _SAME_OFFERS:
                    found = await self.provider.offered(subnet, low, high)
                    if found is None or await self._claims.promised_as_offered(found, mac):
                        return found
                    seen[found] = seen.get(found, 0) + 1
        except TimeoutError:
            pass
        raise Unavailable(f"Every address that the DHCP server offered in {low}..{high} was promised here already")

    async def create(self, network: str, given: Mapping[str, Any]) -> None:
        """Make a reservation; success when it exists as it is.

        Raises:
            Rejected: the form describes none, the subnet has no such address, or the server refuses it.
            Conflict: another reservation, or another machine's lease, has the address, or the hardware address another one.
            Unavailable: the DHCP server or the store did not answer.
        """
        wanted = asked.wanted(given)
        try:
            subnet, _ = await self._subnet(network)
        except NotFound:
            raise Rejected(f"No Subnet detected for: {network}") from None
        reservation = await self.provider.as_kept(wanted.within(subnet))
        if not self.provider.has_vendor_options and any(key.startswith("<") for key in reservation.options):
            raise Rejected("DHCP implementation does not support Vendor Options")
        with self._told("reserved", reservation):
            await self._create(network, reservation, wanted.related)

    def _told(self, kind: Literal["reserved", "released"], one: Reservation) -> AbstractContextManager[None]:
        """Tell what the block does to a reservation."""
        loads = {"file": one.options.get("filename"), "server": one.options.get("nextServer")}
        said = {k: str(v) for k, v in loads.items() if v is not None} if kind == "reserved" else {}
        name = str(one.options.get("hostname") or one.name)
        return told(self._tell, kind, one.mac, str(one.ip), name=name, provider=self._called, **said)

    async def _create(self, network: str, reservation: Reservation, related: frozenset[MACAddress]) -> None:
        async with self._claims.changing(reservation.ip, reservation.mac) as change:
            if await self._exists(reservation, related, network, change.reserved_for):
                # Whether the server itself has it still it knows best.
                await self.provider.add(reservation, related=related)
                return
            await change.reserve(reservation.ip, reservation.mac)
            try:
                await self.provider.add(reservation, related=related)
            except (Conflict, Rejected, Misconfigured, Unsupported, Unreached) as e:
                # Nothing was changed; of anything else nobody knows.
                change.refused(reservation.ip, reservation.mac)
                if isinstance(e, Conflict):
                    raise _taken(network, reservation) from e
                raise

    async def _exists(
        self, wanted: Reservation, related: frozenset[MACAddress], network: str, reserved_for: str | None
    ) -> bool:
        """Return whether the reservation is there already.

        Raises:
            Conflict: something else is.
        """
        # At once: a provider that follows its server's files looks at them for both together.
        has, within = await asyncio.gather(
            self.provider.of(wanted.subnet, wanted.mac), self._within(wanted.subnet, wanted.ip)
        )
        found = [r for r in (has, *within) if r is not None]
        if any(isinstance(r, Reservation) and same(r, wanted) for r in found):
            return True
        others = related | {wanted.mac}
        if reserved_for is not None and reserved_for not in others:
            # Of another member a moment ago, and perhaps not seen here yet.
            raise _taken(network, wanted)
        for record in found:
            is_related = record.mac in related
            # A machine's own lease is how it came by the address; of another one it is in use.
            is_own = isinstance(record, Lease) and (record.mac == wanted.mac or record.ip != wanted.ip)
            if not is_related and not is_own:
                raise _taken(network, wanted)
        return False

    async def delete_at(self, network: str, ip: str) -> None:
        """Remove every reservation of an address; success when there is none.

        Raises:
            Rejected: something has the address that may not be removed.
        """
        subnet = await self._subnet_if_any(network)
        address = asked.address(ip)
        found = await self._within(subnet, address) if subnet is not None else ()
        await self._remove(found)
        if not found:
            self._refuse_if_under_way(await self._claims.reserved_at(address))

    async def delete_of(self, network: str, mac: str) -> None:
        """Remove the reservation of a hardware address; success when there is none.

        Raises:
            Rejected: it may not be removed, or there is only a lease.
        """
        subnet = await self._subnet_if_any(network)
        wanted = asked.mac(mac)
        found = await self.provider.of(subnet, wanted) if subnet is not None else None
        await self._remove([found] if found is not None else [])
        if found is None:
            self._refuse_if_under_way(await self._claims.reserved_of(wanted))

    def _refuse_if_under_way(self, reserved: IPv4Address | None) -> None:
        """Let nobody take for removed what may come yet.

        Raises:
            Unavailable: a member has just asked the DHCP server for it, and nobody has seen it there.
        """
        if reserved is not None:
            raise Unavailable(
                f"{reserved} was being reserved a moment ago, and the DHCP server does not show it yet; try again"
            )

    async def _remove(self, found: Sequence[Record]) -> None:
        removable = [r for r in found if isinstance(r, Reservation) and r.deletable]
        if not removable and found:
            raise Rejected(f"{found[0]} is static - unable to delete")
        for one in removable:
            with self._told("released", one):
                await self._remove_one(one)

    async def _remove_one(self, one: Reservation) -> None:
        async with self._claims.changing(one.ip, one.mac) as change:
            held = await self.provider.of(one.subnet, one.mac)
            # Since it was found it may have become another.
            if isinstance(held, Reservation) and held.ip == one.ip:
                with contextlib.suppress(NotFound):
                    await self.provider.remove(one)
            change.refused(one.ip, one.mac)

    async def _within(self, subnet: Subnet, address: IPv4Address) -> Sequence[Record]:
        return await self.provider.at(subnet, address) if address in subnet.network else ()

    async def _subnet(self, text: str) -> tuple[Subnet, bool]:
        """Return the subnet of that network address, or the one that holds it, and whether it is called so."""
        address = asked.address(text)
        around = [s for s in await self.subnets() if address in s.network]
        if not around:
            raise NotFound(f"Subnet {shown(text)} could not found")
        # The one that is called so, else the smallest.
        named = [s for s in around if address == s.network.network_address]
        return max(named or around, key=lambda s: s.network.prefixlen), bool(named)

    async def _subnet_if_any(self, text: str) -> Subnet | None:
        try:
            return (await self._subnet(text))[0]
        except NotFound:
            return None


def _taken(network: str, wanted: Reservation) -> Conflict:
    return Conflict(f"Record {network}/{wanted.ip} already exists")


@asynccontextmanager
async def opened(settings: DHCPSettings, around: Surroundings) -> AsyncIterator[DHCP]:
    """Open the provider the settings name, wrapped in its policies, and what finds free addresses."""
    if around.store is None:
        raise Misconfigured("The feature dhcp needs the store: what it promises, all members have to know")
    async with AsyncExitStack() as stack:
        chain = await stack.enter_async_context(
            provided(
                DHCPProvider,  # type: ignore[type-abstract]
                settings,
                around,
                providers.opened,
                feature="dhcp",
                groupable=GROUPABLE,
            )
        )
        held_s = settings.blacklist_duration_minutes * 60
        claims = Claims(around.store, held_s=held_s, fresh_s=min(60.0, held_s))
        prober: probes.Prober = NoProbes()
        if settings.ping_free_ip:
            prober = await stack.enter_async_context(probes.opened(wait_s=settings.ping_wait_s))
        pool = settings.pool_size if settings.ping_free_ip else 0
        addresses = await stack.enter_async_context(free.opened(claims, prober, pool=pool))
        files: Source | None = None
        if settings.provider == "isc" and around.member in settings.isc.files_on and around.cluster is not None:
            names = [str(m.name) for m in around.cluster.members if m.kind == "muster"]
            opening = feed.opened(settings.isc.config, settings.isc.leases, names, closing=around.closing)
            files = await stack.enter_async_context(opening)
        yield DHCP(chain, claims, addresses, settings.subnets, files, tell=around.tell, called=settings.provider)
