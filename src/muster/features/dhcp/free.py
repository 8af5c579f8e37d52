"""Addresses for new hosts: found free, promised once, and a few of them probed ahead.

What a call asks for it takes from the pool of all members, which is rows of the store: addresses that nothing answered at a
moment ago. Where the pool has none in the range, a handful is probed at once, the first silent one is promised and the
others are in the pool then. A keeper fills it up behind the calls, for ranges that were asked for lately.

Source: docs/facts/smart-proxy-protocol.md §8.5, whose faults it has not: two proxies walk in different orders, a promise
counts for all members, minutes are minutes, and probing takes one wait, however many addresses are in use.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from math import gcd

from muster.features.dhcp.claims import Claim, Claims, new_holder
from muster.features.dhcp.contract import Subnet
from muster.features.dhcp.probes import Prober
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.log import Seldom, and_more, logger
from muster.kernel.reasons import spoken
from muster.kernel.tasks import each, ended

_log = logger("features")

# So many are probed at once; one wait, whether nothing or all of them answer. Where all do, more the next time.
BATCH = 16
_LARGEST_BATCH = 256
_FROM_POOL = 16
# Of a provider that has to ask for each: first few, then more, until nearly all are known to be taken.
_FIRST_LOOK = 64
_LATER_LOOK = 1024
# Longer than a batch takes, shorter than Foreman waits for an answer.
_WITHIN_S = 20.0
_PAUSE_S = 0.1
_KEPT_WARM_S = 3600.0
_MOST_RANGES = 256
_BEAT_S = 5.0
_FULL_S = 60.0
_FILLED_AT_ONCE = 8

Live = Mapping[IPv4Address, Claim]
Taken = Callable[[Collection[IPv4Address]], Awaitable[Collection[IPv4Address]]]


@dataclass(frozen=True)
class Span:
    """A range of a subnet, both ends included.

    Attributes:
        taken: returns which of some addresses have a record.
    """

    subnet: Subnet
    first: IPv4Address
    last: IPv4Address
    taken: Taken = field(repr=False)

    def __str__(self) -> str:
        return f"{self.first}..{self.last}"

    @property
    def size(self) -> int:
        return int(self.last) - int(self.first) + 1


class FreeAddresses:
    """Finds them. Use :func:`opened`, which keeps the pool.

    Args:
        pool: how many addresses of a range are to be known free ahead; 0: none.

    Concurrency: any number of tasks of one loop, and of members on one store.
    """

    def __init__(
        self,
        claims: Claims,
        prober: Prober,
        *,
        pool: int,
        chance: random.Random | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._claims = claims
        self._prober = prober
        self._pool = pool
        # Not from the time: two members that are asked in one second walk in different orders.
        self._chance = chance or random.SystemRandom()
        self._clock = clock or SystemClock()
        self._asked: dict[tuple[IPv4Address, IPv4Address], tuple[Span, float]] = {}
        self._full: dict[tuple[IPv4Address, IPv4Address], float] = {}
        self._wanted = asyncio.Event()
        self._troubles = Seldom()

    async def one(self, span: Span, mac: str) -> IPv4Address | None:
        """Return an address that nobody uses and nobody else is or was told of, None when there is none.

        Raises:
            Unavailable: the store or the DHCP server did not answer; or others probe all that is left, for too long.
        """
        self._remember(span)
        end = self._clock.monotonic() + _WITHIN_S
        while True:
            claims = await self._claims.live(span.first, span.last)
            found = await self._from_pool(span, claims, mac) or await self._probed(span, claims, mac, end)
            if found is not None:
                self._wanted.set()
                return found
            if not await self._left(span):
                return None
            if self._clock.monotonic() > end:
                raise _not_in_time(span)
            await self._clock.sleep(_PAUSE_S)

    async def _from_pool(self, span: Span, claims: Live, mac: str) -> IPv4Address | None:
        free = [c.address for c in claims.values() if c.state == "free"]
        if not free:
            return None
        self._chance.shuffle(free)
        for some in _some(free, _FROM_POOL):
            taken = await span.taken(some)
            for address in some:
                if address not in taken and await self._claims.promise(address, mac, new_holder()):
                    return address
        return None

    async def _probed(self, span: Span, claims: Live, mac: str, end: float) -> IPv4Address | None:
        """Probe addresses until one is silent, which is promised; the other silent ones are everybody's."""
        async for some in self._candidates(span, claims):
            if self._clock.monotonic() > end:
                raise _not_in_time(span)
            holder = new_holder()
            mine = await self._claims.probing(some, holder)
            if not mine:
                # Others were quicker with all of them.
                continue
            probed = await self._prober.probed(mine)
            silent = [a for a in mine if a in probed.silent]
            # Somebody may have reserved one meanwhile.
            taken = await span.taken(silent) if silent else ()
            silent = [a for a in silent if a not in taken]
            found = await self._first_of(silent, mac, holder)
            await self._claims.probed(holder, silent=[a for a in silent if a != found], answered=probed.answered)
            if found is not None:
                return found
            if probed.reason:
                raise Unavailable(
                    f"Addresses of {span} cannot be probed from this member ({probed.reason}), so nobody knows whether they "
                    "are in use; ping_free_ip: false offers them without"
                )
        return None

    async def _first_of(self, silent: Sequence[IPv4Address], mac: str, holder: str) -> IPv4Address | None:
        for address in silent:
            if await self._claims.promise(address, mac, holder):
                return address
        return None

    async def _left(self, span: Span) -> bool:
        """Return whether an address may still be there for a call that found none."""
        claims = await self._claims.live(span.first, span.last)
        # What others probe at this moment, or have found free.
        others = [c.address for c in claims.values() if c.state in ("probing", "free")]
        if set(others) - set(await span.taken(others)):
            return True
        async for _ in self._candidates(span, claims):
            return True
        return False

    async def _candidates(self, span: Span, claimed: Live) -> AsyncIterator[list[IPv4Address]]:
        """Yield addresses of the range without a record and not claimed, a handful at a time, in an order of chance."""
        looked, size = 0, BATCH
        fresh: list[IPv4Address] = []
        walk = (a for a in self._walk(span) if a not in claimed)
        while some := _next(walk, _FIRST_LOOK if not looked else _LATER_LOOK):
            looked += len(some)
            # However many are taken, others get their turns.
            await asyncio.sleep(0)
            taken = await span.taken(some)
            fresh += [a for a in some if a not in taken]
            while len(fresh) >= size:
                yield fresh[:size]
                del fresh[:size]
                size = min(2 * size, _LARGEST_BATCH)
        if fresh:
            yield fresh

    def _walk(self, span: Span) -> Iterator[IPv4Address]:
        """Yield every address of the range once, in an order of chance, in memory that does not grow with the range."""
        # x -> x + step (mod size) meets every number once where step and size have no common divisor.
        at, step = self._chance.randrange(span.size), _coprime(span.size, self._chance)
        for _ in range(span.size):
            yield span.first + at
            at = (at + step) % span.size

    def _remember(self, span: Span) -> None:
        # The last one asked for is the last one dropped.
        self._asked.pop((span.first, span.last), None)
        while len(self._asked) >= _MOST_RANGES:
            self._asked.pop(next(iter(self._asked)))
        self._asked[span.first, span.last] = span, self._clock.monotonic()

    async def keep(self) -> None:
        """Fill the pool behind the calls, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(_BEAT_S):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            await each(self._warm(), self._filled, at_once=_FILLED_AT_ONCE)

    async def _filled(self, span: Span) -> None:
        try:
            await self._fill(span)
        except Exception as e:  # noqa: BLE001 - boundary: whatever one range suffers, the others are filled
            held = self._troubles.held_back(type(e).__name__)
            if held is not None:
                _log.warning(f"Addresses of {span} were not probed ahead: {spoken(e)}{and_more(held)}")

    def _warm(self) -> list[Span]:
        now = self._clock.monotonic()
        self._full = {key: at for key, at in self._full.items() if now - at < _FULL_S}
        self._asked = {key: (span, at) for key, (span, at) in self._asked.items() if now - at < _KEPT_WARM_S}
        spans = [span for span, _ in self._asked.values() if (span.first, span.last) not in self._full]
        return spans if self._pool else []

    async def _fill(self, span: Span) -> None:
        claims = await self._claims.live(span.first, span.last)
        known = sum(c.state in ("free", "probing") for c in claims.values())
        if known >= self._pool:
            return
        async for some in self._candidates(span, claims):
            holder = new_holder()
            mine = await self._claims.probing(some[: self._pool - known], holder)
            probed = await self._prober.probed(mine)
            await self._claims.probed(holder, silent=probed.silent, answered=probed.answered)
            return
        # Going through all of it again and again would find the same.
        self._full[span.first, span.last] = self._clock.monotonic()

    async def forget(self) -> None:
        """Drop what counts no longer, now and then, until cancelled."""
        while True:
            await self._clock.sleep(60 + self._chance.uniform(0, 60))
            try:
                await self._claims.forget()
            except MusterError as e:
                _log.info(f"Ended claims of addresses were not dropped: {e}")


def _not_in_time(span: Span) -> Unavailable:
    return Unavailable(f"No address of {span} was found free within {_WITHIN_S:g} s")


def _next(walk: Iterator[IPv4Address], count: int) -> list[IPv4Address]:
    return [a for _, a in zip(range(count), walk, strict=False)]


def _some(addresses: Sequence[IPv4Address], count: int) -> Iterator[Sequence[IPv4Address]]:
    for start in range(0, len(addresses), count):
        yield addresses[start : start + count]


def _coprime(size: int, chance: random.Random) -> int:
    while True:
        step = chance.randrange(size) if size > 1 else 1
        if gcd(step, size) == 1:
            return step


@asynccontextmanager
async def opened(claims: Claims, prober: Prober, *, pool: int) -> AsyncIterator[FreeAddresses]:
    """Yield what finds addresses, its pool kept while the block runs."""
    free = FreeAddresses(claims, prober, pool=pool)
    tasks = [asyncio.create_task(free.keep(), name="dhcp-pool"), asyncio.create_task(free.forget(), name="dhcp-forget")]
    try:
        yield free
    finally:
        await ended(tasks)
