from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from muster.kernel.errors import Rejected
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, KeyKind, write
from tests.unit.pki.test_authority import MEMBER, NOW, openssl


@pytest.mark.parametrize("kind", ["ec-p256", "rsa-2048"])
def test_openssl_accepts_the_chain_for_server_and_client(tmp_path: Path, kind: KeyKind) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW, key_kind=kind)
    at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    for purpose in ("sslserver", "sslclient"):
        said = openssl("verify", "-x509_strict", "-purpose", purpose, "-CAfile", str(at.ca), str(at.certificate))
        assert said.returncode == 0, said.stderr
    wrong_host = ["-verify_hostname", "other.example.com", "-CAfile", str(at.ca), str(at.certificate)]
    assert openssl("verify", *wrong_host).returncode != 0


def test_openssl_refuses_a_client_bundle_as_a_server(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    at = write(ca.issue(BundleRequest("client", "foreman.example.com"), now=NOW), tmp_path)
    verify = ("verify", "-CAfile", str(at.ca), str(at.certificate), "-purpose")
    assert openssl("verify", "-purpose", "sslclient", *verify[1:4]).returncode == 0
    assert openssl("verify", "-purpose", "sslserver", *verify[1:4]).returncode != 0


def test_openssl_prints_the_profile(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    authority = openssl("x509", "-noout", "-text", "-in", str(at.ca)).stdout
    assert "CA:TRUE, pathlen:0" in authority
    assert "Certificate Sign, CRL Sign" in authority
    leaf = openssl("x509", "-noout", "-text", "-in", str(at.certificate)).stdout
    assert "CA:FALSE" in leaf
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in leaf
    assert "DNS:proxy01.example.com, DNS:proxy.example.com, IP Address:127.0.0.11" in leaf
    assert "Authority Key Identifier" in leaf
    assert "Subject Key Identifier" in leaf


def test_the_start_lies_five_minutes_back_and_the_end_never_after_the_ca(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW, valid_days=30)
    later = NOW + timedelta(days=20)
    leaf = x509.load_pem_x509_certificate(ca.issue(MEMBER, now=later).certificate_pem.encode())
    assert leaf.not_valid_before_utc == later.replace(microsecond=0) - timedelta(minutes=5)
    assert leaf.not_valid_after_utc == ca.certificate.not_valid_after_utc


def test_an_expired_ca_issues_nothing(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW, valid_days=30)
    with pytest.raises(Rejected, match="expired on"):
        ca.issue(MEMBER, now=NOW + timedelta(days=31))


def test_client_bundles_are_for_clients_only(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    leaf = x509.load_pem_x509_certificate(
        ca.issue(BundleRequest("client", "f.example.com"), now=NOW).certificate_pem.encode()
    )
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert 0 < leaf.serial_number.bit_length() <= 159


@pytest.mark.parametrize("days", [-1, 0, 36_501, 9_999_999])
def test_nothing_is_valid_for_no_day_or_longer_than_a_century(tmp_path: Path, days: int) -> None:
    with pytest.raises(Rejected, match="1 to 36500 are possible"):
        ClusterCA.create(tmp_path / "ca", "demo", now=NOW, valid_days=days)
    assert not (tmp_path / "ca").exists()
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    with pytest.raises(Rejected, match="1 to 36500 are possible"):
        ca.issue(MEMBER, now=NOW, valid_days=days)
    with pytest.raises(Rejected, match="1 to 36500 are possible"):
        ca.refuse_unless_able(now=NOW, valid_days=days)
