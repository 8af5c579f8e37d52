from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from muster.kernel.errors import Unavailable
from muster.policy.breaker import Breaker
from muster.policy.chain import chained
from muster.policy.deadline import Deadline
from muster.policy.metered import Metered, OperationMetrics
from muster.policy.retry import Retry
from muster.policy.settings import PolicySettings, RetrySettings
from tests.unit.policy.shelf import Shelf, ToldShelf


def built(settings: PolicySettings, registry: CollectorRegistry | None = None) -> list[object]:
    return list(settings.built(OperationMetrics(registry or CollectorRegistry()), "memory"))


def test_the_policies_are_metered_then_breaker_then_deadline_then_retry() -> None:
    metered, breaker, deadline, retry = built(PolicySettings())
    assert isinstance(metered, Metered)
    assert isinstance(breaker, Breaker)
    assert deadline == Deadline(25.0)
    assert isinstance(retry, Retry)
    assert (retry.attempts, retry.base_s, retry.cap_s, retry.budget.ratio) == (3, 0.05, 2.0, 0.2)


def test_the_settings_reach_the_policies() -> None:
    given = {"deadline_s": 7, "retry": {"attempts": 5, "base_s": 0.1, "cap_s": 1, "budget_ratio": 0.5}}
    given["breaker"] = {"failures": 0}
    _, deadline, retry = built(PolicySettings.model_validate(given))
    assert deadline == Deadline(7.0)
    assert isinstance(retry, Retry)
    assert (retry.attempts, retry.base_s, retry.cap_s, retry.budget.ratio) == (5, 0.1, 1.0, 0.5)


async def test_retries_of_one_call_are_counted_as_one_operation() -> None:
    registry = CollectorRegistry()
    settings = PolicySettings(retry=RetrySettings(base_s=0.001, cap_s=0.001))
    policies = settings.built(OperationMetrics(registry), "memory")
    provider = ToldShelf([Unavailable("down"), "there"])
    assert await chained(Shelf, provider, policies).lookup("x") == "there"  # type: ignore[type-abstract]
    labels = {"contract": "Shelf", "operation": "lookup", "provider": "memory", "outcome": "ok"}
    assert registry.get_sample_value("muster_operation_seconds_count", labels) == 1
    assert len(provider.calls) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_s": 0},
        {"deadline_s": 601},
        {"retry": {"attempts": 0}},
        {"retry": {"attempts": 11}},
        {"retry": {"base_s": 0}},
        {"retry": {"cap_s": 61}},
        {"retry": {"budget_ratio": 1.1}},
        {"retries": 3},
        {"breaker": {"failures": -1}},
        {"breaker": {"open_s": 0}},
    ],
)
def test_a_setting_outside_its_range_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        PolicySettings.model_validate(wrong)
