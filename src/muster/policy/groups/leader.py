"""Leader: all members ask one provider, on which they agree in the store; when it is away they change together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.policy.groups.first import standings
from muster.policy.groups.grouped import Asked, Mode, Standing, is_away, reached
from muster.policy.groups.journal import SET_BACK_S
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change, Writing

_log = log.logger("policy")

HELD_S = 30.0
"""How long a provider leads at least: members that see different things do not change back and forth."""

_LIMIT_WHY = 1000
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

    def __init__(self, store: Store, group: str, *, held_s: float = HELD_S) -> None:
        self._store, self._group, self._held_s = store, group, held_s

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
        return Term(rows[0]["provider"], rows[0]["epoch"], rows[0]["since"])

    async def change(self, term: Term, provider: str, why: str) -> bool:
        """Have another provider lead after a term; False: somebody was quicker, or the term is too short yet."""

        async def work(unit: Writing) -> int:
            row = {
                "group": self._group,
                "provider": provider,
                "epoch": term.epoch,
                "why": why[:_LIMIT_WHY],
                "held_s": self._held_s,
                "void_s": SET_BACK_S,
            }
            return await unit.changed(_NEXT, row)

        return bool(await self._store.carry_out("group-leader-changed", work))


class Leader:
    """Ask the provider that leads. When it is away, and ``reached`` of another says that it is not, that one leads.

    A change is acknowledged when the same provider still leads after it: one that was made at a provider that leads no more
    is known to nobody, and who asked for it hears so.

    Concurrency: one event loop; any number of members.
    """

    mode: Mode = "leader"

    def __init__(self, name: str, providers: Sequence[str], agreement: Agreement) -> None:
        self._name, self._providers, self._agreement = name, list(providers), agreement
        self._current = providers[0]
        self._known: Term | None = None
        self._why: dict[str, str] = {}

    async def __call__(self, asked: Asked) -> Any:
        if asked.operation.name == "reached":
            return await self._reached(asked)
        term = await self._term()
        try:
            result = await asked.calls[term.provider]()
        except MusterError as e:
            if is_away(e):
                self._why[term.provider] = str(e)
            raise
        self._why.pop(term.provider, None)
        if asked.operation.kind == "change" and (after := await self._term()).epoch != term.epoch:
            raise Unavailable(
                f"{asked.operation} was made at {term.provider}, and {after.provider} leads the group {self._name} by now"
            )
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
        if term.provider not in answers and await self._agreement.change(term, answers[0], self._why[term.provider]):
            _log.warning(
                "A group is led by another provider", group=self._name, provider=answers[0], before=term.provider,
                why=self._why[term.provider],
            )  # fmt: skip
            await self._term()
