"""All: every provider has every change, now or, where it is away, as soon as it is back.

The first provider that answers decides: what it refuses is refused, and the others hear nothing of it. What it has done the
others are told at once. Whoever is away, or says what the first one did not, makes a *repair*
(:mod:`~muster.policy.groups.journal`), and the call has succeeded: Foreman cannot put right what one of two servers did not
do, and we can.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from muster.kernel import log
from muster.kernel.errors import MusterError, NotFound, Unavailable, Unsupported
from muster.kernel.tasks import Uninterrupted
from muster.policy.groups.grouped import ANSWERS_WITHIN_S, Asked, Failures, Mode, Standing, is_away, reached
from muster.policy.groups.journal import SET_BACK_S, Begun, Journal, Missed, Order, Repair, Written
from muster.policy.marks import Operation

_log = log.logger("policy")
_ONE_BEAT = 200
LONGEST_REPAIR_S = 45.0
"""How long a provider may take for one repair; whoever repairs is to be alone in it for longer than that."""
# Of the time a change may be under way: what is left is for saying what came of it.
_SHARE = 0.8
# So often a server that answers may fail at repairs before the others of that beat are put off as well.
_FAILURES = 3
# A provider that this member does not reach another one may: who failed leaves it what is due for so long.
_PATIENCE_S = 3.0
# One that said that it is away is not asked by each beat for each change it has not had.
_REST_S = 5.0
# How long a question waits for one that was away when it was asked last.
_AWAY_WITHIN_S = 2.0
_BETWEEN_S = 1.0


async def _alone() -> bool:
    return True


class Codec(Order, Protocol):
    """How a contract's changes are written down, so that another member can carry them out."""

    def written(self, operation: Operation, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Written:
        """Return a change as it is written down."""

    def read(self, written: Written) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the arguments of one. Raises ValueError: a newer or older Muster wrote it otherwise."""


Merge = Callable[[Mapping[str, Any], Collection[str]], Any]
"""Makes one answer of those of the providers that gave one, at least one, in their order. Second: those of them that have
not had every change, while another one has."""


@dataclass
class All:
    """The way of a group whose providers all have everything.

    Args:
        codec: for its changes, all of which may be repeated.
        merges: for queries whose answer is made of all answers, by operation; others ask the first that answers, and one
            that has had every change before one that has not.
        refused: operations that make no sense for several.
        removals: operations for which NotFound means that what is wanted is so; for any other it is a refusal.

    Concurrency: one event loop; any number of members. Changes of one key take effect one after another on all providers.
    """

    name: str
    providers: Sequence[str]
    journal: Journal
    codec: Codec
    merges: Mapping[str, Merge] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    removals: frozenset[str] = frozenset({"remove"})
    mode: Mode = "all"
    _why: dict[str, str] = field(default_factory=dict)
    _behind: Mapping[str, int] = field(default_factory=dict)
    _stuck: Mapping[str, int] = field(default_factory=dict)
    _changing: Uninterrupted = field(default_factory=Uninterrupted)
    _ending: set[asyncio.Task[Any]] = field(default_factory=set)
    _failed: set[str] = field(default_factory=set)
    _rest: dict[str, float] = field(default_factory=dict)

    async def __call__(self, asked: Asked) -> Any:
        operation = asked.operation
        if operation.name == "reached":
            return await reached(asked, self._why)
        if operation.name in self.refused:
            raise Unsupported(f"{operation} has no answer that all providers of a group could give")
        if operation.kind == "query":
            with contextlib.suppress(Unavailable):
                # Another member may have noted it a moment ago. Without the store what was known last counts.
                self._behind = await self.journal.behind()
            if (merge := self.merges.get(operation.name)) is not None:
                said = await self._answers(asked)
                behind = said.keys() & self._behind.keys()
                return merge(said, behind if len(behind) < len(said) else ())
            return await self._first_answer(asked)
        if not operation.repeatable:
            raise TypeError(f"{operation} may not be repeated: a group of all cannot carry it out")
        # Who goes away meanwhile takes nothing with him.
        return await self._changing.done(self._change(asked), name=f"a change of group {self.name}")

    async def close(self) -> None:
        """Wait for changes under way, which end in time."""
        await self._changing.finish()
        for task in self._ending:
            task.cancel()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def standings(self) -> list[Standing]:
        def standing(name: str, role: str) -> Standing:
            return Standing(name, role, self._why.get(name, ""), self._behind.get(name, 0), self._stuck.get(name, 0))

        strangers = sorted((self._behind.keys() | self._stuck.keys()) - set(self.providers))
        return [
            *(standing(n, "asked") for n in self.providers),
            *(standing(n, "not in the settings") for n in strangers),
        ]

    async def repair(self, providers: Mapping[str, Any], still: Callable[[], Awaitable[bool]] = _alone) -> None:
        """Give every provider what it has not had, as far as it takes it; for one member at a time.

        ``still`` is asked before each change whether this member is the one, for :data:`LONGEST_REPAIR_S` at least.

        Raises:
            Unavailable: the store did not answer.
        """
        await self.journal.recover()
        self._behind = await self.journal.behind()
        if self._behind:
            ours = [n for n in self._behind if n in providers]
            # Each to its end, also when another one failed: who is told of the next beat is told by nobody else then.
            ends = await asyncio.gather(*(self._repair(n, providers[n], still) for n in ours), return_exceptions=True)
            for end in ends:
                if end is not None:
                    raise end
            self._behind = await self.journal.behind()

    async def has_work(self) -> bool:
        """Whether :meth:`repair` would do anything: what is not due, or another member's to try, keeps nobody busy.

        Raises:
            Unavailable: the store did not answer.
        """
        if await self.journal.has_ended():
            return True
        for name in self.providers:
            if name not in self._behind or self._rests(name):
                continue
            if self._next(await self.journal.waiting(name), (), self._patience_s(name)) is not None:
                return True
        return False

    async def is_behind(self) -> bool:
        """Learn which providers have not had every change; whether any has not, or a change has no end.

        Raises:
            Unavailable: the store did not answer.
        """
        self._behind, self._stuck = await self.journal.behind(), await self.journal.stuck()
        return bool(self._behind) or await self.journal.has_ended()

    async def _repair(self, name: str, provider: Any, still: Callable[[], Awaitable[bool]]) -> None:
        """Give one provider what is due, each before what touches the same; what fails keeps up only what touches that."""
        if self._rests(name):
            return
        waiting, done = await self.journal.waiting(name), set[int]()
        failures, answers = 0, False
        for _ in range(_ONE_BEAT):
            repair = self._next(waiting, done, 0.0 if answers else self._patience_s(name))
            if repair is None:
                return
            if not answers and repair is not waiting[0][0] and name in self._failed:
                # The oldest was put off. Whether that is about the server or about the change the server can say.
                if not await self._answers_now(name, provider):
                    return
                answers = True
            limit = asyncio.get_running_loop().time() + LONGEST_REPAIR_S
            if not await still():
                return
            if not await self.journal.is_pending(repair):
                done.add(repair.id)
                continue
            why = await self._repaired(name, provider, repair, limit)
            if why is None:
                done.add(repair.id)
                continue
            failures += 1
            self._failed.add(name)
            if failures == _FAILURES or (not answers and not await self._answers_now(name, provider)):
                return
            answers = True
            waiting = [(r, _PATIENCE_S if r.id == repair.id else s) for r, s in waiting]

    def _patience_s(self, name: str) -> float:
        return _PATIENCE_S if name in self._failed else 0.0

    def _next(self, waiting: Sequence[tuple[Repair, float]], done: Collection[int], patience_s: float) -> Repair | None:
        """Return what a provider is to have next: of what nothing earlier has to come before, what failed least often."""
        before: set[str] = set()
        found: Repair | None = None
        for repair, due_s in waiting:
            if repair.id in done:
                continue
            touched = self.codec.touches(repair.written)
            is_next = due_s + patience_s <= 0 and not touched & before
            if is_next and (found is None or repair.attempts < found.attempts):
                found = repair
                if not repair.attempts:
                    return found
            before |= touched
        return found

    def _rests(self, name: str) -> bool:
        return asyncio.get_running_loop().time() < self._rest.get(name, 0.0)

    async def _answers_now(self, name: str, provider: Any) -> bool:
        try:
            async with asyncio.timeout(ANSWERS_WITHIN_S):
                await provider.reached()
        except (MusterError, TimeoutError) as e:
            self._why[name] = str(e) or f"It did not answer within {ANSWERS_WITHIN_S:g} s"
            self._rest[name] = asyncio.get_running_loop().time() + _REST_S
            return False
        return True

    async def _repaired(self, name: str, provider: Any, repair: Repair, limit: float) -> str | None:
        """Have a provider have one change; return why it is to be asked again later, None: it had or refused it."""
        what = f"{repair.written.operation} of {repair.written.key}"
        refusal, away = "", ""
        try:
            arguments, named = self.codec.read(repair.written)
            async with asyncio.timeout_at(limit):
                # As for a change: who was paused is not alone any more.
                await asyncio.sleep(0)
                await getattr(provider, repair.written.operation)(*arguments, **named)
        except TimeoutError:
            away = f"it did not answer within {LONGEST_REPAIR_S:g} s"
        except MusterError as e:
            is_gone = isinstance(e, NotFound) and repair.written.operation in self.removals
            if is_away(e):
                away = str(e)
            elif not is_gone:
                refusal = str(e)
        except (ValueError, AttributeError, TypeError) as e:
            refusal = f"It cannot be read: {e}"
        except Exception as e:  # noqa: BLE001 - boundary: what breaks on one change must not keep up the others
            _log.exception("A repair broke", group=self.name, provider=name, change=what)
            away = f"Muster failed at it, and its log says where: {type(e).__name__}"
        if away:
            self._why[name] = away
            await self.journal.again(repair, away)
            return away
        # It has answered, whatever it said.
        self._why.pop(name, None)
        self._failed.discard(name)
        if refusal:
            await self.journal.refused(repair, refusal)
            _log.error("A provider refuses a change that others have had", group=self.name, provider=name, change=what)
        else:
            await self.journal.had(repair)
            _log.info("A provider has had a change that it missed", group=self.name, provider=name, change=what)
        return None

    async def _answers(self, asked: Asked) -> Mapping[str, Any]:
        async def answer(name: str) -> Any:
            try:
                # Who did not answer lately has less time: the others are not to wait for him with each question.
                async with asyncio.timeout(_AWAY_WITHIN_S if name in self._why else None):
                    return await self._at(asked, name)
            except TimeoutError:
                return Unavailable(
                    f"It did not answer lately, nor within {_AWAY_WITHIN_S:g} s: {self._why.get(name, '')}"
                )
            except MusterError as e:
                return e

        names = list(asked.calls)
        said = dict(zip(names, await asyncio.gather(*(answer(n) for n in names)), strict=True))
        failures = {n: e for n, e in said.items() if isinstance(e, MusterError)}
        for error in failures.values():
            if not is_away(error):
                raise error
        if len(failures) == len(said):
            raise Failures(failures).joined(asked.operation)
        return {n: a for n, a in said.items() if n not in failures}

    async def _first_answer(self, asked: Asked) -> Any:
        failures = Failures()
        # Who has had everything knows best.
        for name in sorted(asked.calls, key=lambda n: (n in self._behind, n in self._why)):
            try:
                return await self._at(asked, name)
            except MusterError as e:
                if not is_away(e):
                    raise
                failures.said[name] = e
        raise failures.joined(asked.operation)

    async def _at(self, asked: Asked, name: str) -> Any:
        try:
            result = await asked.calls[name]()
        except MusterError as e:
            if is_away(e):
                self._why[name] = str(e)
            else:
                self._why.pop(name, None)
            raise
        self._why.pop(name, None)
        return result

    async def _change(self, asked: Asked) -> Any:
        written, holder = self.codec.written(asked.operation, asked.arguments, asked.named), secrets.token_hex(8)
        try:
            begun = await self.journal.begin(written, holder)
        except Unavailable:
            # Whether it is written down is unknown; nobody was told, and nobody is to be.
            await self._end(written, holder, None)
            raise
        left, missed = _sorted(asked.calls, begun)
        try:
            async with asyncio.timeout_at(begun.at + self.journal.held_s * _SHARE):
                # Who was paused since then is taken for dead already: he notices before he tells anybody.
                await asyncio.sleep(0)
                said = await self._decided(asked, left, missed)
                answers = [said, *await asyncio.gather(*(self._told(asked, n, missed) for n in left))]
        except TimeoutError:
            # Others take us for dead soon, and then no provider may be told by us any more. It stays written down.
            raise Unavailable(
                f"{asked.operation} took longer than {self.journal.held_s * _SHARE:g} s at the providers of the group; what "
                "came of it is unknown, and each of them is given it later"
            ) from None
        except MusterError:
            # Nobody has had it, or nobody knows; and whoever asked hears that.
            await self._end(written, holder, None)
            raise
        await self._end(written, holder, missed)
        if missed:
            self._behind = {**self._behind, **{m.provider: self._behind.get(m.provider, 0) + 1 for m in missed}}
            _log.warning(
                "A change is at some providers of a group only", group=self.name, operation=str(asked.operation),
                providers=", ".join(m.provider for m in missed), why=missed[0].why,
            )  # fmt: skip
        if isinstance(said, NotFound) and all(isinstance(a, NotFound) for a in answers):
            raise said
        return next((a for a in answers if not isinstance(a, MusterError)), None)

    async def _decided(self, asked: Asked, left: list[str], missed: list[Missed]) -> Any:
        """Return what the first provider that answers said, NotFound too; leave in ``left`` those that are to be told.

        Raises:
            MusterError: it refused, or none answered.
        """
        failures = Failures()
        while left:
            name = left.pop(0)
            try:
                said = await self._at(asked, name)
            except MusterError as e:
                if is_away(e):
                    failures.said[name] = e
                    continue
                if not self._is_gone(asked, e):
                    raise
                # Others may have it.
                said = e
            missed += [Missed(n, str(e)) for n, e in failures.said.items()]
            return said
        if failures.said:
            raise failures.joined(asked.operation)
        raise Unavailable(f"{asked.operation} failed: every provider of the group has to have earlier changes first")

    async def _told(self, asked: Asked, name: str, missed: list[Missed]) -> Any:
        """Return what a provider said that is told; what it has not had by that is in ``missed``."""
        try:
            return await self._at(asked, name)
        except MusterError as e:
            if not self._is_gone(asked, e):
                missed.append(Missed(name, str(e), is_stuck=not is_away(e)))
            return e

    def _is_gone(self, asked: Asked, error: MusterError) -> bool:
        return isinstance(error, NotFound) and asked.operation.name in self.removals

    async def _end(self, written: Written, holder: str, missed: Sequence[Missed] | None) -> None:
        try:
            await asyncio.shield(self.journal.end(written, holder, missed))
        except Unavailable as e:
            _log.warning("What came of a change of a group was not written down yet", group=self.name, why=str(e))
            task = asyncio.create_task(self._end_later(written, holder, missed), name=f"an end of group {self.name}")
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end_later(self, written: Written, holder: str, missed: Sequence[Missed] | None) -> None:
        """Say what came of a change once the store is back; else it becomes repairs of all, also what nobody was to have."""
        clock = asyncio.get_running_loop().time
        # As long as the row can be there: whoever recovers it takes it away.
        limit = clock() + self.journal.held_s + SET_BACK_S
        while clock() < limit:
            await asyncio.sleep(_BETWEEN_S)
            with contextlib.suppress(Unavailable):
                await self.journal.end(written, holder, missed)
                return


def _sorted(names: Collection[str], begun: Begun) -> tuple[list[str], list[Missed]]:
    """Return which providers are to be told of a change now; and which are to have it behind what they have not had."""
    refusing = "it refused an earlier change of the same, which has to be made first"
    missed = [Missed(n, refusing, is_stuck=True) for n in names if n in begun.refusing]
    missed += [
        Missed(n, "it has to have earlier changes first")
        for n in names
        if n in begun.behind and n not in begun.refusing
    ]
    away = {m.provider for m in missed}
    # Where all are behind, those are told on whose repairs it does not depend: else one of a zone that is ill keeps up all.
    apart = away - begun.refusing - begun.touching if len(away) == len(names) else set()
    # And whether who refused still does only it can say.
    apart = apart or (set(names) & begun.refusing - begun.touching if len(away) == len(names) else set())
    missed = [m for m in missed if m.provider not in apart]
    return [n for n in names if n not in away or n in apart], missed
