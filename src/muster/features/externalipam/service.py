"""Rules common to all IPAMs: which subnet is meant, what is promised to whom, and what conflicts.

Source: docs/facts/externalipam.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from muster.edge.feature import Surroundings
from muster.features.externalipam import asked, providers
from muster.features.externalipam.contract import Group, IPAddress, IPAMProvider, Subnet
from muster.features.externalipam.promises import FOUND_WITHIN_S, Promises
from muster.features.externalipam.settings import ExternalIPAMSettings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import (
    Conflict,
    Misconfigured,
    MusterError,
    NotFound,
    Unavailable,
    Unsupported,
)
from muster.kernel.log import logger
from muster.kernel.names import MACAddress
from muster.policy.chain import chained

_log = logger("features")

# So many are asked for at once, since other calls may be promised the lowest of them meanwhile.
_AT_ONCE = 16
_ROUNDS = 8
_SAME_OFFERS = 3
_FORGOTTEN_EVERY_S = 60.0


class ExternalIPAM:
    """The feature's service.

    Args:
        word: the provider's word, within which its spaces are meant.
    """

    def __init__(self, provider: IPAMProvider, word: str, promises: Promises, clock: Clock | None = None) -> None:
        self.provider = provider
        self._word = word
        self._promises = promises
        self._clock = clock or SystemClock()
        self._forgotten = self._clock.monotonic()

    async def reached(self) -> None:
        await self.provider.reached()

    async def groups(self) -> Sequence[Group]:
        return await self.provider.groups()

    async def group(self, name: str) -> Group:
        """Return a group.

        Raises:
            NotFound: there is none of that name.
        """
        for one in await self.provider.groups():
            if one.name == name:
                return one
        raise NotFound(f"The IPAM has no group {name}")

    async def subnets(self, group: str) -> Sequence[Subnet]:
        """Return the subnets of a group, at least one.

        Raises:
            NotFound: there is no such group, or it has none.
        """
        found = await self.provider.subnets(group)
        if not found:
            raise NotFound(f"The IPAM has no subnets in group {group}")
        return found

    async def subnet(self, address: str, prefix: str, group: str | None) -> Subnet:
        """Return the subnet of that network address and prefix length.

        Raises:
            Rejected: that is none, or it is not clear which is meant.
            NotFound: the IPAM has none, or no such group.
        """
        return await self.provider.subnet(asked.network(address, prefix), asked.group(group))

    async def next_ip(self, address: str, prefix: str, group: str | None, mac: str | None) -> IPAddress | None:
        """Return the lowest free address, which nobody else is told for a time; None when there is none.

        A hardware address that was promised an address of the subnet, and has not been given up since, keeps it.

        Raises:
            Rejected, NotFound: as :meth:`subnet`.
            Unavailable: the IPAM or the store did not answer, so nothing can be promised.
        """
        whose = asked.mac(mac)
        subnet = await self.subnet(address, prefix, group)
        space = self._space(subnet)
        if whose is not None and (kept := await self._kept(space, subnet, whose)) is not None:
            return kept
        try:
            async with asyncio.timeout(FOUND_WITHIN_S):
                found = await self._offered(space, subnet, whose)
        except Unsupported:
            found = await self._lowest(space, subnet, whose)
        except TimeoutError:
            raise Unavailable(f"Asking for an address of {subnet} took longer than {FOUND_WITHIN_S:g} s") from None
        if found is None:
            _log.warning(f"No free addresses in {subnet}: each is in use, is promised, or may not be offered")
        await self._forget()
        return found

    async def _kept(self, space: str, subnet: Subnet, mac: MACAddress) -> IPAddress | None:
        for ip in await self._promises.of(space, subnet, mac):
            # Somebody may have it by now who was never promised it.
            if not await self.provider.holds(subnet, ip) and await self._promises.renew(space, ip, mac):
                return ip
        return None

    async def _lowest(self, space: str, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:
        for _ in range(_ROUNDS):
            promised = await self._promises.live(space, subnet)
            # What the IPAM says may be as old as this: what was added since is settled for longer.
            try:
                async with asyncio.timeout(FOUND_WITHIN_S):
                    free = await self.provider.free(subnet, promised, _AT_ONCE)
                    if not free:
                        return None
                    found = await self._promises.promise(space, subnet, free, mac or "")
            except TimeoutError:
                raise Unavailable(f"Finding a free address in {subnet} took longer than {FOUND_WITHIN_S:g} s") from None
            if found is not None:
                return found
        raise Unavailable(f"Every free address of {subnet} was promised to another call meanwhile; try again")

    async def _offered(self, space: str, subnet: Subnet, mac: MACAddress | None) -> IPAddress | None:
        seen: dict[IPAddress, int] = {}
        whose = mac
        while max(seen.values(), default=0) < _SAME_OFFERS:
            found = await self.provider.offered(subnet, whose)
            if found is None:
                return None
            if found not in subnet.network:
                raise Unavailable(f"The IPAM offered {found}, which is no address of {subnet}")
            if await self._promises.promise(space, subnet, [found], mac or ""):
                return found
            seen[found] = seen.get(found, 0) + 1
            # Whoever remembers whom it offered what would offer the same again.
            whose = None
        raise Unavailable(f"Every address that the IPAM offered in {subnet} was promised here already; try again")

    async def holds(self, address: str, prefix: str, ip: str, group: str | None) -> bool:
        """Whether an address is in use; one that is promised is not.

        Raises:
            Rejected, NotFound: as :meth:`subnet`; or the address is none of the subnet's.
        """
        wanted = asked.within(ip, asked.network(address, prefix))
        return await self.provider.holds(await self.subnet(address, prefix, group), wanted)

    async def add(self, address: str, prefix: str, ip: str, group: str | None) -> None:
        """Have an address in use.

        Raises:
            Conflict: it is already.
            Rejected, NotFound: as :meth:`holds`.
            Unavailable: the IPAM or the store did not answer.
        """
        wanted = asked.within(ip, asked.network(address, prefix))
        subnet = await self.subnet(address, prefix, group)
        async with self._promises.changing(self._space(subnet), subnet, wanted) as change:
            if await self.provider.holds(subnet, wanted):
                raise Conflict(f"{wanted} is in use already in {subnet}")
            # However the call ends: nobody may be promised it who asked the IPAM before.
            change.ends_as = "settled"
            try:
                await self.provider.add(subnet, wanted, MACAddress.parse(change.mac) if change.mac else None)
            except Unavailable:
                # Whether it is in use nobody knows.
                raise
            except MusterError:
                change.ends_as = "unchanged"
                raise

    async def remove(self, address: str, prefix: str, ip: str, group: str | None) -> None:
        """Have an address no longer in use; success when it was not. What is promised stays so.

        Raises:
            Rejected, NotFound: as :meth:`holds`.
            Unavailable: the IPAM or the store did not answer.
        """
        wanted = asked.within(ip, asked.network(address, prefix))
        subnet = await self.subnet(address, prefix, group)
        async with self._promises.changing(self._space(subnet), subnet, wanted) as change:
            try:
                await self.provider.remove(subnet, wanted)
            except NotFound:
                # Foreman takes anything else for a failure, and keeps a host for ever whose address somebody freed.
                return
            change.ends_as = "free"

    def _space(self, subnet: Subnet) -> str:
        return f"{self._word}/{subnet.space}"

    async def _forget(self) -> None:
        now = self._clock.monotonic()
        if now - self._forgotten < _FORGOTTEN_EVERY_S:
            return
        self._forgotten = now
        try:
            await self._promises.forget()
        except MusterError as e:
            # The address is promised all the same.
            _log.warning(f"Promises that have ended were not dropped: {e}")


@asynccontextmanager
async def opened(settings: ExternalIPAMSettings, around: Surroundings) -> AsyncIterator[ExternalIPAM]:
    """Open the provider the settings name, wrapped in its policies."""
    if around.store is None:
        raise Misconfigured("The feature externalipam needs the store: what it promises, all members have to know")
    async with providers.opened(settings, around) as provider:
        word = settings.provider
        policies = around.chains.built("externalipam", settings.policies, around.operations, label=word, word=word)
        chain = chained(IPAMProvider, provider, policies)  # type: ignore[type-abstract]
        promises = Promises(around.store, held_s=settings.promise_minutes * 60)
        yield ExternalIPAM(chain, settings.provider, promises)
