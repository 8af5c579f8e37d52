"""Wiring only: a cluster's file with a CA beside it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.app.settings import cluster_store, loaded
from muster.pki.authority import ClusterCA
from tests.unit.cli.calls import CLUSTER


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))
    return path


@pytest.fixture
def with_store(file: Path) -> Path:
    """The same, with the store that a member has made."""

    async def make() -> None:
        async with cluster_store(loaded(file)) as store:
            await store.ping()

    asyncio.run(make())
    return file
