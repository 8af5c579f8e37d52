from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from muster.pki.authority import ClusterCA
from muster.pki.listed import listed


def test_the_ca_and_every_bundle_are_listed_and_one_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    assert listed(tmp_path / "none") == []
    ClusterCA.create(tmp_path, "demo", now=datetime.now(UTC))
    broken = tmp_path / "clients" / "anna"
    broken.mkdir(parents=True)
    (broken / "cert.pem").write_text("no certificate")
    ca, client = (one.as_json() for one in listed(tmp_path))
    assert (ca["kind"], ca["is_ca"]) == ("ca", True)
    assert (client["kind"], client["name"]) == ("client", "anna")
    assert "problem" in client
