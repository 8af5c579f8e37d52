"""Metered: every operation counted and timed, by contract, provider and outcome."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from prometheus_client import CollectorRegistry, Histogram

from muster.kernel.errors import MusterError
from muster.policy.chain import Call
from muster.policy.marks import Operation

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class OperationMetrics:
    """The histogram all contracts share: ``muster_operation_seconds{contract,operation,provider,outcome}``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._seconds = Histogram(
            "muster_operation_seconds",
            "Time an operation of a contract took at a provider",
            ("contract", "operation", "provider", "outcome"),
            registry=registry,
            buckets=_BUCKETS,
        )
        self._children: dict[tuple[str, str, str, str], Any] = {}

    def observe(self, operation: Operation, provider: str, outcome: str, seconds: float) -> None:
        key = (operation.contract, operation.name, provider, outcome)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._seconds.labels(*key)
        child.observe(seconds)


class Metered:
    """Observe an operation's time; the outcome is ``ok``, the name of the error, ``cancelled`` or ``bug``."""

    def __init__(self, metrics: OperationMetrics, provider: str) -> None:
        self._metrics = metrics
        self._provider = provider

    async def __call__(self, operation: Operation, call: Call) -> Any:
        started = time.perf_counter()
        outcome = "bug"
        try:
            result = await call()
            outcome = "ok"
            return result
        except MusterError as e:
            outcome = type(e).__name__
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._metrics.observe(operation, self._provider, outcome, time.perf_counter() - started)
