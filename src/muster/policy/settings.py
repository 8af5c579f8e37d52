"""Settings of the policies around a feature's provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, StringConstraints

from muster.kernel.settings import Settings

if TYPE_CHECKING:
    from muster.policy.chain import Policy
    from muster.policy.metered import OperationMetrics


class RetrySettings(Settings):
    """How often what may be repeated is repeated."""

    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    """Attempts in all; 1 switches retries off."""
    base_s: Annotated[float, Field(gt=0, le=10)] = 0.05
    """Upper end of the first pause, doubled each time; the pause is random below it."""
    cap_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Longest pause."""
    budget_ratio: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Retries allowed per call, in the mean."""


class BreakerSettings(Settings):
    """When a provider that does not answer is left alone, instead of being waited for by every call."""

    failures: Annotated[int, Field(ge=0, le=1000)] = 5
    """So many calls in a row that were not answered, retries included, open it; 0: never."""
    open_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    """How long calls are refused then, before one tries; doubled each time in vain."""
    most_s: Annotated[float, Field(gt=0, le=3600)] = 60.0
    """At most so long."""


GroupedName = Annotated[str, StringConstraints(pattern=r"\A[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?\z")]


class GroupSettings(Settings):
    """Several providers of one feature that are called as one."""

    mode: Literal["all", "first", "leader"]
    """``all``: every provider has every change, now or as soon as it is back. ``first``: one is asked, and the next one when
    it is away; each member sticks to its own. ``leader``: one is asked by all members, which change to another together."""
    providers: Annotated[dict[GroupedName, dict[str, Any]], Field(min_length=2, max_length=16)]
    """The providers by a name of your choice, in their order; each has the feature's settings, but for what stands here:
    ``provider`` and its section, ``policies``."""


class PolicySettings(Settings):
    """The policies around a feature's provider, outermost first: metered, breaker, deadline, retry."""

    deadline_s: Annotated[float, Field(gt=0, le=600)] = 25.0
    """Longest time one operation may take, retries included. Foreman itself gives up after 60 s."""
    retry: RetrySettings = RetrySettings()
    """Repetition of what may be repeated."""
    breaker: BreakerSettings = BreakerSettings()
    """Leaving a provider alone that does not answer."""

    def built(self, metrics: OperationMetrics, provider: str) -> list[Policy]:
        """Return the policies these settings ask for."""
        # Imported here: reading settings needs nothing of what they lead to.
        from muster.policy.breaker import Breaker
        from muster.policy.deadline import Deadline
        from muster.policy.metered import Metered
        from muster.policy.retry import Retry, RetryBudget

        retry = Retry(self.retry.attempts, self.retry.base_s, self.retry.cap_s, RetryBudget(self.retry.budget_ratio))
        given = self.breaker
        breaker = Breaker(provider, failures=given.failures, open_s=given.open_s, most_s=given.most_s)
        return [
            Metered(metrics, provider), *([breaker] if given.failures else []), Deadline(self.deadline_s), retry,
        ]  # fmt: skip
