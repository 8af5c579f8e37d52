"""What one address of an IPAM can be: offered to a new host, in use, free.

| operation | answer |
|---|---|
| ``offer`` | acknowledged: somebody was told to use it |
| ``add`` | acknowledged: it is in use; refused: it was already |
| ``holds`` | whether it is in use |
| ``remove`` | it is not in use, whether it was or not |
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from tests.histories.history import Call

Address = Literal["free", "offered", "used"]


@dataclass(frozen=True)
class KeptAddresses:
    """The model: an address is offered to one at a time, and is one host's; promises last longer than a history.

    Whose it is nobody says who adds it, so one may be added that was offered to another, or to nobody.
    """

    start: Address = "free"
    queries: frozenset[str] = frozenset({"holds"})

    def since(self, call: Call) -> float:
        return call.begun

    def after(self, state: Address, call: Call) -> Iterable[Address]:
        match call.operation:
            case "offer":
                return ("offered",) if state == "free" else ()
            case "holds":
                return (state,) if (state == "used") is call.answer else ()
            case "add" if call.outcome == "refused":
                return (state,) if state == "used" else ()
            case "add":
                return ("used",) if state != "used" else ()
        # What is offered and not in use stays offered.
        return ("free",) if state == "used" else (state,)

    def fault(self, core: Sequence[Call]) -> str:
        """Name the kind that an operator fears."""
        done = [c.operation for c in core if c.outcome == "ok"]
        if "holds" in done or any(c.outcome == "refused" for c in core):
            return "seen as what it is not"
        return "given twice"
