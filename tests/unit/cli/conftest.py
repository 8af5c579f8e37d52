"""Wiring only: a cluster's file with a CA beside it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.pki.authority import ClusterCA
from tests.unit.cli.calls import CLUSTER


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    ClusterCA.create(tmp_path / "pki", "demo", now=datetime.now(UTC))
    return path
