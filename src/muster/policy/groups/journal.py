"""What groups were asked to change, in the store: changes under way, and those that a provider has not had yet.

A change is written down before a provider hears of it, and crossed out when every provider has had it. Who dies in between
leaves it behind; when its time is up it becomes a *repair* of every provider, carried out again by whichever member is
quickest. What a provider missed is a repair, too. Repairs of one provider are carried out in their order, and while it has
any, what is asked of it comes behind them: what was asked for first is done first, whoever does it.

====================== ==============================================================================================
row                    means
====================== ==============================================================================================
``group_changes``      ``holder`` carries the change out at the providers, until ``until``; one a key at a time
``group_repairs``      ``provider`` has not had the change; with ``stuck`` it refused it, which a person has to look at
====================== ==============================================================================================

Whatever stands in ``group_repairs`` may be carried out at any time, for two reasons. A change that settles an earlier one
(the removal of what was to be added) takes that one's row away, also that of a provider which is not in the settings now.
And a change that follows an earlier one (an addition after a removal) comes to stand behind it: pending behind what is
pending, stuck behind what is stuck. So nothing is carried out over what was asked for later, however old it is when a person
has it tried again; and of one name there are a few rows at most, however often it is changed while a provider is away.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from muster.kernel.errors import Conflict, NotFound, Unavailable
from muster.store.engine import Store
from muster.store.reading import Query, Readable, Reading
from muster.store.writing import Change, Writing

HELD_S = 60.0
"""How long a change may be under way; then whoever carries it out is taken for dead."""
_WAITED_S = 10.0
_BETWEEN_S = 0.05
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
SET_BACK_S = 60.0
"""By how much the store's clock may be set back, as by a failover to a host whose clock lags, without a row's counting no
more: what ends later than anything begun now would is from before that."""
_LIMIT_WHY = 1000
_MOST = 1000
# Of one provider at a time: each is a few hundred bytes.
_MOST_WAITING = 2000

_UNDER_WAY = Query(
    "SELECT key, operation, arguments, holder, until FROM group_changes WHERE group_name = :group AND key = :key"
)
_ENDED = Query(
    "SELECT key, operation, arguments, holder FROM group_changes"
    " WHERE group_name = :group AND (until <= :now OR until > :void) ORDER BY at, key LIMIT :most"
)
_BEGIN = Change(
    "INSERT INTO group_changes (group_name, key, operation, arguments, holder, at, until)"
    " VALUES (:group, :key, :operation, :arguments, :holder, {now}, {now} + :for_s)"
)
_END = Change("DELETE FROM group_changes WHERE group_name = :group AND key = :key AND holder = :holder")
_BEHIND = Query(
    "SELECT provider, count(*) AS count FROM group_repairs WHERE group_name = :group AND stuck = :stuck GROUP BY provider"
)
_ADD = Change(
    "INSERT INTO group_repairs (group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why)"
    " VALUES (:group, :provider, :key, :operation, :arguments, {now}, 0, {now} + :pause_s, :stuck, :why)"
)
_NEXT = Query(
    "SELECT id, group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why"
    " FROM group_repairs WHERE group_name = :group AND provider = :provider AND stuck = 0"
    " ORDER BY id LIMIT :most"
)
_PENDING = Query(
    "SELECT id, group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why"
    " FROM group_repairs WHERE group_name = :group AND stuck = 0 ORDER BY id LIMIT :most"
)
_OF_KEY = Query(
    "SELECT id, group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why"
    " FROM group_repairs WHERE group_name = :group AND key = :key ORDER BY id"
)
_ALL = Query(
    "SELECT id, group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why"
    " FROM group_repairs WHERE id > :after ORDER BY id LIMIT :most"
)
_ONE = Query(
    "SELECT id, group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why"
    " FROM group_repairs WHERE id = :id"
)
_DONE = Change("DELETE FROM group_repairs WHERE id = :id")
_AGAIN = Change(
    "UPDATE group_repairs SET attempts = attempts + 1, next_at = {now} + :pause_s, why = :why WHERE id = :id"
)
_STUCK = Change("UPDATE group_repairs SET attempts = attempts + 1, stuck = 1, why = :why WHERE id = :id")
_NOW = Change(
    "UPDATE group_repairs SET stuck = 0, next_at = {now}"
    " WHERE group_name = :group AND provider = :provider AND key = :key AND id <= :id"
)


@dataclass(frozen=True, slots=True)
class Written:
    """A change as it is written down.

    Attributes:
        key: what it changes; of two with one key the second waits for the first.
        arguments: JSON.
    """

    key: str
    operation: str
    arguments: Any


@dataclass(frozen=True, slots=True)
class Repair:
    """A change that a provider has not had.

    Attributes:
        at, next_at: store time.
        is_stuck: the provider refused it; it is not tried again by itself.
    """

    id: int
    group: str
    provider: str
    written: Written
    at: float
    attempts: int = 0
    next_at: float = 0.0
    is_stuck: bool = False
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        written = self.written
        return {
            "id": self.id, "group": self.group, "provider": self.provider, "key": written.key,
            "operation": written.operation, "arguments": written.arguments, "at": self.at, "attempts": self.attempts,
            "next_at": self.next_at, "stuck": self.is_stuck, "why": self.why,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Missed:
    """A provider that has not had a change that others have had."""

    provider: str
    why: str
    is_stuck: bool = False


class Order(Protocol):
    """How the changes of a contract bear upon each other. All is pure, and does with arguments of any shape."""

    def touches(self, written: Written) -> frozenset[str]:
        """Return all that a change may depend on: those that share nothing may be made in any order."""

    def settles(self, later: Written, earlier: Written) -> bool:
        """Whether nothing of an earlier change of the key is wanted once a later one was asked for."""

    def follows(self, later: Written, earlier: Written) -> bool:
        """Whether an earlier change of the key that is not settled would undo a later one, if it were made after that."""


class ByKey:
    """The order where nothing more is known: all changes of a key, one after another."""

    def touches(self, written: Written) -> frozenset[str]:
        return frozenset({written.key})

    def settles(self, later: Written, earlier: Written) -> bool:  # noqa: ARG002
        return False

    def follows(self, later: Written, earlier: Written) -> bool:
        return later.key == earlier.key


@dataclass(frozen=True, slots=True)
class Begun:
    """A change that was written down.

    Attributes:
        behind: how many changes each provider that is behind has not had.
        touching: those of them of which one may depend on it.
        refusing: providers that refused an earlier change, which this one does not settle and so has to follow.
        at: by the loop's clock, no later than others know of it.
    """

    holder: str
    behind: Mapping[str, int]
    at: float
    touching: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()


class Journal:
    """What one group was asked to change.

    Concurrency: any number of members and tasks.
    """

    def __init__(
        self, store: Store, group: str, providers: Sequence[str], order: Order | None = None, *, held_s: float = HELD_S
    ) -> None:
        self._store, self._group, self._providers, self.held_s = store, group, list(providers), held_s
        self._order = order or ByKey()

    async def begin(self, written: Written, holder: str = "") -> Begun:
        """Write a change down.

        Another change of the same key is waited for; one whose member died becomes repairs first.

        ``holder`` is unique to the call; empty: one is made.

        Raises:
            Unavailable: the other change took too long, and nothing was changed; or the store did not answer, and whether
                it is written down is unknown: :meth:`end` it.
        """
        holder = holder or secrets.token_hex(8)
        clock = asyncio.get_running_loop().time
        at = clock()
        limit = at + _WAITED_S

        async def work(unit: Writing) -> Begun | None:
            now = await unit.now()
            for row in await unit.rows(_UNDER_WAY, group=self._group, key=written.key):
                if now < row["until"] <= now + self._void_s:
                    return None
                await self._left_behind(unit, row)
            await unit.change(_BEGIN, [self._row(written, holder=holder, for_s=self.held_s)])
            behind = {r["provider"]: r["count"] for r in await unit.rows(_BEHIND, group=self._group, stuck=0)}
            touching = await self._touching(unit, written) if behind.keys() >= set(self._providers) else set(behind)
            _, followed = await self._earlier(unit, written)
            return Begun(holder, behind, at, frozenset(touching), frozenset(r.provider for r in followed if r.is_stuck))

        while True:
            at = clock()
            try:
                begun = await self._store.carry_out("group-begun", work)
            except Conflict:
                # Another member's of the same key came between.
                begun = None
            if begun is not None:
                return begun
            if clock() >= limit:
                raise Unavailable(f"Another change of {written.key or self._group} is under way")
            await asyncio.sleep(_BETWEEN_S)

    async def end(self, written: Written, holder: str, missed: Sequence[Missed] | None) -> None:
        """Cross a change out, and write down which providers have not had it; ``missed`` None: nobody has.

        Raises:
            Unavailable: the store did not answer; the change stays written down, and becomes repairs of all.
        """

        async def work(unit: Writing) -> None:
            # Whoever was taken for dead has left it to others, who have it as repairs of all.
            is_ours = await unit.changed(_END, {"group": self._group, "key": written.key, "holder": holder})
            if is_ours and missed is not None:
                await self._follows(unit, written, missed)

        await self._store.carry_out("group-ended", work)

    async def has_ended(self) -> bool:
        """Whether the time of a change is up that nobody crossed out."""
        async with self._store.read() as unit:
            return bool(await self._ended(unit, 1))

    async def recover(self) -> None:
        """Make repairs of changes whose members died."""

        async def work(unit: Writing) -> None:
            for row in await self._ended(unit, _MOST):
                await self._left_behind(unit, row)

        if await self.has_ended():
            await self._store.carry_out("group-recovered", work)

    async def waiting(self, provider: str) -> list[tuple[Repair, float]]:
        """Return what a provider has yet to have, in order, two thousand at most; each with the seconds until it is due."""
        async with self._store.read() as unit:
            now = await unit.now()
            found = [
                _repair(row) for row in await unit.rows(_NEXT, group=self._group, provider=provider, most=_MOST_WAITING)
            ]
        # No pause is longer.
        void = now + _LONGEST_PAUSE_S + SET_BACK_S
        return [(r, r.next_at - now if r.next_at <= void else 0.0) for r in found]

    async def is_pending(self, repair: Repair) -> bool:
        """Whether the provider is to have it still: it may have been dropped, or settled by a later change."""
        return any(not row["stuck"] for row in await self._store.ask(_ONE, id=repair.id))

    async def had(self, repair: Repair) -> None:
        """Note that the provider has had it."""
        await self._store.carry_out("group-repaired", _one(_DONE, {"id": repair.id}))

    async def again(self, repair: Repair, why: str) -> None:
        """Note that the provider could not have it, and is to be asked again after a pause, which grows."""
        pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(repair.attempts, 10))
        row = {"id": repair.id, "pause_s": pause_s, "why": kept_why(why)}
        await self._store.carry_out("group-repair-put-off", _one(_AGAIN, row))

    async def refused(self, repair: Repair, why: str) -> None:
        """Note that the provider refused it, which a person has to look at."""
        row = {"id": repair.id, "why": kept_why(why)}
        await self._store.carry_out("group-repair-refused", _one(_STUCK, row))

    async def behind(self) -> Mapping[str, int]:
        """Return how many changes each provider has not had, of those that have not had any."""
        return {r["provider"]: r["count"] for r in await self._store.ask(_BEHIND, group=self._group, stuck=0)}

    async def stuck(self) -> Mapping[str, int]:
        """Return how many changes each provider refused that others have had."""
        return {r["provider"]: r["count"] for r in await self._store.ask(_BEHIND, group=self._group, stuck=1)}

    @property
    def _void_s(self) -> float:
        return self.held_s + SET_BACK_S

    async def _ended(self, unit: Reading, most: int) -> list[dict[str, Any]]:
        now = await unit.now()
        return await unit.rows(_ENDED, group=self._group, now=now, void=now + self._void_s, most=most)

    async def _left_behind(self, unit: Writing, row: Mapping[str, Any]) -> None:
        """Make repairs of a change of which nobody knows how far it came."""
        if not await unit.changed(_END, {"group": self._group, "key": row["key"], "holder": row["holder"]}):
            # Another member did just now.
            return
        written = Written(row["key"], row["operation"], json.loads(row["arguments"]))
        why = "whoever carried it out did not say what came of it"
        await self._follows(unit, written, [Missed(p, why) for p in self._providers])

    async def _follows(self, unit: Writing, written: Written, missed: Sequence[Missed]) -> None:
        """Put a change in its place behind earlier ones that providers have not had, and take away what is settled by it."""
        settled, followed = await self._earlier(unit, written)
        others = {r.provider for r in (*settled, *followed)} - set(self._providers)
        # Else what is there of a provider that is added again would be carried out over this one.
        strange = [Missed(p, "it is not in the settings of who carried it out") for p in sorted(others)]
        behind = {m.provider for m in (*missed, *strange)}
        # Who was asked out of turn, since nobody else was left, and has it, must not have those any more.
        done = [*settled, *(r for r in followed if r.provider not in behind)]
        await unit.change(_DONE, [{"id": r.id} for r in done])
        stuck = {r.provider for r in followed if r.is_stuck}
        rows = [
            self._repair(written, m.provider, m.why, m.is_stuck or m.provider in stuck) for m in (*missed, *strange)
        ]
        await unit.change(_ADD, rows)

    async def _earlier(self, unit: Reading, written: Written) -> tuple[list[Repair], list[Repair]]:
        """Return what providers have not had and what a change settles; and what it has to follow."""
        found = [_repair(row) for row in await unit.rows(_OF_KEY, group=self._group, key=written.key)]
        settled = [r for r in found if self._order.settles(written, r.written)]
        return settled, [r for r in found if r not in settled and self._order.follows(written, r.written)]

    async def _touching(self, unit: Reading, written: Written) -> set[str]:
        rows = await unit.rows(_PENDING, group=self._group, most=_MOST)
        if len(rows) == _MOST:
            return {r["provider"] for r in rows} | set(self._providers)
        mine = self._order.touches(written)
        return {r["provider"] for r in rows if mine & self._order.touches(_repair(r).written)}

    def _row(self, written: Written, **more: Any) -> dict[str, Any]:
        return {
            "group": self._group, "key": written.key, "operation": written.operation,
            "arguments": json.dumps(written.arguments), **more,
        }  # fmt: skip

    def _repair(self, written: Written, provider: str, why: str, is_stuck: bool = False) -> dict[str, Any]:
        return self._row(written, provider=provider, why=kept_why(why), stuck=int(is_stuck), pause_s=_PAUSE_S)


def kept_why(why: str) -> str:
    """Return a reason as every store keeps it: what a server said may have characters in it that none does."""
    return why[:_LIMIT_WHY].replace("\0", "?").encode("utf-8", "replace").decode("utf-8")


def _one(change: Change, row: Mapping[str, Any]) -> Callable[[Writing], Coroutine[Any, Any, None]]:
    async def work(unit: Writing) -> None:
        await unit.change(change, [row])

    return work


async def repairs(store: Readable) -> list[Repair]:
    """Return the changes that providers have not had, of all groups, oldest first."""
    found: list[Repair] = []
    async with store.read() as unit:
        while True:
            rows = await unit.rows(_ALL, after=found[-1].id if found else 0, most=_MOST)
            found += map(_repair, rows)
            if len(rows) < _MOST:
                return found


async def decided(store: Store, id: int, *, drop: bool) -> Repair:
    """Have a repair tried at once, stuck or not, or dropped: the provider will never have it. Return it as it was.

    What the provider has not had of the same key before that is tried as well, and first.

    Raises:
        NotFound: there is no such repair.
        Unavailable: the store did not answer; or another change of the same is under way, and nothing was changed.
    """

    async def work(unit: Writing) -> Repair:
        rows = await unit.rows(_ONE, id=id)
        if not rows:
            raise NotFound(f"There is no repair {id}")
        found = _repair(rows[0])
        if drop:
            await unit.change(_DONE, [{"id": id}])
            return found
        row = {"group": found.group, "key": found.written.key}
        if found.is_stuck:
            # A change that is under way has looked already who is to be told by whom, and whoever begins one waits for us.
            mine = {"holder": secrets.token_hex(8), "operation": "", "arguments": "null", "for_s": 0.0}
            await unit.change(_BEGIN, [row | mine])
            await unit.change(_END, [row | {"holder": mine["holder"]}])
        await unit.change(_NOW, [row | {"provider": found.provider, "id": id}])
        return found

    limit = asyncio.get_running_loop().time() + _WAITED_S
    while True:
        try:
            return await store.carry_out("group-repair-decided", work)
        except Conflict:
            if asyncio.get_running_loop().time() >= limit:
                raise Unavailable(
                    f"Another change of what repair {id} is about is under way, and settles it perhaps; nothing was changed"
                ) from None
        await asyncio.sleep(_BETWEEN_S)


def _repair(row: Mapping[str, Any]) -> Repair:
    return Repair(
        row["id"], row["group_name"], row["provider"], Written(row["key"], row["operation"], json.loads(row["arguments"])),
        row["at"], row["attempts"], row["next_at"], bool(row["stuck"]), row["why"],
    )  # fmt: skip
