"""The roster: what each member last said of itself, and what administrators wish of it.

A member writes only its own row, once a beat; a wish is a row of its own that the member reads in the same unit. Ages are
in store time, so members whose clocks differ still agree on who is silent.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from muster.cluster.life import Life, life_of
from muster.kernel.errors import Conflict
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from muster.store.engine import Store

Wanted = Literal["ready", "drain"]
Target = Literal["ready", "drain", "maintenance", "removed"]

_MEMBERS = Query(
    "SELECT name, member_id, version, schema_version, host, pid, state, reason, features, readiness, certificate,"
    " started_at, heartbeat_at FROM members ORDER BY member_id",
    json=("features", "readiness", "certificate"),
)
_WISH = 'SELECT member, wanted, reason, "by", version, goal, forced FROM wishes'
_WISHES = Query(_WISH)
_WISH_FOR = Query(f"{_WISH} WHERE member = :member")

# Beats are one second apart; a member that missed five is not there.
SILENT_AFTER_S = 5.0


@dataclass(frozen=True)
class Report:
    """What a member says of itself.

    Attributes:
        features: state by feature name.
        readiness: ``{"state": …, "reason": …}`` by service name.
        certificate: subject, expiry (seconds since the epoch) and fingerprint of the certificate it presents.
    """

    name: str
    member_id: int
    version: str
    schema_version: str
    host: str
    pid: int
    state: Literal["starting", "ready", "draining", "stopping"]
    reason: str
    features: dict[str, str]
    readiness: dict[str, dict[str, str]]
    certificate: dict[str, Any]


@dataclass(frozen=True)
class Wish:
    """What somebody wants of a member; ``version`` 0 means nobody ever wanted anything.

    Attributes:
        goal: what a drain is for: ``maintenance`` or ``removed``; None: nothing further.
        forced: also when too few members stay ready, or the only signer goes.
    """

    wanted: Wanted = "ready"
    reason: str = ""
    by: str = ""
    version: int = 0
    goal: str | None = None
    forced: bool = False

    @property
    def target(self) -> Target:
        """Where the member shall end."""
        # Members of schema 0001 wish "ready" and leave the goal of the drain before as it stands.
        if self.wanted == "drain" and self.goal in ("maintenance", "removed"):
            return self.goal  # type: ignore[return-value]
        return self.wanted

    def as_reason(self) -> str:
        """Return who wants it and why, in one clause."""
        verb = {"drain": "drained", "maintenance": "put into maintenance", "removed": "removed"}.get(self.target, "")
        return f"{verb} by {self.by}{': ' + self.reason if self.reason else ''}" if verb else f"wanted by {self.by}"


@dataclass(frozen=True)
class Seen:
    """A member's row: its last report, the age of it in store time, and the wish for it."""

    report: Report
    started_at: float
    age_s: float
    wish: Wish

    @property
    def silent(self) -> bool:
        return self.age_s > SILENT_AFTER_S

    def as_json(self) -> dict[str, Any]:
        return {
            **asdict(self.report),
            "started_at": self.started_at,
            "age_s": round(self.age_s, 3),
            "silent": self.silent,
            "wish": asdict(self.wish),
        }


@dataclass(frozen=True)
class Told:
    """What a member learns at its beat.

    Attributes:
        life: None until the steward has decided anything about it.
    """

    wish: Wish
    life: Life | None

    @property
    def leaving(self) -> str:
        """Why the member shall take no new clients; empty when it shall."""
        if self.life is None:
            return self.wish.as_reason() if self.wish.wanted == "drain" else ""
        return self.life.reason if self.life.is_leaving else ""


class Roster:
    """The members' rows in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def beat(self, report: Report, *, first: bool) -> Told:
        """Write a member's report and return what is wished of and decided about it; ``first`` also marks its start.

        Raises:
            Unavailable: the store did not answer.
        """
        from sqlalchemy import insert, update

        from muster.store.tables import members, store_now

        values = {**asdict(report), "heartbeat_at": store_now()}
        if first:
            values["started_at"] = store_now()
        async with self._store.write("beat") as uow:
            changed = await uow.connection.execute(
                update(members)
                .where(members.c.name == report.name)
                .values(**values, version_number=members.c.version_number + 1)
            )
            if changed.rowcount == 0:
                await uow.connection.execute(insert(members).values(**{"started_at": store_now(), **values}))
            return Told(await _wish(uow, report.name), await life_of(uow, report.name))

    async def seen(self) -> dict[str, Seen]:
        """Return every member that ever reported, by name.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await seen_in(uow)

    async def wishes(self) -> dict[str, Wish]:
        """Return every wish, by member; of a member that never reported, too.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await wishes_in(uow)

    async def wish(
        self,
        member: str,
        wanted: Target,
        *,
        reason: str,
        by: str,
        expected: int | None = None,
        forced: bool = False,
    ) -> Wish:
        """Change what is wished of a member; ``expected`` is the version the decision was made on.

        Raises:
            Conflict: somebody wished something else meanwhile; nothing was changed.
            Unavailable: the store did not answer.
        """
        from sqlalchemy import insert, update

        from muster.store.tables import store_now, wishes

        async with self._store.write("wish") as uow:
            before = await _wish(uow, member)
            if expected is not None and before.version != expected:
                raise Conflict(f"{before.by} wished {member} to be {before.target} meanwhile ({before.reason})")
            goal = wanted if wanted in ("maintenance", "removed") else None
            after = Wish("ready" if wanted == "ready" else "drain", reason, by, before.version + 1, goal, forced)
            values = {**asdict(after), "forced": int(forced), "at": store_now()}
            if before.version:
                await uow.connection.execute(update(wishes).where(wishes.c.member == member).values(**values))
            else:
                await uow.connection.execute(insert(wishes).values(member=member, **values))
            return after


async def seen_in(uow: Reading) -> dict[str, Seen]:
    """Return every member that ever reported, by name."""
    now = await uow.now()
    rows = await uow.rows(_MEMBERS)
    wished = await wishes_in(uow)
    fields = Report.__dataclass_fields__
    return {
        row["name"]: Seen(
            Report(**{f: row[f] for f in fields}),
            row["started_at"],
            max(0.0, now - row["heartbeat_at"]),
            wished.get(row["name"], Wish()),
        )
        for row in rows
    }


async def wishes_in(uow: Reading) -> dict[str, Wish]:
    """Return every wish, by member."""
    return {row["member"]: _as_wish(row) for row in await uow.rows(_WISHES)}


async def _wish(uow: Reading, member: str) -> Wish:
    found = await uow.rows(_WISH_FOR, member=member)
    return _as_wish(found[0]) if found else Wish()


def _as_wish(row: Any) -> Wish:
    return Wish(row["wanted"], row["reason"], row["by"], row["version"], row["goal"], bool(row["forced"]))
