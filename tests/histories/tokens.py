"""What one one-use token can be.

| operation | answer |
|---|---|
| ``make`` | |
| ``use`` | acknowledged: it was good and is used up; refused: it is not good |
| ``withdraw`` | refused: it is not good |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.histories.history import Call

Token = Literal["unmade", "good", "used", "withdrawn"]


@dataclass(frozen=True)
class Tokens:
    """The model: a token is good once."""

    start: Token = "unmade"
    queries: frozenset[str] = frozenset()

    def since(self, call: Call) -> float:
        return call.begun

    def after(self, state: Token, call: Call) -> Iterable[Token]:
        if call.outcome == "refused":
            return (state,) if state != "good" and call.operation != "make" else ()
        before: Token = "unmade" if call.operation == "make" else "good"
        becomes: dict[str, Token] = {"make": "good", "use": "used", "withdraw": "withdrawn"}
        return (becomes[call.operation],) if state == before else ()

    def fault(self, core: Sequence[Call]) -> str:
        """Name the kind that an operator fears."""
        done = [c.operation for c in core if c.outcome == "ok"]
        if done.count("use") > 1:
            return "used twice"
        if "withdraw" in done and "use" in done:
            return "withdrawn and used"
        if done and len(done) < len(core):
            return "acknowledged and lost"
        return "used though nobody made it" if "use" in done else "acknowledged what cannot be"
