"""Wiring only: a cluster's file, and one of a site that has a CA of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.pki.authority import ClusterCA
from tests.unit.cli.certs.calls import CLUSTER, SITE


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


@pytest.fixture
def site(cluster: Path, tmp_path: Path) -> Path:
    cluster.write_text(SITE.replace("CA", str(tmp_path / "site" / "ca.pem")))
    ClusterCA.create(cluster.parent / "pki", "demo", now=datetime.now(UTC))
    return cluster
