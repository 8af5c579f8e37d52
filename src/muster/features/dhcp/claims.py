"""Which addresses may not be offered, and which are being changed, in the store: one row an address, whoever asks.

A row counts until its time is up, by the store's clock. Nobody clears up behind whoever dies: what a dead member had begun
to probe, or to change, is free again soon, and what it promised stays promised.

====================== ============================================================= ==========================
state                  means                                                         lasts
====================== ============================================================= ==========================
``probing``            ``holder`` finds out whether anything answers there           seconds
``free``               nothing did; whoever is quickest may promise it               ``fresh_s``
``answered``           something did                                                 ``held_s``
``promised``           Foreman was told to use it                                    ``held_s``
``reserved``           it was just reserved for ``mac``, which others may not see yet ``settled_s``
====================== ============================================================= ==========================
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address

from muster.features.dhcp.contract import Reservation
from muster.kernel.errors import Conflict, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import MACAddress
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change, Writing

_log = logger("features")

PROBED_WITHIN_S = 10.0
"""How long an address may be probed; then whoever probes it is taken for dead."""
CHANGED_WITHIN_S = 45.0
"""How long a change may take; longer than any deadline of a provider."""
SETTLED_S = 60.0
"""How long a DHCP server may take to show every member what it has acknowledged to one."""
_WAITED_S = 10.0
_BETWEEN_S = 0.05
# In one statement: a range has millions of addresses, and few of them are claimed at a time.
_MOST_ROWS = 100_000

_LIVE = Query(
    "SELECT address, state, mac, holder, until FROM dhcp_claims WHERE address BETWEEN :first AND :last AND until > :now"
    " ORDER BY address LIMIT :most"
)
_CLAIM = Change(
    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
    " VALUES (:address, :state, '', :holder, {now}, {now} + :for_s)"
    " ON CONFLICT (address) DO UPDATE SET state = excluded.state, mac = '', holder = excluded.holder, at = excluded.at,"
    " until = excluded.until WHERE dhcp_claims.until <= {now}"
)
_MINE = Query("SELECT address FROM dhcp_claims WHERE address BETWEEN :first AND :last AND holder = :holder")
_SETTLE = Change(
    "UPDATE dhcp_claims SET state = :state, at = {now}, until = {now} + :for_s"
    " WHERE address = :address AND holder = :holder AND state = 'probing' AND until > {now}"
)
_PROMISE = Change(
    "UPDATE dhcp_claims SET state = 'promised', mac = :mac, holder = :holder, at = {now}, until = {now} + :for_s"
    " WHERE address = :address AND until > {now} AND (state = 'free' OR state = 'probing' AND holder = :holder)"
)
_FORGET = Change("DELETE FROM dhcp_claims WHERE until <= {now} - 60")
_RESERVE = Change(
    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
    " VALUES (:address, 'reserved', :mac, '', {now}, {now} + :for_s)"
    " ON CONFLICT (address) DO UPDATE SET state = excluded.state, mac = excluded.mac, holder = '', at = excluded.at,"
    " until = excluded.until"
)
_UNRESERVE = Change("DELETE FROM dhcp_claims WHERE address = :address AND state = 'reserved'")
_BEGIN = Change(
    "INSERT INTO dhcp_changes (key, holder, until) VALUES (:key, :holder, {now} + :for_s)"
    " ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE dhcp_changes.until <= {now}"
)
_END = Change("DELETE FROM dhcp_changes WHERE key = :key AND holder = :holder")


class _Held(Exception):
    """Another call changes one of these."""


@dataclass(frozen=True)
class Claim:
    """A row that counts.

    Attributes:
        until: store time.
    """

    address: IPv4Address
    state: str
    mac: str
    holder: str
    until: float


@dataclass
class Changing:
    """A change under way.

    Attributes:
        reserved: the reservation that there is now; whoever makes it sets it.
        removed: addresses that have none any more.
    """

    reserved: Reservation | None = None
    removed: Collection[IPv4Address] = ()


class Claims:
    """The rows. ``held_s``: how long a promise is kept, and how long what answered is left alone.

    Every method raises ``Unavailable`` when the store does not answer.
    """

    def __init__(self, store: Store, *, held_s: float, fresh_s: float) -> None:
        self._store = store
        self._held_s = held_s
        self._fresh_s = fresh_s

    async def live(self, first: IPv4Address, last: IPv4Address) -> Mapping[IPv4Address, Claim]:
        """Return what counts in a range, by address."""
        async with self._store.read() as uow:
            now = await uow.now()
            rows = await uow.rows(_LIVE, first=int(first), last=int(last), now=now, most=_MOST_ROWS)
        claims = (Claim(IPv4Address(r["address"]), r["state"], r["mac"], r["holder"], r["until"]) for r in rows)
        return {c.address: c for c in claims}

    async def probing(self, addresses: Collection[IPv4Address], holder: str) -> list[IPv4Address]:
        """Take addresses to be probed; return those that nobody else has taken, or promised, or reserved."""
        return await self._taken(addresses, "probing", holder, PROBED_WITHIN_S)

    async def promised_as_offered(self, address: IPv4Address, mac: str) -> bool:
        """Promise an address that a DHCP server offered itself; False: it is claimed already."""
        holder = new_holder()

        async def work(uow: Writing) -> bool:
            row = {"address": int(address), "holder": holder, "for_s": self._held_s}
            if not await uow.changed(_CLAIM, {**row, "state": "probing"}):
                return False
            return await uow.changed(_PROMISE, {**row, "mac": mac}) == 1

        return await self._store.carry_out("dhcp-offered", work)

    async def probed(self, holder: str, *, silent: Iterable[IPv4Address], answered: Iterable[IPv4Address]) -> None:
        """Note what came of probing; what became another's meanwhile stays so."""
        states = [
            *({"address": int(a), "state": "free", "for_s": self._fresh_s} for a in silent),
            *({"address": int(a), "state": "answered", "for_s": self._held_s} for a in answered),
        ]
        rows = [{**row, "holder": holder} for row in sorted(states, key=lambda r: int(str(r["address"])))]

        async def work(uow: Writing) -> None:
            await uow.change(_SETTLE, rows)

        if rows:
            await self._store.carry_out("dhcp-probed", work)

    async def promise(self, address: IPv4Address, mac: str, holder: str) -> bool:
        """Promise an address that is free, or was just probed by this holder; False: somebody was quicker.

        When this has returned True no other call of any member does, for the same address, for as long as promises last.
        """
        row = {"address": int(address), "mac": mac, "holder": holder, "for_s": self._held_s}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_PROMISE, row) == 1

        return await self._store.carry_out("dhcp-promised", work)

    async def forget(self) -> None:
        """Drop the rows that have not counted for a minute."""

        async def work(uow: Writing) -> None:
            await uow.change(_FORGET, [{}])

        await self._store.carry_out("dhcp-forgotten", work)

    async def _taken(
        self, addresses: Collection[IPv4Address], state: str, holder: str, for_s: float
    ) -> list[IPv4Address]:
        # In one order, so that no two units wait for each other.
        numbers = sorted(int(a) for a in addresses)
        if not numbers:
            return []
        rows = [{"address": n, "state": state, "holder": holder, "for_s": for_s} for n in numbers]

        async def work(uow: Writing) -> list[IPv4Address]:
            await uow.change(_CLAIM, rows)
            found = await uow.rows(_MINE, first=numbers[0], last=numbers[-1], holder=holder)
            return [IPv4Address(r["address"]) for r in found]

        return await self._store.carry_out("dhcp-probing", work)

    @asynccontextmanager
    async def changing(self, reservations: Sequence[tuple[IPv4Address, MACAddress]]) -> AsyncIterator[Changing]:
        """Hold addresses and hardware addresses while the block changes their reservations, in whatever member.

        Raises:
            Unavailable: another call holds one of them for too long; nothing was changed.
        """
        keys = sorted({k for ip, mac in reservations for k in (f"ip {ip}", f"mac {mac}")})
        holder = new_holder()
        await self._begun(keys, holder)
        change = Changing()
        try:
            yield change
        finally:
            await self._end(keys, holder, change)

    async def reserved_for(self, ip: IPv4Address) -> str | None:
        """Return the hardware address for which an address was reserved a moment ago, None when for none."""
        claim = (await self.live(ip, ip)).get(ip)
        return claim.mac if claim is not None and claim.state == "reserved" else None

    async def _begun(self, keys: Sequence[str], holder: str) -> None:
        rows = [{"key": key, "holder": holder, "for_s": CHANGED_WITHIN_S} for key in keys]

        async def work(uow: Writing) -> None:
            for row in rows:
                if not await uow.changed(_BEGIN, row):
                    # All or none: what leaves the unit undoes it.
                    raise _Held

        clock = asyncio.get_running_loop().time
        end = clock() + _WAITED_S
        while True:
            try:
                return await self._store.carry_out("dhcp-change-begun", work)
            except _Held:
                if clock() > end:
                    what = ", ".join(key.partition(" ")[2] for key in keys)
                    raise Unavailable(
                        f"{what}: another call changes the same reservation; nothing was changed"
                    ) from None
            await asyncio.sleep(_BETWEEN_S)

    async def _end(self, keys: Sequence[str], holder: str, change: Changing) -> None:
        async def work(uow: Writing) -> None:
            if change.reserved is not None:
                one = change.reserved
                row = {"address": int(one.ip), "mac": str(one.mac), "for_s": SETTLED_S}
                await uow.change(_RESERVE, [row])
            await uow.change(_UNRESERVE, [{"address": n} for n in sorted(int(a) for a in change.removed)])
            await uow.change(_END, [{"key": key, "holder": holder} for key in keys])

        try:
            await self._store.carry_out("dhcp-change-ended", work)
        except (Unavailable, Conflict) as e:
            # What was changed on the DHCP server is changed; the rows end by themselves.
            _log.warning(f"A change of a DHCP reservation was not ended in the store, others wait for it: {e}")


def new_holder() -> str:
    """Return a word for one call, which no other has."""
    return secrets.token_hex(8)
