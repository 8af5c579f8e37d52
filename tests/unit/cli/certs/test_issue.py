"""What ``muster certs issue`` refuses, with and without ``--dry-run``."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.kernel.errors import Conflict
from tests.unit.cli.certs.calls import files, run


def test_issuing_refuses_everything_before_it_writes_anything(cluster: Path) -> None:
    pki = cluster.parent / "pki"
    run(cluster, "init")
    (pki / "members" / "proxy02.example.com").mkdir(parents=True)
    before = files(cluster)
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="was not made by Muster"):
            run(cluster, "issue", "--all", *further)
        assert files(cluster) == before
