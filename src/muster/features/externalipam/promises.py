"""Which addresses are promised or being changed, in the store: one row an address, whoever asks, whatever IPAM keeps it.

A row counts until its time is up, by the store's clock; nobody clears up behind whoever dies. One whose time would be up
later than anything begun now is from before that clock was set back, and counts no more: by more than ``SET_BACK_S``, since
a store that fails over to a host whose clock lags a little has forgotten nothing.

============== ===================================================================================== ================
state          means                                                                                 lasts
============== ===================================================================================== ================
``promised``   Foreman was told to use it, for ``mac`` where it said one                             ``held_s``
``settled``    it was just added to the IPAM, or perhaps was: a member that had asked the IPAM       ``SETTLED_S``
               before must not promise it
``holder``     a call of a member is changing it, whatever the state                                 ``HELD_S``
============== ===================================================================================== ================
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

from muster.features.externalipam.contract import IPAddress, Subnet
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.log import logger
from muster.store.engine import Store
from muster.store.reading import Query, Readable
from muster.store.writing import Change, Writing

_log = logger("features")

CHANGED_WITHIN_S = 30.0
"""How long a change may take, all that is asked of the IPAM included."""
HELD_S = CHANGED_WITHIN_S + 15.0
"""How long what it changes is held; then whoever changes it is taken for dead."""
FOUND_WITHIN_S = 30.0
"""How long may lie between a question what is free and the promise of it."""
SETTLED_S = FOUND_WITHIN_S + 30.0
"""How long an address that was added is not promised, whatever the IPAM was heard to say."""
LONGEST_S = 24 * 3600.0
"""The longest that a promise may last, whatever a member's settings say."""
SET_BACK_S = 60.0
"""By how much the store's clock may be set back without a row's counting no more."""
_WAITED_S = 10.0
_BETWEEN_S = 0.05
_MOST_ROWS = 1 << 16
_AT_ONCE = 500

# Whether nobody changes a row's address; and whether besides it is promised to nobody.
_UNHELD = f"(ipam_promises.held_until <= {{now}} OR ipam_promises.held_until > {{now}} + {HELD_S + SET_BACK_S})"
_ENDED_BY_NOW = (
    f"({_UNHELD} AND (ipam_promises.until <= {{now}} OR ipam_promises.until > {{now}} + {LONGEST_S + SET_BACK_S}"
    f" OR ipam_promises.state = 'settled' AND ipam_promises.until > {{now}} + {SETTLED_S + SET_BACK_S}))"
)


def _written(text: str) -> str:
    return text.replace("{unheld}", _UNHELD).replace("{ended}", _ENDED_BY_NOW)


_LIVE = Query(
    _written(
        "SELECT address FROM ipam_promises WHERE space = :space AND address BETWEEN :first AND :last"
        " AND NOT {ended} ORDER BY address LIMIT :most"
    ).replace("{now}", ":now")
)
_OF = Query(
    "SELECT address FROM ipam_promises WHERE space = :space AND mac = :mac AND state = 'promised' AND until > :now"
    " AND address BETWEEN :first AND :last ORDER BY address"
)
_PROMISED = Query(
    "SELECT space, address, subnet, mac, until FROM ipam_promises WHERE state = 'promised' AND until > :now"
    " ORDER BY space, address LIMIT :most"
)
_WHOSE = Query(
    "SELECT mac FROM ipam_promises WHERE space = :space AND address = :address AND state = 'promised' AND until > :now"
)
_PROMISE = Change(
    _written(
        "INSERT INTO ipam_promises (space, address, subnet, mac, state, until, holder, held_until)"
        " VALUES (:space, :address, :subnet, :mac, 'promised', {now} + :for_s, '', 0)"
        " ON CONFLICT (space, address) DO UPDATE SET subnet = excluded.subnet, mac = excluded.mac, state = 'promised',"
        " until = excluded.until WHERE {ended}"
    )
)
_RENEW = Change(
    _written(
        "UPDATE ipam_promises SET until = {now} + :for_s WHERE space = :space AND address = :address AND mac = :mac"
        " AND state = 'promised' AND until > {now} AND {unheld}"
    )
)
_HOLD = Change(
    _written(
        "INSERT INTO ipam_promises (space, address, subnet, mac, state, until, holder, held_until)"
        " VALUES (:space, :address, :subnet, '', 'promised', 0, :holder, {now} + :for_s)"
        " ON CONFLICT (space, address) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until"
        " WHERE {unheld}"
    )
)
_SETTLE = Change(
    "UPDATE ipam_promises SET state = 'settled', mac = '', until = {now} + :for_s, holder = '', held_until = 0"
    " WHERE space = :space AND address = :address AND holder = :holder"
)
_LET_GO = Change(
    "UPDATE ipam_promises SET holder = '', held_until = 0"
    " WHERE space = :space AND address = :address AND holder = :holder"
)
_DROP = Change("DELETE FROM ipam_promises WHERE space = :space AND address = :address AND holder = :holder")
_RELEASE = Change(
    _written(
        "DELETE FROM ipam_promises WHERE space = :space AND address = :address AND {unheld}"
        " AND until > {now} AND state = 'promised'"
    )
)
_ENDED = Query(
    "SELECT space, address FROM ipam_promises WHERE until <= :before AND held_until <= :before"
    " ORDER BY space, address LIMIT :most"
)
# One by one in their order, as they are taken, so that no two units wait for each other.
_FORGET = Change(
    "DELETE FROM ipam_promises WHERE space = :space AND address = :address AND until <= {now} - 60"
    " AND held_until <= {now} - 60"
)


class _Held(Exception):
    """Another call changes it."""


def key(ip: IPAddress) -> str:
    """Return an address as it stands in the store: in the order of numbers, IPv4 before IPv6."""
    return f"{ip.version}{int(ip):0{ip.max_prefixlen // 4}x}"


def address(text: str) -> IPAddress:
    """Return the address of a key."""
    return (IPv4Address if text.startswith("4") else IPv6Address)(int(text[1:], 16))


def bounds(subnet: Subnet) -> dict[str, str]:
    """Return the keys of a network's first and last address."""
    network = subnet.network
    return {"first": key(network.network_address), "last": key(network.broadcast_address)}


@dataclass(frozen=True)
class Promise:
    """An address that somebody was told to use.

    Attributes:
        until: store time.
    """

    space: str
    ip: IPAddress
    subnet: str
    mac: str
    until: float


@dataclass
class Changing:
    """A change under way; use :meth:`Promises.changing`.

    Attributes:
        mac: whom the address is promised to; empty: to nobody, or nobody said.
        ends_as: what becomes of the row: ``free`` to be offered again at once, ``settled``, or ``unchanged``.
    """

    mac: str = ""
    ends_as: Literal["free", "settled", "unchanged"] = "unchanged"


class Promises:
    """The rows. ``held_s``: how long a promise is kept.

    Every method raises ``Unavailable`` when the store does not answer.
    """

    def __init__(self, store: Store, *, held_s: float) -> None:
        self._store = store
        self._held_s = held_s

    async def live(self, space: str, subnet: Subnet) -> frozenset[IPAddress]:
        """Return what may not be offered in a subnet."""
        async with self._store.read() as uow:
            now = await uow.now()
            rows = await uow.rows(_LIVE, space=space, **bounds(subnet), now=now, most=_MOST_ROWS)
        return frozenset(address(r["address"]) for r in rows)

    async def of(self, space: str, subnet: Subnet, mac: str) -> Sequence[IPAddress]:
        """Return what of a subnet is promised to a hardware address, ascending."""
        async with self._store.read() as uow:
            rows = await uow.rows(_OF, space=space, mac=mac, **bounds(subnet), now=await uow.now())
        return [address(r["address"]) for r in rows]

    async def promise(self, space: str, subnet: Subnet, among: Sequence[IPAddress], mac: str) -> IPAddress | None:
        """Promise the first of these addresses that is promised to nobody; None: others were quicker for all of them.

        When this has returned an address no other call of any member does, for as long as promises last.
        """
        whose = {"space": space, "subnet": str(subnet.network), "mac": mac, "for_s": self._held_s}

        # In one order, so that no two units wait for each other.
        async def work(uow: Writing) -> IPAddress | None:
            for ip in sorted(among, key=key):
                if await uow.changed(_PROMISE, {"address": key(ip), **whose}):
                    return ip
            return None

        return await self._store.carry_out("ipam-promised", work)

    async def renew(self, space: str, ip: IPAddress, mac: str) -> bool:
        """Keep a promise for longer; False: it is none any more, or is being changed."""
        row = {"space": space, "address": key(ip), "mac": mac, "for_s": self._held_s}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_RENEW, row) == 1

        return await self._store.carry_out("ipam-renewed", work)

    async def release(self, space: str, ip: IPAddress) -> bool:
        """Drop a promise, so that its address may be offered again; False: there is none, or it is being changed."""
        row = {"space": space, "address": key(ip)}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_RELEASE, row) == 1

        return await self._store.carry_out("ipam-released", work)

    async def forget(self) -> None:
        """Drop the rows that have not counted for a minute, some of them if they are many."""

        async def work(uow: Writing) -> None:
            ended = await uow.rows(_ENDED, before=await uow.now() - 60, most=_AT_ONCE)
            await uow.change(_FORGET, [{"space": row["space"], "address": row["address"]} for row in ended])

        await self._store.carry_out("ipam-forgotten", work)

    @asynccontextmanager
    async def changing(self, space: str, subnet: Subnet, ip: IPAddress) -> AsyncIterator[Changing]:
        """Hold an address while the block changes it in the IPAM, in whatever member.

        Raises:
            Unavailable: another call holds it for too long, and nothing was changed; or the block took longer than
                :data:`CHANGED_WITHIN_S`, and whether anything was is unknown.
        """
        row: Mapping[str, object] = {"space": space, "address": key(ip), "holder": secrets.token_hex(8)}
        change = Changing()
        try:
            change.mac = await self._begun(row, str(subnet.network), ip)
            try:
                async with asyncio.timeout(CHANGED_WITHIN_S):
                    yield change
            except TimeoutError:
                raise Unavailable(
                    f"Changing {ip} in the IPAM took longer than {CHANGED_WITHIN_S:g} s; whether it was changed is unknown"
                ) from None
        finally:
            # However the call ends, also when its client has gone: others would wait for it.
            await asyncio.shield(asyncio.ensure_future(self._ended(row, change)))

    async def _begun(self, row: Mapping[str, object], subnet: str, ip: IPAddress) -> str:
        """Hold the address; return whom it is promised to."""
        held = {**row, "subnet": subnet, "for_s": HELD_S}

        async def work(uow: Writing) -> str:
            if not await uow.changed(_HOLD, held):
                raise _Held
            found = await uow.rows(_WHOSE, space=row["space"], address=row["address"], now=await uow.now())
            return str(found[0]["mac"]) if found else ""

        clock = asyncio.get_running_loop().time
        end = clock() + _WAITED_S
        while True:
            try:
                return await self._store.carry_out("ipam-change-begun", work)
            except _Held:
                if clock() > end:
                    raise Unavailable(f"{ip}: another call changes the same address; nothing was changed") from None
            await asyncio.sleep(_BETWEEN_S)

    async def _ended(self, row: Mapping[str, object], change: Changing) -> None:
        async def work(uow: Writing) -> None:
            match change.ends_as:
                case "free":
                    await uow.change(_DROP, [row])
                case "settled":
                    await uow.change(_SETTLE, [{**row, "for_s": SETTLED_S}])
                case "unchanged":
                    await uow.change(_LET_GO, [row])

        try:
            await self._store.carry_out("ipam-change-ended", work)
        except MusterError as e:
            # What was changed in the IPAM is changed; the row ends by itself.
            _log.warning(f"A change of an address was not ended in the store, others wait for it: {e}")


async def promised(store: Readable) -> tuple[Sequence[Promise], float]:
    """Return all promises there are, by space and address, and the store's time.

    Raises:
        Unavailable: the store did not answer.
    """
    async with store.read() as uow:
        now = await uow.now()
        rows = await uow.rows(_PROMISED, now=now, most=_MOST_ROWS)
    return [Promise(r["space"], address(r["address"]), r["subnet"], r["mac"], r["until"]) for r in rows], now
