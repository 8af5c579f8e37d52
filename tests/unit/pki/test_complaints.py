from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.pki.complaints import alarms, complaints

NOW = datetime.now(UTC).replace(microsecond=0)
SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("left", "sounding"),
    [
        (timedelta(days=30) + SECOND, ()),
        (timedelta(days=30), (30,)),
        (timedelta(days=7) + SECOND, (30,)),
        (timedelta(days=7), (30, 7)),
        (timedelta(days=1), (30, 7, 1)),
        (-SECOND, (30, 7, 1)),
    ],
)
def test_alarms_sound_one_after_another_and_all_after_the_end(left: timedelta, sounding: tuple[int, ...]) -> None:
    assert alarms(NOW + left, NOW) == sounding


@pytest.mark.parametrize(("days", "limit"), [(29, "30 days"), (6, "7 days"), (0.5, "1 day")])
def test_a_complaint_says_which_alarm_and_how_to_renew(tmp_path: Path, days: float, limit: str) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    issued = ca.issue(BundleRequest("member", "proxy01.example.com"), now=NOW, valid_days=100)
    leaf = x509.load_pem_x509_certificate(issued.certificate_pem.encode())
    then = leaf.not_valid_after_utc - timedelta(days=days)
    found = complaints([leaf], where="proxy01", names=[], trusted=[ca.certificate], now=then)
    assert [(c.code, c.severity) for c in found] == [("TLS-EXPIRES-SOON", "warning")]
    assert f"(less than {limit} left)" in found[0].sentence
    assert "muster certs rotate" in found[0].remedy


def test_a_ca_near_its_end_is_complained_of_with_what_it_issued(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW, valid_days=6)
    issued = ca.issue(BundleRequest("member", "proxy01.example.com"), now=NOW)
    leaf = x509.load_pem_x509_certificate(issued.certificate_pem.encode())
    found = complaints([leaf], where="proxy01", names=[], trusted=[ca.certificate], now=NOW)
    assert [c.code for c in found] == ["TLS-EXPIRES-SOON", "TLS-CA-EXPIRES-SOON"]
    assert "muster certs rotate --ca" in found[1].remedy
