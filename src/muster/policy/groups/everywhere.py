"""All: every provider has every change, now or, where it is away, as soon as it is back.

The first provider that answers decides: what it refuses is refused, and the others hear nothing of it. What it has done the
others are told at once. Whoever is away, or says what the first one did not, makes a *repair*
(:mod:`~muster.policy.groups.journal`), and the call has succeeded: Foreman cannot put right what one of two servers did not
do, and we can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from muster.kernel import log
from muster.kernel.errors import MusterError, NotFound, Unavailable, Unsupported
from muster.policy.groups.grouped import Asked, Failures, Mode, Standing, is_away, reached
from muster.policy.groups.journal import Journal, Missed, Written
from muster.policy.marks import Operation

_log = log.logger("policy")
_ONE_BEAT = 200
LONGEST_REPAIR_S = 45.0
"""How long a provider may take for one repair; whoever repairs is to be alone in it for longer than that."""
# Of the time a change may be under way: what is left is for saying what came of it.
_SHARE = 0.8


async def _alone() -> bool:
    return True


class Codec(Protocol):
    """How a contract's changes are written down, so that another member can carry them out."""

    def written(self, operation: Operation, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Written:
        """Return a change as it is written down."""

    def read(self, written: Written) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return the arguments of one. Raises ValueError: a newer or older Muster wrote it otherwise."""


Merge = Callable[[Mapping[str, Any]], Any]
"""Makes one answer of those of the providers that gave one, at least one, in their order."""


@dataclass
class All:
    """The way of a group whose providers all have everything.

    Args:
        codec: for its changes, all of which may be repeated.
        merges: for queries whose answer is made of all answers, by operation; others ask the first that answers, and one
            that has had every change before one that has not.
        refused: operations that make no sense for several.

    Concurrency: one event loop; any number of members. Changes of one key take effect one after another on all providers.
    """

    name: str
    providers: Sequence[str]
    journal: Journal
    codec: Codec
    merges: Mapping[str, Merge] = field(default_factory=dict)
    refused: frozenset[str] = frozenset()
    mode: Mode = "all"
    _why: dict[str, str] = field(default_factory=dict)
    _behind: Mapping[str, int] = field(default_factory=dict)
    _stuck: Mapping[str, int] = field(default_factory=dict)
    _changing: set[asyncio.Task[Any]] = field(default_factory=set)

    async def __call__(self, asked: Asked) -> Any:
        operation = asked.operation
        if operation.name == "reached":
            return await reached(asked, self._why)
        if operation.name in self.refused:
            raise Unsupported(f"{operation} has no answer that all providers of a group could give")
        if operation.kind == "query":
            if (merge := self.merges.get(operation.name)) is not None:
                return merge(await self._answers(asked))
            return await self._first_answer(asked)
        if not operation.repeatable:
            raise TypeError(f"{operation} may not be repeated: a group of all cannot carry it out")
        # Who goes away meanwhile takes nothing with him.
        task = asyncio.create_task(self._change(asked), name=f"a change of group {self.name}")
        self._changing.add(task)
        task.add_done_callback(self._changing.discard)
        return await asyncio.shield(task)

    async def close(self) -> None:
        """Wait for changes under way, which end in time."""
        if self._changing:
            await asyncio.wait(self._changing)

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
            await asyncio.gather(*(self._repair(n, providers[n], still) for n in self._behind if n in providers))
            self._behind = await self.journal.behind()

    async def is_behind(self) -> bool:
        """Learn which providers have not had every change; whether any has not, or a change has no end.

        Raises:
            Unavailable: the store did not answer.
        """
        self._behind, self._stuck = await self.journal.behind(), await self.journal.stuck()
        return bool(self._behind) or await self.journal.has_ended()

    async def _repair(self, name: str, provider: Any, still: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(_ONE_BEAT):
            repair = await self.journal.due(name) if await still() else None
            if repair is None:
                return
            what = f"{repair.written.operation} of {repair.written.key}"
            try:
                arguments, named = self.codec.read(repair.written)
                async with asyncio.timeout(LONGEST_REPAIR_S):
                    await getattr(provider, repair.written.operation)(*arguments, **named)
            except TimeoutError:
                self._why[name] = f"it did not answer within {LONGEST_REPAIR_S:g} s"
                await self.journal.again(repair, self._why[name])
                return
            except NotFound:
                # What is to be gone is gone.
                pass
            except MusterError as e:
                self._why[name] = str(e)
                if is_away(e):
                    await self.journal.again(repair, str(e))
                    return
                await self.journal.refused(repair, str(e))
                _log.error(
                    "A provider refuses a change that others have had", group=self.name, provider=name, change=what
                )
                continue
            except (ValueError, AttributeError, TypeError) as e:
                await self.journal.refused(repair, f"It cannot be read: {e}")
                continue
            await self.journal.had(repair)
            self._why.pop(name, None)
            _log.info("A provider has had a change that it missed", group=self.name, provider=name, change=what)

    async def _answers(self, asked: Asked) -> Mapping[str, Any]:
        async def answer(name: str) -> Any:
            try:
                return await self._at(asked, name)
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
        for name in sorted(asked.calls, key=lambda n: n in self._behind):
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
        written = self.codec.written(asked.operation, asked.arguments, asked.named)
        holder, behind = await self.journal.begin(written)
        missed = [Missed(n, "it has to have earlier changes first") for n in asked.calls if n in behind]
        left = [n for n in asked.calls if n not in behind]
        try:
            async with asyncio.timeout(self.journal.held_s * _SHARE):
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
            await self._end(written, holder, [])
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
            except NotFound as e:
                # Others may have it.
                said = e
            except MusterError as e:
                if not is_away(e):
                    raise
                failures.said[name] = e
                continue
            missed += [Missed(n, str(e)) for n, e in failures.said.items()]
            return said
        if failures.said:
            raise failures.joined(asked.operation)
        raise Unavailable(f"{asked.operation} failed: every provider of the group has to have earlier changes first")

    async def _told(self, asked: Asked, name: str, missed: list[Missed]) -> Any:
        """Return what a provider said that is told; what it has not had by that is in ``missed``."""
        try:
            return await self._at(asked, name)
        except NotFound as e:
            return e
        except MusterError as e:
            missed.append(Missed(name, str(e), is_stuck=not is_away(e)))
            return e

    async def _end(self, written: Written, holder: str, missed: Sequence[Missed]) -> None:
        try:
            await asyncio.shield(self.journal.end(written, holder, missed))
        except Unavailable as e:
            # It stays written down, and becomes repairs of all providers, which have it then once more.
            _log.warning("What came of a change of a group was not written down", group=self.name, why=str(e))
