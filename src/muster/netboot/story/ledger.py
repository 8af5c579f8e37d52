"""The rows: what happened, to which machine, where. The clock is the store's, so that members' rows have one order."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.store.engine import Store
from muster.store.reading import Query, Reading
from muster.store.writing import Change, Writing

KEPT_S = 7 * 86_400.0
KEPT_OF_ONE = 200
KEPT_OF_ALL = 50_000
KEPT_UNPROVEN = 30_000
"""How long a row is kept, and how many: of one machine (or of one address that is no machine's), and of all.

Whoever reaches a member can ask for any machine's menu. So rows that neither Foreman nor a DHCP server vouches for are
counted by themselves, ``KEPT_OF_ONE`` of each machine and ``KEPT_UNPROVEN`` of all, and push out each other alone.
"""

LOST = "lost"
"""The kind of the row that says how many a member could not write; it is of no machine."""

OF_MACHINES = frozenset({"tftp", "http", "template", "built"})
"""What machines do by themselves, of which a member sees an address alone."""

# Of an address, whose rows may be of several machines.
_OF_ONE_ADDRESS = 2 * KEPT_OF_ONE
_ADDRESSES = 20
_NEWEST = 1000
_NAMED = 5000
_TOO_MANY = 500

# As json.dumps writes it; within a text its quotes would be escaped.
_DHCP = '%"mac_from": "dhcp"%'


def _by_proof(sql: str) -> str:
    """Return a statement with ``{unproven}`` as 1 for rows that are no :attr:`Event.is_proven`, 0 for others."""
    return sql.replace(
        "{unproven}",
        "(CASE WHEN kind IN ('tftp', 'http', 'template', 'built') AND detail NOT LIKE :dhcp THEN 1 ELSE 0 END)",
    )


_TELL = Change(
    "INSERT INTO boot_events (mac, address, at, member, kind, detail)"
    " VALUES (:mac, :address, {now} - :age_s, :member, :kind, :detail)"
)
_OF = Query(
    _by_proof(
        "SELECT id, mac, address, at, member, kind, detail FROM boot_events WHERE mac = :mac"
        " AND {unproven} = :unproven ORDER BY id DESC LIMIT :most"
    )
)
_AT = Query(
    "SELECT id, mac, address, at, member, kind, detail FROM boot_events WHERE address = :address"
    " ORDER BY id DESC LIMIT :most"
)
_LOST = Query(
    "SELECT id, mac, address, at, member, kind, detail FROM boot_events WHERE mac = '' AND address = ''"
    " AND at >= :since AND at <= :until ORDER BY id DESC LIMIT :most"
)
_ALL = Query(
    _by_proof(
        "SELECT id, mac, address, at, member, kind, detail FROM boot_events WHERE {unproven} = :unproven"
        " ORDER BY id DESC LIMIT :most"
    )
)
_RESERVED = Query(
    "SELECT id, mac, address, at, member, kind, detail FROM boot_events WHERE kind = 'reserved'"
    " ORDER BY id DESC LIMIT :most"
)
_CROWDED = Query(
    _by_proof(
        "SELECT mac, CASE WHEN mac = '' THEN address ELSE '' END AS at_address, {unproven} AS unproven FROM boot_events"
        " GROUP BY 1, 2, 3 HAVING count(*) > :kept LIMIT :most"
    )
)
_END = Change("DELETE FROM boot_events WHERE at < {now} - :kept_s")
_BOUND = Change(
    "DELETE FROM boot_events WHERE id <= (SELECT id FROM boot_events ORDER BY id DESC LIMIT 1 OFFSET :kept)"
)
_BOUND_UNPROVEN = Change(
    _by_proof(
        "DELETE FROM boot_events WHERE {unproven} = 1 AND id <="
        " (SELECT id FROM boot_events WHERE {unproven} = 1 ORDER BY id DESC LIMIT 1 OFFSET :kept)"
    )
)
_BOUND_OF = Change(
    _by_proof(
        "DELETE FROM boot_events WHERE mac = :mac AND {unproven} = :unproven AND id <="
        " (SELECT id FROM boot_events WHERE mac = :mac AND {unproven} = :unproven ORDER BY id DESC LIMIT 1 OFFSET :kept)"
    )
)
_BOUND_AT = Change(
    "DELETE FROM boot_events WHERE address = :address AND mac = '' AND id <="
    " (SELECT id FROM boot_events WHERE address = :address AND mac = '' ORDER BY id DESC LIMIT 1 OFFSET :kept)"
)


@dataclass(frozen=True, slots=True)
class Event:
    """A row.

    Attributes:
        mac: empty: whoever saw it knew the address alone.
        at: store time, seconds since the epoch.
        detail: as in :class:`~muster.kernel.happenings.Happening`; ``mac_from`` says how the hardware address is known
            where the machine did not say it by itself: ``dhcp``, ``path``, ``header``.
    """

    id: int
    mac: str
    address: str
    at: float
    member: str
    kind: str
    detail: Mapping[str, Any]

    @property
    def is_proven(self) -> bool:
        """Whether Foreman or a DHCP server vouches for whose it is."""
        return self.kind not in OF_MACHINES or self.detail.get("mac_from") == "dhcp"


@dataclass(frozen=True)
class Found:
    """What there is to tell of one machine or address.

    Attributes:
        events: every row that may be of it, and rows that say whose its addresses were; ascending.
        lost: how many rows members could not write meanwhile, by member.
    """

    events: Sequence[Event]
    lost: Mapping[str, int]


class BootEvents:
    """What members write; every method raises ``Unavailable`` when the store does not answer."""

    def __init__(self, store: Store, member: str) -> None:
        self._store = store
        self._member = member

    async def tell(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write rows: ``mac``, ``address``, ``age_s``, ``kind`` and ``detail``, a mapping."""
        written = [{**r, "member": self._member, "detail": json.dumps(r["detail"])} for r in rows]

        async def work(uow: Writing) -> None:
            await uow.change(_TELL, written)

        await self._store.carry_out("boot-story-told", work)

    async def forget(self) -> None:
        """Drop what is older or more than is kept; one member at a time should."""

        async def work(uow: Writing) -> None:
            await uow.change(_END, [{"kept_s": KEPT_S}])
            await uow.change(_BOUND_UNPROVEN, [{"kept": KEPT_UNPROVEN, "dhcp": _DHCP}])
            await uow.change(_BOUND, [{"kept": KEPT_OF_ALL}])
            crowded = await uow.rows(_CROWDED, kept=KEPT_OF_ONE, most=_TOO_MANY, dhcp=_DHCP)
            bounds = {"kept": KEPT_OF_ONE, "dhcp": _DHCP}
            of_machines = [{"mac": r["mac"], "unproven": r["unproven"], **bounds} for r in crowded if r["mac"]]
            await uow.change(_BOUND_OF, of_machines)
            of_addresses = [r["at_address"] for r in crowded if not r["mac"]]
            await uow.change(_BOUND_AT, [{"address": a, "kept": KEPT_OF_ONE} for a in of_addresses])

        await self._store.carry_out("boot-story-forgotten", work)


async def of_mac(uow: Reading, mac: str) -> Found:
    """Return what there is of a hardware address, and of the addresses that it had."""
    mine = [
        e for unproven in (0, 1)
        for e in _events(await uow.rows(_OF, mac=mac, most=KEPT_OF_ONE, unproven=unproven, dhcp=_DHCP))
    ]  # fmt: skip
    addresses = list(dict.fromkeys(e.address for e in mine if e.address))[:_ADDRESSES]
    return await _with(uow, mine, addresses)


async def of_address(uow: Reading, address: str) -> Found:
    """Return what there is of an IP address, whichever machine had it."""
    return await _with(uow, [], [address])


async def named(uow: Reading, name: str) -> str | None:
    """Return the hardware address for which a name was reserved last; None: of none that is told of.

    ``name``: whole, or up to its first dot.
    """
    wanted = name.lower().rstrip(".")
    for event in _events(await uow.rows(_RESERVED, most=_NAMED)):
        has = str(event.detail.get("name") or "").lower()
        if has and wanted in (has, has.partition(".")[0]):
            return event.mac or None
    return None


async def newest(uow: Reading) -> Sequence[Event]:
    """Return the newest rows of all machines, ascending as :attr:`Found.events` are; so many are unproven at most."""
    both = [e for u in (0, 1) for e in _events(await uow.rows(_ALL, most=_NEWEST, unproven=u, dhcp=_DHCP))]
    return sorted(both, key=lambda e: (e.at, e.id))


async def _with(uow: Reading, mine: Sequence[Event], addresses: Sequence[str]) -> Found:
    all_ = {e.id: e for e in mine}
    for address in addresses:
        at = _events(await uow.rows(_AT, address=address, most=_OF_ONE_ADDRESS))
        all_ |= {e.id: e for e in at}
    events = sorted(all_.values(), key=lambda e: (e.at, e.id))
    lost: dict[str, int] = {}
    if events:
        span = {"since": events[0].at, "until": events[-1].at + 60.0}
        for one in _events(await uow.rows(_LOST, **span, most=KEPT_OF_ONE)):
            lost[one.member] = lost.get(one.member, 0) + int(one.detail.get("count") or 0)
    return Found(events, lost)


def _events(rows: Sequence[Mapping[str, Any]]) -> list[Event]:
    return [
        Event(r["id"], r["mac"], r["address"], r["at"], r["member"], r["kind"], json.loads(r["detail"])) for r in rows
    ]
