from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write

NOW = datetime.now(UTC)
MEMBER = BundleRequest("member", "proxy01.example.com", ("proxy.example.com",), ("127.0.0.11", "::1"))


def openssl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, timeout=20, check=False)


def foreign_ca(
    *,
    ca: bool = True,
    signs: bool = True,
    days: int = 10,
    name: str = "Site CA",
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None = None,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = x509.KeyUsage(True, False, False, False, False, signs, signs, False, False)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=20))
        .not_valid_after(NOW + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer[1] if issuer else key, hashes.SHA256())
    )
    return certificate, key


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


def test_a_ca_is_not_overwritten_unless_told_and_then_kept(tmp_path: Path) -> None:
    first = ClusterCA.create(tmp_path, "demo", now=NOW)
    with pytest.raises(Conflict, match="exists already"):
        ClusterCA.create(tmp_path, "demo", now=NOW)
    assert ClusterCA.open(tmp_path).certificate == first.certificate
    second = ClusterCA.create(tmp_path, "demo", now=NOW, overwrite=True)
    assert ClusterCA.open(tmp_path).certificate == second.certificate
    kept = list(tmp_path.glob("ca-*.pem"))
    assert [x509.load_pem_x509_certificate(p.read_bytes()) for p in kept] == [first.certificate]


def test_the_ca_key_is_private_and_in_no_repr(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "ca.pem").stat().st_mode) == 0o644
    bundle = ca.issue(MEMBER, now=NOW)
    secret = bundle.key_pem.reveal().splitlines()[1]
    assert secret not in repr(bundle)
    assert "PrivateKey" not in repr(ca)


def test_opening_without_a_ca_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="muster certs init"):
        ClusterCA.open(tmp_path)


def test_opening_with_another_key_is_refused(tmp_path: Path) -> None:
    ClusterCA.create(tmp_path, "demo", now=NOW)
    ClusterCA.create(tmp_path / "other", "demo", now=NOW)
    (tmp_path / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(Misconfigured, match="does not belong to"):
        ClusterCA.open(tmp_path)


def test_a_sites_ca_is_adopted_and_issues(tmp_path: Path) -> None:
    certificate, key = foreign_ca()
    ClusterCA.adopt(tmp_path, pem(certificate), key_pem(key))
    at = write(ClusterCA.open(tmp_path).issue(MEMBER, now=NOW), tmp_path)
    assert openssl("verify", "-CAfile", str(at.ca), str(at.certificate)).returncode == 0


def test_an_adopted_intermediate_is_sent_with_every_certificate(tmp_path: Path) -> None:
    root = foreign_ca(name="Root")
    certificate, key = foreign_ca(name="Intermediate", issuer=root)
    ca = ClusterCA.adopt(tmp_path, pem(certificate) + pem(root[0]), key_pem(key))
    at = write(ca.issue(MEMBER, now=NOW), tmp_path)
    only_root = tmp_path / "root.pem"
    only_root.write_bytes(pem(root[0]))
    said = openssl("verify", "-CAfile", str(only_root), "-untrusted", str(at.certificate), str(at.certificate))
    assert said.returncode == 0, said.stderr


def test_each_unfit_ca_is_refused_with_its_own_sentence(tmp_path: Path) -> None:
    good, key = foreign_ca()
    for unfit, said in (
        (foreign_ca(ca=False), "is not a CA certificate"),
        (foreign_ca(signs=False), "may not sign"),
        (foreign_ca(days=-1), "expired on"),
        (foreign_ca(name="Sub", issuer=(good, key)), "append the issuers up to the root"),
    ):
        with pytest.raises(Rejected, match=said):
            ClusterCA.adopt(tmp_path, pem(unfit[0]), key_pem(unfit[1]))
    for certificate_pem, given_key, said in (
        (pem(good), key_pem(foreign_ca()[1]), "does not belong to"),
        (pem(good), key_pem(key, b"passphrase"), "encrypted with a passphrase"),
        (pem(good), b"nonsense", "not a PEM private key"),
        (b"nonsense", key_pem(key), "not a PEM certificate"),
    ):
        with pytest.raises(Misconfigured, match=said):
            ClusterCA.adopt(tmp_path, certificate_pem, given_key)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_creation_or_adoption_refuses_the_same_and_writes_nothing(tmp_path: Path) -> None:
    (certificate, key), no_ca = foreign_ca(), foreign_ca(ca=False)
    there, absent = tmp_path / "there", tmp_path / "absent"
    ClusterCA.create(there, "demo", now=NOW)
    before = {p: p.read_bytes() for p in there.iterdir()}
    with pytest.raises(Conflict):
        ClusterCA.create(there, "demo", now=NOW, dry=True)
    with pytest.raises(Conflict):
        ClusterCA.adopt(there, pem(certificate), key_pem(key), now=NOW, dry=True)
    with pytest.raises(Rejected):
        ClusterCA.adopt(absent, pem(no_ca[0]), key_pem(no_ca[1]), now=NOW, dry=True)
    assert ClusterCA.create(absent, "demo", now=NOW, dry=True).certificate
    assert ClusterCA.adopt(there, pem(certificate), key_pem(key), now=NOW, overwrite=True, dry=True).certificate
    assert {p: p.read_bytes() for p in there.iterdir()} == before
    assert not absent.exists()


@pytest.mark.parametrize("old_form", [False, True])
def test_an_encrypted_key_of_a_site_stays_encrypted_and_opens_with_the_file_that_was_named(
    tmp_path: Path, old_form: bool
) -> None:
    certificate, key = foreign_ca()
    form = PrivateFormat.TraditionalOpenSSL if old_form else PrivateFormat.PKCS8
    encrypted = key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"open sesame"))
    word, home = tmp_path / "word", tmp_path / "pki"
    with pytest.raises(Misconfigured, match="--ca-passphrase-file"):
        ClusterCA.adopt(home, pem(certificate), encrypted)
    word.write_text("wrong\n")
    with pytest.raises(Misconfigured, match="or its passphrase is another"):
        ClusterCA.adopt(home, pem(certificate), encrypted, passphrase_file=word)
    assert not home.exists()
    word.write_text("open sesame\n")
    ClusterCA.adopt(home, pem(certificate), encrypted, passphrase_file=word, dry=True)
    assert not home.exists()
    ClusterCA.adopt(home, pem(certificate), encrypted, passphrase_file=word)
    assert (home / "ca.key").read_bytes() == encrypted
    assert "sesame" not in "".join(p.read_text() for p in home.iterdir() if not p.is_symlink())
    at = write(ClusterCA.open(home).issue(MEMBER, now=NOW), home)
    assert openssl("verify", "-CAfile", str(home / "ca.pem"), str(at.certificate)).returncode == 0
    word.unlink()
    with pytest.raises(Misconfigured, match="ln -s FILE"):
        ClusterCA.open(home)


def test_a_replaced_ca_s_passphrase_goes_with_its_key(tmp_path: Path) -> None:
    certificate, key = foreign_ca()
    word, home = tmp_path / "word", tmp_path / "pki"
    word.write_text("open sesame")
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open sesame"))
    ClusterCA.adopt(home, pem(certificate), encrypted, passphrase_file=word)
    ClusterCA.create(home, "demo", now=NOW, overwrite=True)
    assert not (home / "ca.passphrase").is_symlink()
    assert [p.readlink() for p in home.glob("ca-*.passphrase")] == [word]
    ClusterCA.open(home)
