"""Leader: all members ask one provider, on which they agree in the store; when it is away they change together.

Providers know no epochs, so that none can refuse a late writer. Hence a member takes part in a term for each change, in the
store (a row of ``group_changes``), and a term ends when nobody takes part in it any more: whoever wants another leader
closes the term, so that nobody begins, and waits for those who had begun. Who dies in it is waited for until his time is up;
who is paused for longer finds his time up when he goes on, and asks nobody.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.tasks import Uninterrupted
from muster.policy.groups.first import standings
from muster.policy.groups.grouped import Asked, Mode, Standing, is_away, reached
from muster.policy.groups.journal import SET_BACK_S, kept_why
from muster.store.engine import Store
from muster.store.reading import Query, Reading
from muster.store.writing import Change, Writing

_log = log.logger("policy")

HELD_S = 30.0
"""How long a provider leads at least: members that see different things do not change back and forth."""

PART_S = 45.0
"""How long a change may take part in a term; then whoever carries it out is taken for dead."""
_SHARE = 0.8
# Who wants another leader says so every few seconds; when he does no more, the term goes on.
_CLOSED_S = 15.0

_NOW = Query("SELECT provider, epoch, since FROM group_leaders WHERE group_name = :group")
_FIRST = Change(
    "INSERT INTO group_leaders (group_name, provider, epoch, since, why) VALUES (:group, :provider, 1, {now} - :held_s, '')"
    " ON CONFLICT (group_name) DO NOTHING"
)
_NEXT = Change(
    "UPDATE group_leaders SET provider = :provider, epoch = epoch + 1, since = {now}, why = :why"
    # What began later than now did so before the store's clock was set back.
    " WHERE group_name = :group AND epoch = :epoch AND (since <= {now} - :held_s OR since > {now} + :void_s)"
)
_HELD = Change("UPDATE group_leaders SET epoch = epoch WHERE group_name = :group AND epoch = :epoch")
_PARTS = Query(
    "SELECT key, holder FROM group_changes WHERE group_name = :part AND until > :now AND until <= :void ORDER BY key"
)
_PART = Change(
    "INSERT INTO group_changes (group_name, key, operation, arguments, holder, at, until)"
    " VALUES (:part, :key, :operation, 'null', :holder, {now}, {now} + :for_s)"
    " ON CONFLICT (group_name, key) DO UPDATE SET holder = excluded.holder, until = excluded.until"
)
# Also what the dead have left behind.
_LEFT = Change("DELETE FROM group_changes WHERE group_name = :part AND (key = :key OR until <= {now})")
_OPENED = Change("DELETE FROM group_changes WHERE group_name = :part AND key = :key AND holder = :holder")
_FORGOTTEN = Change(
    "DELETE FROM group_changes WHERE group_name = :part AND (until <= {now} OR until > {now} + :void_s)"
)
# No call has this key: theirs are random.
_CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Term:
    """Which provider leads.

    Attributes:
        epoch: how often it changed, from 1.
        since: store time.
    """

    provider: str
    epoch: int
    since: float


class Agreement:
    """Which provider of a group leads, as all members see it.

    Concurrency: any number of members; of several that change it at once one does.
    """

    def __init__(self, store: Store, group: str, *, held_s: float = HELD_S, part_s: float = PART_S) -> None:
        self._store, self._group, self._held_s, self.part_s = store, group, held_s, part_s
        # Of no group that there is: a group of all would make repairs of what is left there.
        self._part = f"{group}, led"
        self._holder = secrets.token_hex(8)
        self._has_closed = False

    async def current(self, first: str) -> Term:
        """Return who leads; ``first`` does where nobody was agreed on yet.

        Raises:
            Unavailable: the store did not answer.
        """
        rows = await self._store.ask(_NOW, group=self._group)
        if not rows:

            async def work(unit: Writing) -> None:
                await unit.change(_FIRST, [{"group": self._group, "provider": first, "held_s": self._held_s}])

            await self._store.carry_out("group-leader-first", work)
            rows = await self._store.ask(_NOW, group=self._group)
        found = _term(rows)
        if found is None:
            raise Unavailable(f"Who leads the group {self._group} was written down and is gone")
        return found

    async def begin(self, term: Term, what: str) -> str | None:
        """Take part in a term with one change, for :attr:`part_s` at most; return its word for :meth:`end`.

        Returns:
            None: it is over.

        Raises:
            Unavailable: somebody waits for its end; or the store did not answer, and who waits does so for us, too.
        """
        key = secrets.token_hex(8)

        async def work(unit: Writing) -> str | None:
            # Nobody ends it before this unit ends.
            if not await unit.changed(_HELD, {"group": self._group, "epoch": term.epoch}):
                return None
            if any(row["key"] == _CLOSED for row in await self._parts(unit)):
                return _CLOSED
            await unit.change(_PART, [self._row(key, what, self.part_s)])
            return key

        found = await self._store.carry_out("group-led-begun", work)
        if found == _CLOSED:
            raise Unavailable(
                f"{what} was not asked of {term.provider}, in whose place another one is to lead {self._group}"
            )
        return found

    async def end(self, key: str) -> Term | None:
        """Take part no more; return which term it is now."""

        async def work(unit: Writing) -> Term | None:
            await unit.change(_LEFT, [{"part": self._part, "key": key}])
            return _term(await unit.rows(_NOW, group=self._group))

        return await self._store.carry_out("group-led-ended", work)

    async def change(self, term: Term, provider: str, why: str) -> bool:
        """Have another provider lead after a term.

        Returns:
            False: somebody was quicker, or the term is too short yet; or changes are under way in it. Those are the last
            ones as long as somebody asks for another leader every few seconds.
        """
        row = {
            "group": self._group, "provider": provider, "epoch": term.epoch, "why": kept_why(why),
            "held_s": self._held_s, "void_s": SET_BACK_S,
        }  # fmt: skip

        async def work(unit: Writing) -> int:
            if not await unit.changed(_HELD, {"group": self._group, "epoch": term.epoch}):
                return 0
            now = await unit.now()
            if now - self._held_s < term.since <= now + SET_BACK_S:
                return 0
            if {one["key"] for one in await self._parts(unit)} - {_CLOSED}:
                await unit.change(_PART, [self._row(_CLOSED, "", _CLOSED_S) | {"holder": self._holder}])
                self._has_closed = True
                return 0
            await unit.change(_LEFT, [{"part": self._part, "key": _CLOSED}])
            await unit.change(_FORGOTTEN, [{"part": self._part, "void_s": self._void_s}])
            return await unit.changed(_NEXT, row)

        return bool(await self._store.carry_out("group-leader-changed", work))

    async def go_on(self) -> None:
        """Let changes begin again, where they do not since this object asked for another leader."""
        if not self._has_closed:
            return

        async def work(unit: Writing) -> None:
            await unit.change(_OPENED, [{"part": self._part, "key": _CLOSED, "holder": self._holder}])

        await self._store.carry_out("group-led-on", work)
        self._has_closed = False

    @property
    def _void_s(self) -> float:
        return max(self.part_s, _CLOSED_S) + SET_BACK_S

    async def _parts(self, unit: Reading) -> list[dict[str, Any]]:
        now = await unit.now()
        return await unit.rows(_PARTS, part=self._part, now=now, void=now + self._void_s)

    def _row(self, key: str, what: str, for_s: float) -> dict[str, Any]:
        return {"part": self._part, "key": key, "operation": what, "holder": key, "for_s": for_s}


def _term(rows: Sequence[dict[str, Any]]) -> Term | None:
    return Term(rows[0]["provider"], rows[0]["epoch"], rows[0]["since"]) if rows else None


class Leader:
    """Ask the provider that leads. When it is away, and ``reached`` of another says that it is not, that one leads.

    A change is acknowledged when the same provider still leads after it: one that was made at a provider that leads no more
    is known to nobody, and who asked for it hears so. No member asks a provider for a change once another one leads.

    Concurrency: one event loop; any number of members.
    """

    mode: Mode = "leader"

    def __init__(self, name: str, providers: Sequence[str], agreement: Agreement) -> None:
        self._name, self._providers, self._agreement = name, list(providers), agreement
        self._current = providers[0]
        self._known: Term | None = None
        self._why: dict[str, str] = {}
        self._changing = Uninterrupted()

    async def __call__(self, asked: Asked) -> Any:
        if asked.operation.name == "reached":
            return await self._reached(asked)
        if asked.operation.kind == "query":
            return await self._asked(asked, await self._term())
        # Who goes away meanwhile does not keep the others from another leader.
        return await self._changing.done(self._change(asked), name=f"a change of group {self._name}")

    async def close(self) -> None:
        """Wait for changes under way, which end in time."""
        await self._changing.finish()

    async def _change(self, asked: Asked) -> Any:
        # From before others can know of it: who is paused anywhere behind this has no time left then.
        limit = asyncio.get_running_loop().time() + self._agreement.part_s * _SHARE
        term = await self._term()
        part = await self._agreement.begin(term, str(asked.operation))
        if part is None:
            # Another one leads since.
            term = await self._term()
            part = await self._agreement.begin(term, str(asked.operation))
        if part is None:
            raise Unavailable(f"The group {self._name} changes its leader all the time; nothing was changed")
        try:
            async with asyncio.timeout_at(limit):
                # A deadline that has passed is noticed when somebody waits, and a call may begin with what is sent.
                await asyncio.sleep(0)
                result = await self._asked(asked, term)
        except TimeoutError:
            await self._ended(part)
            raise Unavailable(
                f"{asked.operation} took longer than {self._agreement.part_s * _SHARE:g} s at {term.provider}; what came of "
                "it is unknown"
            ) from None
        except MusterError:
            await self._ended(part)
            raise
        after = await self._ended(part)
        if after is None or after.epoch != term.epoch:
            by_now = f"{after.provider} leads" if after is not None else "nobody knows who leads"
            raise Unavailable(
                f"{asked.operation} was made at {term.provider}, and {by_now} the group {self._name} by now"
            )
        return result

    async def _ended(self, part: str) -> Term | None:
        try:
            return await self._agreement.end(part)
        except Unavailable as e:
            _log.warning("A change of a group was not ended in the store", group=self._name, why=str(e))
            return None

    async def _asked(self, asked: Asked, term: Term) -> Any:
        try:
            result = await asked.calls[term.provider]()
        except MusterError as e:
            if is_away(e):
                self._why[term.provider] = str(e)
            raise
        self._why.pop(term.provider, None)
        return result

    def standings(self) -> list[Standing]:
        found, known = standings(self._providers, self._current, self._why), self._known
        if known is None:
            return found
        return [replace(s, epoch=known.epoch, led_since=known.since) if s.role == "asked" else s for s in found]

    async def _term(self) -> Term:
        term = await self._agreement.current(self._providers[0])
        if term.provider not in self._providers:
            # It was taken out of the settings.
            await self._agreement.change(
                term, self._providers[0], f"{term.provider} is no provider of the group any more"
            )
            term = await self._agreement.current(self._providers[0])
            if term.provider not in self._providers:
                raise Unavailable(f"The group {self._name} is led by {term.provider}, which is not in the settings")
        self._current, self._known = term.provider, term
        return term

    async def _reached(self, asked: Asked) -> Any:
        """Ask whether the leader answers, every few seconds; where it does not, another one leads."""
        term = await self._term()
        answers = await reached(asked, self._why)
        if term.provider in answers:
            await self._agreement.go_on()
        elif await self._agreement.change(term, answers[0], self._why[term.provider]):
            _log.warning(
                "A group is led by another provider", group=self._name, provider=answers[0], before=term.provider,
                why=self._why[term.provider],
            )  # fmt: skip
            await self._term()
