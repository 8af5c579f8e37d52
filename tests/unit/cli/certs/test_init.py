"""What ``muster certs init`` refuses, with and without ``--dry-run``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.kernel.errors import Conflict, Misconfigured
from muster.pki.authority import ClusterCA
from tests.unit.cli.certs.calls import files, run


def test_a_dry_init_refuses_what_the_real_one_refuses(cluster: Path, tmp_path: Path) -> None:
    assert run(cluster, "init", "--dry-run").output.startswith("Would write")
    assert not (cluster.parent / "pki").exists()
    run(cluster, "init")
    for further in ((), ("--dry-run",)):
        with pytest.raises(Conflict, match="--replace"):
            run(cluster, "init", *further)
    before = files(cluster)
    assert "Would write" in run(cluster, "init", "--replace", "--dry-run").output
    other = tmp_path / "other"
    ClusterCA.create(other, "other", now=datetime.now(UTC))
    adopted = ("init", "--ca-cert", str(other / "ca.pem"), "--ca-key")
    at = ("--pki", str(tmp_path / "new"), "--dry-run")
    with pytest.raises(Misconfigured, match="does not belong"):
        run(cluster, *adopted, str(cluster.parent / "pki" / "ca.key"), *at)
    with pytest.raises(Misconfigured, match="No such file"):
        run(cluster, *adopted, str(tmp_path / "none"), *at)
    assert "adopting" in run(cluster, *adopted, str(other / "ca.key"), *at).output
    assert {p: files(cluster)[p] for p in before} == before
    assert not (tmp_path / "new").exists()
