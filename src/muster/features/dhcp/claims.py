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
``reserved``           it is being, or was just reserved for ``mac``, though others   ``SETTLED_S``
                       may not see it yet, and the DHCP server may not have answered
====================== ============================================================= ==========================
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import MACAddress
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change, Writing

_log = logger("features")

PROBED_WITHIN_S = 10.0
"""How long an address may be probed; then whoever probes it is taken for dead."""
CHANGED_WITHIN_S = 30.0
"""How long a change may take, all that is asked of the DHCP server included."""
HELD_S = CHANGED_WITHIN_S + 15.0
"""How long what it changes is held; then whoever changes it is taken for dead."""
SETTLED_S = 60.0
"""How long a DHCP server may take to show every member what it has acknowledged to one."""
SET_BACK_S = 60.0
"""By how much the store's clock may be set back, as by a failover to a host whose clock lags, while a lock holds."""
_WAITED_S = 10.0
_BETWEEN_S = 0.05
# In one statement: a range has millions of addresses, and few of them are claimed at a time.
_MOST_ROWS = 1 << 18
_AT_ONCE = 500

_LIVE = Query(
    "SELECT address, state, mac, holder, until FROM dhcp_claims WHERE address BETWEEN :first AND :last AND until > :now"
    " ORDER BY address LIMIT :most"
)
_RESERVED_OF = Query("SELECT address FROM dhcp_claims WHERE mac = :mac AND state = 'reserved' AND until > :now")
_RESERVED = Query(
    "SELECT address, mac FROM dhcp_claims WHERE address = :address AND state = 'reserved' AND until > :now"
)
_CLAIM = Change(
    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
    " VALUES (:address, :state, :mac, :holder, {now}, {now} + :for_s)"
    " ON CONFLICT (address) DO UPDATE SET state = excluded.state, mac = excluded.mac, holder = excluded.holder,"
    " at = excluded.at, until = excluded.until WHERE dhcp_claims.until <= {now}"
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
# Whom it is promised to already; or, as when nobody promised it, whoever has it on the DHCP server.
_KEEP = Change(
    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
    " VALUES (:address, 'promised', :mac, :holder, {now}, {now} + :for_s)"
    " ON CONFLICT (address) DO UPDATE SET state = excluded.state, mac = excluded.mac, holder = excluded.holder,"
    " at = excluded.at, until = excluded.until WHERE dhcp_claims.until <= {now}"
    " OR dhcp_claims.state IN ('free', 'probing', 'answered')"
    " OR dhcp_claims.state = 'promised' AND dhcp_claims.mac = excluded.mac"
)
_ENDED = Query("SELECT address FROM dhcp_claims WHERE until <= :before ORDER BY address LIMIT :most")
# One by one in their order, as they are taken, so that no two units wait for each other.
_FORGET = Change("DELETE FROM dhcp_claims WHERE address = :address AND until <= {now} - 60")
_FORGET_CHANGES = Change("DELETE FROM dhcp_changes WHERE until <= {now} - 60")
_RESERVE = Change(
    "INSERT INTO dhcp_claims (address, state, mac, holder, at, until)"
    " VALUES (:address, 'reserved', :mac, '', {now}, {now} + :for_s)"
    " ON CONFLICT (address) DO UPDATE SET state = excluded.state, mac = excluded.mac, holder = '', at = excluded.at,"
    " until = excluded.until"
)
_UNRESERVE = Change("DELETE FROM dhcp_claims WHERE address = :address AND state = 'reserved' AND mac = :mac")
_BEGIN = Change(
    "INSERT INTO dhcp_changes (key, holder, until) VALUES (:key, :holder, {now} + :for_s)"
    " ON CONFLICT (key) DO UPDATE SET holder = excluded.holder, until = excluded.until WHERE dhcp_changes.until <= {now}"
    # From before the store's clock was set back, by more than one store's lags behind another's.
    " OR dhcp_changes.until > {now} + :void_s"
)
_GO_ON = Change(
    "UPDATE dhcp_changes SET until = {now} + :for_s WHERE key = :key AND holder = :holder AND until > {now}"
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
    """A change under way; use :meth:`Claims.changing`."""

    _store: Store
    _keys: Sequence[str]
    _holder: str
    reserved_for: str | None = None
    """The hardware address for which the address was reserved a moment ago, None: for none."""
    _gone: list[dict[str, object]] = field(default_factory=list)

    async def reserve(self, ip: IPv4Address, mac: MACAddress) -> None:
        """Let all members know that an address is a machine's from now on, before the DHCP server is told.

        So it stays when nobody hears what came of that. The change is held anew.

        Raises:
            Unavailable: it took too long, and somebody else may change the same; or the store did not answer.
        """
        row = {"address": int(ip), "mac": str(mac), "for_s": SETTLED_S}

        async def work(uow: Writing) -> None:
            for key in self._keys:
                if not await uow.changed(_GO_ON, {"key": key, "holder": self._holder, "for_s": HELD_S}):
                    raise _Held
            await uow.change(_RESERVE, [row])

        try:
            await self._store.carry_out("dhcp-reserving", work)
        except _Held:
            raise Unavailable(f"Changing the reservation of {ip} took too long; nothing was changed") from None

    def refused(self, ip: IPv4Address, mac: MACAddress) -> None:
        """Take back that an address is a machine's: the DHCP server has refused it, or removed the reservation."""
        self._gone.append({"address": int(ip), "mac": str(mac)})

    async def end(self) -> None:
        """Let others change the same."""

        async def work(uow: Writing) -> None:
            await uow.change(_UNRESERVE, sorted(self._gone, key=lambda row: str(row["address"])))
            await uow.change(_END, [{"key": key, "holder": self._holder} for key in self._keys])

        try:
            await self._store.carry_out("dhcp-change-ended", work)
        except MusterError as e:
            # What was changed on the DHCP server is changed; the rows end by themselves.
            _log.warning(f"A change of a DHCP reservation was not ended in the store, others wait for it: {e}")


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
        # In one order, so that no two units wait for each other.
        numbers = sorted(int(a) for a in addresses)
        if not numbers:
            return []
        whose = {"state": "probing", "mac": "", "holder": holder, "for_s": PROBED_WITHIN_S}

        async def work(uow: Writing) -> list[IPv4Address]:
            await uow.change(_CLAIM, [{"address": n, **whose} for n in numbers])
            found = await uow.rows(_MINE, first=numbers[0], last=numbers[-1], holder=holder)
            return [IPv4Address(r["address"]) for r in found]

        return await self._store.carry_out("dhcp-probing", work)

    async def promised_as_offered(self, address: IPv4Address, mac: str) -> bool:
        """Promise an address that a DHCP server offered itself; False: it is claimed already."""
        whose = {"state": "promised", "mac": mac, "holder": new_holder()}
        row = {"address": int(address), **whose, "for_s": self._held_s}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_CLAIM, row) == 1

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

    async def keep(self, address: IPv4Address, mac: MACAddress) -> bool:
        """Promise an address to a machine that has it on the DHCP server; False: it is promised or reserved to another.

        When this has returned True nobody else is told of it for as long as promises last.
        """
        claim = (await self.live(address, address)).get(address)
        if claim is not None and claim.state == "reserved":
            return claim.mac == mac
        row = {"address": int(address), "mac": str(mac), "holder": new_holder(), "for_s": self._held_s}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_KEEP, row) == 1

        return await self._store.carry_out("dhcp-kept", work)

    async def reserved_of(self, mac: MACAddress) -> IPv4Address | None:
        """Return the address that was reserved for a hardware address a moment ago, None when none was."""
        return await self._reserved(_RESERVED_OF, mac=str(mac))

    async def reserved_at(self, ip: IPv4Address) -> IPv4Address | None:
        """Return an address when it was reserved for anybody a moment ago, else None."""
        return await self._reserved(_RESERVED, address=int(ip))

    async def _reserved(self, query: Query, **what: str | int) -> IPv4Address | None:
        async with self._store.read() as uow:
            found = await uow.rows(query, **what, now=await uow.now())
        return IPv4Address(found[0]["address"]) if found else None

    async def forget(self) -> None:
        """Drop the rows that have not counted for a minute, some of them if they are many."""

        async def work(uow: Writing) -> None:
            ended = await uow.rows(_ENDED, before=await uow.now() - 60, most=_AT_ONCE)
            await uow.change(_FORGET, [{"address": row["address"]} for row in ended])
            await uow.change(_FORGET_CHANGES, [{}])

        await self._store.carry_out("dhcp-forgotten", work)

    @asynccontextmanager
    async def changing(self, ip: IPv4Address, mac: MACAddress) -> AsyncIterator[Changing]:
        """Hold an address and a hardware address while the block changes their reservation, in whatever member.

        Raises:
            Unavailable: another call holds one of them for too long, and nothing was changed; or the block took longer than
                :data:`CHANGED_WITHIN_S`, and whether anything was is unknown.
        """
        change = Changing(self._store, sorted((f"ip {ip}", f"mac {mac}")), new_holder())
        try:
            change.reserved_for = await self._begun(change, ip)
            try:
                async with asyncio.timeout(CHANGED_WITHIN_S):
                    yield change
            except TimeoutError:
                raise Unavailable(
                    f"Changing the reservation of {ip} took longer than {CHANGED_WITHIN_S:g} s; whether it was changed is "
                    "unknown"
                ) from None
        finally:
            # However the call ends, also when its client has gone: others would wait for it.
            await asyncio.shield(asyncio.ensure_future(change.end()))

    async def _begun(self, change: Changing, ip: IPv4Address) -> str | None:
        """Hold what is to be changed; return for which hardware address the address is reserved."""
        rows = [
            {"key": key, "holder": change._holder, "for_s": HELD_S, "void_s": HELD_S + SET_BACK_S}
            for key in change._keys
        ]

        async def work(uow: Writing) -> str | None:
            for row in rows:
                if not await uow.changed(_BEGIN, row):
                    # All or none: what leaves the unit undoes it.
                    raise _Held
            found = await uow.rows(_RESERVED, address=int(ip), now=await uow.now())
            return str(found[0]["mac"]) if found else None

        clock = asyncio.get_running_loop().time
        end = clock() + _WAITED_S
        while True:
            try:
                return await self._store.carry_out("dhcp-change-begun", work)
            except _Held:
                if clock() > end:
                    what = ", ".join(key.partition(" ")[2] for key in change._keys)
                    raise Unavailable(
                        f"{what}: another call changes the same reservation; nothing was changed"
                    ) from None
            await asyncio.sleep(_BETWEEN_S)


def new_holder() -> str:
    """Return a word for one call, which no other has."""
    return secrets.token_hex(8)
