"""Wiring only: the log's configuration is one per process, so every test starts with its own and leaves none behind."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
import structlog

from muster.kernel import log
from muster.kernel.rings import LogRings


@pytest.fixture
def rings() -> Iterator[LogRings]:
    """Rings that every record of the test falls into."""
    own = LogRings(member="proxy01.example.com")
    log.configure(rings=own, level="DEBUG", stream=io.StringIO())
    yield own
    structlog.reset_defaults()
