"""Wiring only: the log's configuration is one per process, so every test leaves the library's own behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog


@pytest.fixture(autouse=True)
def _log_unconfigured() -> Iterator[None]:
    yield
    structlog.reset_defaults()
