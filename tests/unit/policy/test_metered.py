from __future__ import annotations

import asyncio
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.kernel.errors import Conflict, Unavailable
from muster.policy.chain import chained
from muster.policy.metered import Metered, OperationMetrics
from tests.unit.policy.shelf import Shelf, ToldShelf


def counts(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    return {
        (s.labels["operation"], s.labels["provider"], s.labels["outcome"]): s.value
        for family in registry.collect()
        for s in family.samples
        if s.name == "muster_operation_seconds_count"
    }


async def test_every_operation_is_counted_with_its_outcome() -> None:
    registry = CollectorRegistry()
    outcomes: list[Any] = ["a", Conflict("c"), Unavailable("u"), Unavailable("u"), ValueError("bug"), None]
    metered = Metered(OperationMetrics(registry), "memory")
    shelf = chained(Shelf, ToldShelf(outcomes), [metered])  # type: ignore[type-abstract]
    assert await shelf.lookup("x") == "a"
    for expected in (Conflict, Unavailable, Unavailable, ValueError):
        with pytest.raises(expected):
            await shelf.lookup("x")
    await shelf.add("x")
    assert counts(registry) == {
        ("lookup", "memory", "ok"): 1,
        ("lookup", "memory", "Conflict"): 1,
        ("lookup", "memory", "Unavailable"): 2,
        ("lookup", "memory", "bug"): 1,
        ("add", "memory", "ok"): 1,
    }
    assert registry.get_sample_value(
        "muster_operation_seconds_count",
        {"contract": "Shelf", "operation": "add", "provider": "memory", "outcome": "ok"},
    )


async def test_a_cancelled_operation_is_counted_and_stays_cancelled() -> None:
    registry = CollectorRegistry()
    shelf = chained(Shelf, ToldShelf([asyncio.CancelledError()]), [Metered(OperationMetrics(registry), "p")])  # type: ignore[type-abstract]
    with pytest.raises(asyncio.CancelledError):
        await shelf.draw()
    assert sum(counts(registry).values()) == 1
