"""What a check finds, and a check: every room offers some, and the doctor runs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: stable; the doctor's README documents it.
        place: member, service or file it is about.
        severity: a warning works today; an error does not.
    """

    code: str
    place: str
    sentence: str
    cause: str = ""
    remedy: str = ""
    severity: Severity = "error"

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Check:
    """A question with a name.

    ``run`` returns nothing when all is well. It makes as much progress as it can and reports what stopped it.
    """

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
