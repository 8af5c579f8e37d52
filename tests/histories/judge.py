"""Whether a history is possible: is there an order of its calls, each between its begin and its end, that a model allows?

The search is that of Wing and Gong (1993) with Lowe's memory of what was tried: from the start, each call that no other one
must precede is tried next; a pair of *calls done* and *state* that led nowhere is not tried again. Calls whose outcome is
unknown may take place at any time after they began, or never.

A call that was only asked, or refused, and fits and leaves the state as it is, is taken at once: that it took place sooner
never hindered another. A change is not: where it changes nothing now, it may be what changed something later. For n calls of
one key, of which at most c changes overlap at any moment and u of each of k kinds were never answered, with s states that
can be reached, that is at most n·2^c·(u+1)^k·s steps: linear in a long history, exponential in what was changed at once.
Calls that contradict each other are found in n such searches. A search that needs more than :data:`MOST` steps says so; it
never guesses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Generic, Protocol, TypeVar

from tests.histories.history import Call

State = TypeVar("State", bound=Hashable)

MOST = 2_000_000


class Model(Protocol[State]):
    """What one key can be, and what each call makes of it; pure."""

    @property
    def start(self) -> State:
        """What the key is before any call."""

    @property
    def queries(self) -> frozenset[str]:
        """The operations that change nothing."""

    def after(self, state: State, call: Call) -> Iterable[State]:
        """Return what the call, with what was heard of it, can leave; nothing where it cannot have taken place so.

        A call that was refused leaves the state as it is; one whose outcome is unknown is looked at as if it was done. A
        query may make known what was not (which serial a certificate has), so that later ones are held to it.
        """

    def since(self, call: Call) -> float:
        """Return from when on the call may show what it saw: when it began, or earlier where staleness is allowed."""

    def fault(self, core: Sequence[Call]) -> str:
        """Name what is wrong with calls that contradict each other."""


@dataclass(frozen=True)
class Contradiction:
    """Calls of one key that no order explains, as few as can be found.

    Attributes:
        fault: what it is, in the model's words.
        calls: without any of them, or were any not answered, the rest would be possible.
    """

    key: str
    fault: str
    calls: tuple[Call, ...]

    def __str__(self) -> str:
        return f"{self.key} was {self.fault}: no order explains {'; and '.join(map(str, self.calls))}"


class TooManyOrders(Exception):
    """The history could not be judged."""


def judged(model: Model[State], calls: Iterable[Call]) -> list[Contradiction]:
    """Return what is impossible, one contradiction for each key that has any; nothing when the history is possible.

    Raises:
        TooManyOrders: more steps than :data:`MOST` were needed for one key.
    """
    by_key: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        by_key[call.key].append(call)
    found = []
    for key, some in sorted(by_key.items()):
        if not is_possible(model, some):
            core = _core(model, some)
            found.append(Contradiction(key, model.fault(core), tuple(core)))
    return found


def is_possible(model: Model[State], calls: Sequence[Call]) -> bool:
    """Whether there is an order of one key's calls that explains all that was heard."""
    return _Search(model, calls).succeeds()


class _Search(Generic[State]):
    """One search.

    Where it stands is a tuple: how many of the answered calls are done without a gap, which ones behind that (bits), which
    of the unanswered ones (bits), and the state. So a long history costs no more a step than a short one.
    """

    def __init__(self, model: Model[State], calls: Sequence[Call]) -> None:
        self._model = model
        asked = [c for c in calls if c.outcome != "unknown" or c.operation not in model.queries]
        begun = sorted((model.since(c), c.number, c) for c in asked)
        self._answered = [(since, c) for since, _, c in begun if c.outcome != "unknown"]
        self._open = [(since, c) for since, _, c in begun if c.outcome == "unknown"]
        # Of alike calls that were not answered the first to begin is taken first: any other choice only renames them.
        last: dict[Hashable, int] = {}
        self._after = [0] * len(self._open)
        for number, (_, call) in enumerate(self._open):
            kind = (call.operation, call.given)
            self._after[number] = 1 << last[kind] if kind in last else 0
            last[kind] = number

    def succeeds(self) -> bool:
        first = (0, 0, 0, self._model.start)
        seen = {first}
        waiting = [first]
        while waiting:
            low, done, taken, state = waiting.pop()
            if low == len(self._answered):
                return True
            for step in self._steps(low, done, taken, state):
                if step not in seen:
                    if len(seen) >= MOST:
                        key = self._answered[0][1].key
                        raise TooManyOrders(f"{key}: its calls have too many possible orders to be judged")
                    seen.add(step)
                    waiting.append(step)
        return False

    def _steps(self, low: int, done: int, taken: int, state: State) -> Iterable[tuple[int, int, int, State]]:
        """Yield where the search may stand next."""
        # Of all that is not done, the earliest end: whatever began after that must wait. None ends before it begins, so what
        # was found is not undone by an end that comes later.
        limit, at, candidates = inf, low, []
        while at < len(self._answered) and self._answered[at][0] <= limit:
            if not done >> (at - low) & 1:
                limit = min(limit, self._answered[at][1].ended)
                candidates.append(at)
            at += 1
        for at in candidates:
            call = self._answered[at][1]
            idle = call.outcome == "refused" or call.operation in self._model.queries
            if idle and tuple(self._model.after(state, call)) == (state,):
                yield *_done(low, done, at), taken, state
                return
        for number, (since, call) in enumerate(self._open):
            if since <= limit and not taken >> number & 1 and taken & self._after[number] == self._after[number]:
                for after in self._model.after(state, call):
                    yield low, done, taken | 1 << number, after
        # The first to begin is tried first: it is popped last in, first out.
        for at in reversed(candidates):
            for after in self._model.after(state, self._answered[at][1]):
                yield *_done(low, done, at), taken, after


def _done(low: int, done: int, at: int) -> tuple[int, int]:
    """Return how many calls are done without a gap once this one is, too, and which ones behind that."""
    bits = done | 1 << (at - low)
    while bits & 1:
        bits, low = bits >> 1, low + 1
    return low, bits


def _core(model: Model[State], calls: Sequence[Call]) -> list[Call]:
    """Return those calls of an impossible history that it takes to be impossible.

    A call is given up where the rest stays impossible: what was only heard is forgotten, and what was done is taken for
    unanswered. Both only allow more, so nothing that is left out was needed.
    """
    kept = sorted(calls, key=lambda c: c.number)
    core = []
    for call in list(kept):
        if call.outcome == "unknown":
            continue
        rest = [c for c in kept if c is not call]
        if call.outcome == "ok" and call.operation not in model.queries:
            rest.append(replace(call, outcome="unknown", ended=inf, answer=None))
        if is_possible(model, rest):
            core.append(call)
        else:
            kept = rest
    return core
