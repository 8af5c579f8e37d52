from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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


def issued(
    name: str, end: datetime, by: tuple[str, ec.EllipticCurvePrivateKey] | None = None
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """A certificate of somebody who does not look at the end of his own; without ``by`` of himself."""
    key = ec.generate_private_key(ec.SECP256R1())
    issuer, signing = by or (name, key)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=name.startswith("ca"), path_length=None), critical=True)
        .sign(signing, hashes.SHA256())
    )
    return certificate, key


@pytest.mark.parametrize(
    ("beyond", "codes"), [(timedelta(0), []), (timedelta(hours=23), []), (timedelta(days=2), ["TLS-OUTLIVES-CA"])]
)
def test_a_certificate_that_outlives_its_ca_is_said_with_both_ends(beyond: timedelta, codes: list[str]) -> None:
    end = NOW + timedelta(days=100)
    ca, key = issued("ca", end)
    leaf, _ = issued("proxy01", end + beyond, ("ca", key))
    found = complaints([leaf], where="proxy01", names=[], trusted=[ca], now=NOW)
    assert [c.code for c in found] == codes
    for one in found:
        assert one.severity == "warning"
        assert f"valid until {end + beyond:%Y-%m-%d %H:%M} UTC" in one.sentence
        assert f"its CA CN=ca only until {end:%Y-%m-%d %H:%M} UTC" in one.sentence


def test_an_intermediate_ca_that_outlives_the_root_is_the_one_that_is_named() -> None:
    end = NOW + timedelta(days=100)
    root, key = issued("ca root", end)
    below, between = issued("ca below", end + timedelta(days=9), ("ca root", key))
    leaf, _ = issued("proxy01", end, ("ca below", between))
    (found,) = complaints([leaf, below], where="proxy01", names=[], trusted=[root], now=NOW)
    assert (found.code, "The CA CN=ca below of proxy01" in found.sentence) == ("TLS-OUTLIVES-CA", True)
