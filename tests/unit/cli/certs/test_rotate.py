"""What ``muster certs rotate`` refuses, and says that it would do."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.kernel.errors import Misconfigured
from muster.pki.authority import ClusterCA
from tests.unit.cli.certs.calls import files, run


def test_a_dry_rotation_refuses_a_new_ca_that_cannot_be_adopted(cluster: Path, tmp_path: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all")
    other = tmp_path / "other"
    ClusterCA.create(other, "other", now=datetime.now(UTC))
    before = files(cluster)
    wrong = ("--ca-cert", str(other / "ca.pem"), "--ca-key", str(cluster.parent / "pki" / "ca.key"))
    for further in ((), ("--dry-run",)):
        with pytest.raises(Misconfigured, match="does not belong"):
            run(cluster, "rotate", "--ca", *wrong, *further)
        assert files(cluster) == before
    (cluster.parent / "pki" / "ca.key").write_bytes((other / "ca.key").read_bytes())
    with pytest.raises(Misconfigured, match="does not belong"):
        run(cluster, "rotate", "--all", "--dry-run")


def test_a_dry_rotation_says_that_it_would_wait(cluster: Path) -> None:
    run(cluster, "init")
    run(cluster, "issue", "--all")
    run(cluster, "rotate", "--ca", "--no-look")
    said = run(cluster, "rotate", "--ca", "--settle", "3600", "--dry-run").output
    assert "Would wait 36" in said
    assert "Would let the new CA issue" in said
