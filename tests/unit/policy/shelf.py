"""A contract no feature has, with all three kinds of operation, and a provider that does as it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from muster.policy.chain import Call
from muster.policy.marks import Operation, change, operations, query


class Shelf(Protocol):
    """Things by name."""

    @query
    async def lookup(self, name: str, *, default: str = "") -> str:
        """Return the thing."""

    @change(repeatable=True)
    async def add(self, name: str) -> None:
        """Make the thing exist."""

    @change(repeatable=False)
    async def draw(self) -> str:
        """Take the next number; taking it twice takes two."""


LOOKUP, ADD, DRAW = operations(Shelf)


@dataclass
class ToldShelf:
    """Each call takes the next of ``outcomes``: an error is raised, anything else returned; then it succeeds."""

    outcomes: list[Any] = field(default_factory=list)
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    colour: str = "red"

    async def lookup(self, name: str, *, default: str = "") -> str:
        return str(self._next("lookup", name, default))

    async def add(self, name: str) -> None:
        self._next("add", name)

    async def draw(self) -> str:
        return str(self._next("draw"))

    def _next(self, *call: Any) -> Any:
        self.calls.append(call)
        outcome = self.outcomes.pop(0) if self.outcomes else "ok"
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


@dataclass(frozen=True)
class Noted:
    """A policy that writes down when a call passes it, in and out."""

    name: str
    notes: list[str]

    async def __call__(self, operation: Operation, call: Call) -> Any:
        self.notes.append(f"{self.name} in {operation}")
        try:
            return await call()
        finally:
            self.notes.append(f"{self.name} out")


def names(calls: Sequence[tuple[Any, ...]]) -> list[str]:
    return [c[0] for c in calls]
