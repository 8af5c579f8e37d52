"""What one address can be that is offered to new hosts.

| operation | answer |
|---|---|
| ``offer`` | acknowledged: somebody was told to use it |
| ``release`` | its reservation is gone, and with it the promise |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.histories.history import Call

Address = Literal["free", "offered"]


@dataclass(frozen=True)
class Addresses:
    """The model: an address is offered to one, until its reservation is gone; promises last longer than a history."""

    start: Address = "free"
    queries: frozenset[str] = frozenset()

    def since(self, call: Call) -> float:
        return call.begun

    def after(self, state: Address, call: Call) -> Iterable[Address]:
        if call.operation == "release":
            return ("free",)
        return ("offered",) if state == "free" else ()

    def fault(self, core: Sequence[Call]) -> str:
        """Name the kind that an operator fears."""
        return "given twice"
