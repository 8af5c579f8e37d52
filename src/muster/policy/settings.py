"""Settings of the policies around a feature's provider."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

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


class PolicySettings(Settings):
    """The policies around a feature's provider, outermost first: metered, deadline, retry."""

    deadline_s: Annotated[float, Field(gt=0, le=600)] = 25.0
    """Longest time one operation may take, retries included. Foreman itself gives up after 60 s."""
    retry: RetrySettings = RetrySettings()
    """Repetition of what may be repeated."""

    def built(self, metrics: OperationMetrics, provider: str) -> list[Policy]:
        """Return the policies these settings ask for."""
        # Imported here: reading settings needs nothing of what they lead to.
        from muster.policy.deadline import Deadline
        from muster.policy.metered import Metered
        from muster.policy.retry import Retry, RetryBudget

        retry = Retry(self.retry.attempts, self.retry.base_s, self.retry.cap_s, RetryBudget(self.retry.budget_ratio))
        return [Metered(metrics, provider), Deadline(self.deadline_s), retry]
