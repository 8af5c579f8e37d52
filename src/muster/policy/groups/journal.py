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
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.kernel.errors import Conflict, NotFound, Unavailable
from muster.store.engine import Store
from muster.store.reading import Query, Readable
from muster.store.writing import Change, Writing

HELD_S = 60.0
"""How long a change may be under way; then whoever carries it out is taken for dead."""
_WAITED_S = 10.0
_BETWEEN_S = 0.05
_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 60.0
_LIMIT_WHY = 1000
_MOST = 1000

_UNDER_WAY = Query(
    "SELECT key, operation, arguments, holder, until FROM group_changes WHERE group_name = :group AND key = :key"
)
_ENDED = Query(
    "SELECT key, operation, arguments, holder FROM group_changes WHERE group_name = :group AND until <= :now"
    " ORDER BY at, key LIMIT :most"
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
_ALL = Query(
    "SELECT id, group_name, provider, key, operation, arguments, at, attempts, next_at, stuck, why"
    " FROM group_repairs ORDER BY id LIMIT :most"
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
_NOW = Change("UPDATE group_repairs SET stuck = 0, next_at = {now} WHERE id = :id")


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


class Journal:
    """What one group was asked to change.

    Concurrency: any number of members and tasks.
    """

    def __init__(self, store: Store, group: str, providers: Sequence[str], *, held_s: float = HELD_S) -> None:
        self._store, self._group, self._providers, self.held_s = store, group, list(providers), held_s

    async def begin(self, written: Written) -> tuple[str, Mapping[str, int]]:
        """Write a change down; return its holder, and how many changes each provider that is behind has not had.

        Another change of the same key is waited for; one whose member died becomes repairs first.

        Raises:
            Unavailable: the store did not answer, or the other change took too long; nothing was changed.
        """
        holder = secrets.token_hex(8)
        limit = asyncio.get_running_loop().time() + _WAITED_S

        async def work(unit: Writing) -> Mapping[str, int] | None:
            now = await unit.now()
            for row in await unit.rows(_UNDER_WAY, group=self._group, key=written.key):
                if row["until"] > now:
                    return None
                await self._left_behind(unit, row)
            await unit.change(_BEGIN, [self._row(written, holder=holder, for_s=self.held_s)])
            return {r["provider"]: r["count"] for r in await unit.rows(_BEHIND, group=self._group, stuck=0)}

        while True:
            try:
                behind = await self._store.carry_out("group-begun", work)
            except Conflict:
                # Another member's of the same key came between.
                behind = None
            if behind is not None:
                return holder, behind
            if asyncio.get_running_loop().time() >= limit:
                raise Unavailable(f"Another change of {written.key or self._group} is under way")
            await asyncio.sleep(_BETWEEN_S)

    async def end(self, written: Written, holder: str, missed: Sequence[Missed]) -> None:
        """Cross a change out, and write down which providers have not had it.

        Raises:
            Unavailable: the store did not answer; the change stays written down, and becomes repairs of all.
        """

        async def work(unit: Writing) -> None:
            # Whoever was taken for dead has left it to others, who have it as repairs of all.
            if await unit.changed(_END, {"group": self._group, "key": written.key, "holder": holder}):
                await unit.change(_ADD, [self._repair(written, m.provider, m.why, m.is_stuck) for m in missed])

        await self._store.carry_out("group-ended", work)

    async def has_ended(self) -> bool:
        """Whether the time of a change is up that nobody crossed out."""
        async with self._store.read() as unit:
            return bool(await unit.rows(_ENDED, group=self._group, now=await unit.now(), most=1))

    async def recover(self) -> None:
        """Make repairs of changes whose members died."""

        async def work(unit: Writing) -> None:
            for row in await unit.rows(_ENDED, group=self._group, now=await unit.now(), most=_MOST):
                await self._left_behind(unit, row)

        if await self.has_ended():
            await self._store.carry_out("group-recovered", work)

    async def due(self, provider: str) -> Repair | None:
        """Return the change that a provider is to have next; None: none, or not yet."""
        async with self._store.read() as unit:
            rows = await unit.rows(_NEXT, group=self._group, provider=provider, most=1)
            return _repair(rows[0]) if rows and rows[0]["next_at"] <= await unit.now() else None

    async def had(self, repair: Repair) -> None:
        """Note that the provider has had it."""
        await self._store.carry_out("group-repaired", _one(_DONE, {"id": repair.id}))

    async def again(self, repair: Repair, why: str) -> None:
        """Note that the provider could not have it, and is to be asked again after a pause, which grows."""
        pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** min(repair.attempts, 10))
        row = {"id": repair.id, "pause_s": pause_s, "why": why[:_LIMIT_WHY]}
        await self._store.carry_out("group-repair-put-off", _one(_AGAIN, row))

    async def refused(self, repair: Repair, why: str) -> None:
        """Note that the provider refused it, which a person has to look at."""
        row = {"id": repair.id, "why": why[:_LIMIT_WHY]}
        await self._store.carry_out("group-repair-refused", _one(_STUCK, row))

    async def behind(self) -> Mapping[str, int]:
        """Return how many changes each provider has not had, of those that have not had any."""
        return {r["provider"]: r["count"] for r in await self._store.ask(_BEHIND, group=self._group, stuck=0)}

    async def stuck(self) -> Mapping[str, int]:
        """Return how many changes each provider refused that others have had."""
        return {r["provider"]: r["count"] for r in await self._store.ask(_BEHIND, group=self._group, stuck=1)}

    async def _left_behind(self, unit: Writing, row: Mapping[str, Any]) -> None:
        """Make repairs of a change of which nobody knows how far it came."""
        written = Written(row["key"], row["operation"], json.loads(row["arguments"]))
        why = "whoever carried it out did not say what came of it"
        await unit.change(_ADD, [self._repair(written, p, why) for p in self._providers])
        await unit.change(_END, [{"group": self._group, "key": row["key"], "holder": row["holder"]}])

    def _row(self, written: Written, **more: Any) -> dict[str, Any]:
        return {
            "group": self._group, "key": written.key, "operation": written.operation,
            "arguments": json.dumps(written.arguments), **more,
        }  # fmt: skip

    def _repair(self, written: Written, provider: str, why: str, is_stuck: bool = False) -> dict[str, Any]:
        return self._row(written, provider=provider, why=why[:_LIMIT_WHY], stuck=int(is_stuck), pause_s=_PAUSE_S)


def _one(change: Change, row: Mapping[str, Any]) -> Callable[[Writing], Coroutine[Any, Any, None]]:
    async def work(unit: Writing) -> None:
        await unit.change(change, [row])

    return work


async def repairs(store: Readable) -> list[Repair]:
    """Return the changes that providers have not had, of all groups, oldest first; at most a thousand."""
    async with store.read() as unit:
        return [_repair(row) for row in await unit.rows(_ALL, most=_MOST)]


async def decided(store: Store, id: int, *, drop: bool) -> Repair:
    """Have a repair tried at once, stuck or not, or dropped: the provider will never have it. Return it as it was.

    Raises:
        NotFound: there is no such repair.
    """

    async def work(unit: Writing) -> Repair:
        rows = await unit.rows(_ONE, id=id)
        if not rows:
            raise NotFound(f"There is no repair {id}")
        await unit.change(_DONE if drop else _NOW, [{"id": id}])
        return _repair(rows[0])

    return await store.carry_out("group-repair-decided", work)


def _repair(row: Mapping[str, Any]) -> Repair:
    return Repair(
        row["id"], row["group_name"], row["provider"], Written(row["key"], row["operation"], json.loads(row["arguments"])),
        row["at"], row["attempts"], row["next_at"], bool(row["stuck"]), row["why"],
    )  # fmt: skip
