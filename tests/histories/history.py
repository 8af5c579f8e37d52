"""What clients called, when, and what they heard: written down by the clients themselves, on one machine's clock."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal

Outcome = Literal["ok", "refused", "unknown"]


@dataclass(frozen=True)
class Call:
    """One call.

    Attributes:
        number: in the order in which calls began.
        key: what it is about; calls about different keys do not touch each other.
        given: its arguments besides the key.
        begun: in seconds since the history began.
        ended: when the answer was there; infinity while it is not known whether and when the call took place.
        outcome: ``ok``: acknowledged, or answered; ``refused``: answered that nothing was done; ``unknown``: not answered.
        answer: what was heard.
    """

    number: int
    client: str
    operation: str
    key: str
    given: Hashable
    begun: float
    ended: float
    outcome: Outcome
    answer: Hashable = None

    def __str__(self) -> str:
        given = f" {_short(self.given)}" if self.given is not None else ""
        said = {"ok": "acknowledged", "refused": "refused", "unknown": "not answered"}[self.outcome]
        heard = said if self.answer is None else f"{said}, {_short(self.answer)}"
        until = "" if self.ended == inf else f" to {self.ended:.3f}"
        return f"#{self.number} {self.operation}{given} by {self.client} from {self.begun:.3f}{until} s: {heard}"


def _short(value: Hashable) -> str:
    if isinstance(value, tuple):
        return " ".join(_short(v) for v in value)
    text = f"{value:X}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 16 else f"{text[:16]}…"


class Answer:
    """What the client says it heard, before its call's block ends; saying nothing means that nothing was heard."""

    def __init__(self) -> None:
        self.outcome: Outcome = "unknown"
        self.value: Hashable = None

    def ok(self, value: Hashable = None) -> None:
        self.outcome, self.value = "ok", value

    def refused(self, value: Hashable = None) -> None:
        self.outcome, self.value = "refused", value


@dataclass
class History:
    """The calls of all clients of one test.

    Concurrency: clients may be tasks or threads; each call is written down once, when it ends.
    """

    now: Callable[[], float] = time.monotonic
    calls: list[Call] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _begun: float = field(default=-1.0)

    def __post_init__(self) -> None:
        self._begun = self.now()

    @contextlib.contextmanager
    def call(self, client: str, operation: str, key: str, given: Hashable = None) -> Iterator[Answer]:
        """Write down the call that the block makes.

        A block that an exception leaves, or that is cancelled, was not answered: whether the call took place is unknown.
        Only a connection that was refused carried no call, and none is written down.
        """
        number, begun, answer = next(self._numbers), self.now() - self._begun, Answer()
        try:
            yield answer
        except ConnectionRefusedError:
            raise
        except BaseException:
            self._write_down(number, begun, client, operation, key, given, Answer())
            raise
        self._write_down(number, begun, client, operation, key, given, answer)

    def _write_down(
        self, number: int, begun: float, client: str, operation: str, key: str, given: Hashable, answer: Answer
    ) -> None:
        heard = answer.outcome != "unknown"
        ended = self.at() if heard else inf
        self.calls.append(Call(number, client, operation, key, given, begun, ended, answer.outcome, answer.value))

    def at(self) -> float:
        """Return the seconds since the history began."""
        return self.now() - self._begun

    def note(self, client: str, operation: str, key: str, given: Hashable, answer: Hashable, begun: float) -> None:
        """Write down one of the many things that one answer said; the call began at ``begun`` and ends now."""
        self.calls.append(Call(next(self._numbers), client, operation, key, given, begun, self.at(), "ok", answer))
