"""Breaker: a provider that does not answer is left alone for a while, instead of being waited for by every call.

Where the numbers come from is in docs/facts/balancer.md §5: so many failures in a row open it, one call after a pause tries
whether it is back, and the pause doubles each time it is not, up to a minute.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.policy.chain import Call
from muster.policy.marks import Operation

State = Literal["closed", "open", "trying"]


class NotAsked(Unavailable):
    """The provider did not answer lately, so that it was not asked: nothing was changed."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a breaker is.

    Attributes:
        failures: in a row.
        why: the last one, in one sentence; empty: none.
        again_in_s: until a call goes through again; 0: it does.
    """

    state: State
    failures: int = 0
    why: str = ""
    again_in_s: float = 0.0


class Breaker:
    """Let calls through while the provider answers; refuse them for a while when it did not, several times in a row.

    Only failures that are ``retryable`` count: a refusal is an answer. While it is open the first call after the pause is a
    try, and the others go on being refused until that one has ended.

    Concurrency: one event loop.
    """

    def __init__(
        self, provider: str, *, failures: int = 5, open_s: float = 5.0, most_s: float = 60.0, clock: Clock | None = None
    ) -> None:
        self.provider = provider
        self._limit, self._open_s, self._most_s = failures, open_s, most_s
        self._clock = clock or SystemClock()
        self._failures = 0
        self._why = ""
        self._pause_s = open_s
        self._until: float | None = None
        self._is_trying = False

    def standing(self) -> Standing:
        """Return how it is now."""
        if self._until is None:
            return Standing("closed", self._failures, self._why)
        left_s = max(0.0, self._until - self._clock.monotonic())
        return Standing("trying" if self._is_trying else "open", self._failures, self._why, left_s)

    async def __call__(self, operation: Operation, call: Call) -> Any:
        is_try = self._admit(operation)
        try:
            result = await call()
        except MusterError as e:
            if e.retryable:
                self._failed(e, is_try)
            else:
                self._answered()
            raise
        else:
            self._answered()
            return result
        finally:
            if is_try:
                self._is_trying = False

    def _admit(self, operation: Operation) -> bool:
        """Whether the call is a try. Raises NotAsked."""
        if self._until is None:
            return False
        left_s = self._until - self._clock.monotonic()
        if left_s > 0 or self._is_trying:
            # Without figures that grow: readiness repeats the sentence, and monitoring makes a series of each.
            raise NotAsked(f"{operation} was not asked of {self.provider}, which did not answer lately: {self._why}")
        self._is_trying = True
        return True

    def _failed(self, error: MusterError, is_try: bool) -> None:
        was_open = self._until is not None
        self._failures += 1
        self._why = str(error)
        # Of calls that were under way together the first one that opens it counts for all.
        if self._failures >= self._limit and (is_try or not was_open):
            self._pause_s = min(self._most_s, self._pause_s * 2) if was_open else self._open_s
            self._until = self._clock.monotonic() + self._pause_s

    def _answered(self) -> None:
        self._failures, self._why, self._until, self._pause_s = 0, "", None, self._open_s
