"""Wiring only: the async backend, and what a missing real server means."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests import order
from tests.servers import available


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: order.place(item.nodeid.partition("::")[0]))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def needs() -> Callable[[str], None]:
    """Skip by name when a real server is missing; with MUSTER_NO_SKIPS set (CI) that is a failure."""

    def require(name: str) -> None:
        reason = available.missing(name)
        if reason is None:
            return
        if os.environ.get("MUSTER_NO_SKIPS"):
            pytest.fail(f"{name} is required here: {reason}")
        pytest.skip(f"{name}: {reason}")

    return require
