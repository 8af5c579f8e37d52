"""Wiring only: the async backend, how tests are collected, and what a missing real server means."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator

import pytest

from muster.store import schema
from tests import order
from tests.servers import available, schemas


def pytest_configure(config: pytest.Config) -> None:
    schema.revise = schemas.remembered(schemas.by_revisions)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage meanwhile: what is collected stays, every worker has all of it, and each look goes over it."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


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
