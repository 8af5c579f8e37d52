from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import NameAttribute, _ASN1Type
from cryptography.x509.oid import NameOID

from muster.kernel.errors import Misconfigured
from muster.pki.trust import RevocationLists, Trust
from tests.servers.certificates import CA, NOW


@pytest.fixture(scope="module")
def ours() -> CA:
    return CA("ours")


@pytest.fixture(scope="module")
def theirs() -> CA:
    return CA("theirs")


def test_a_certificate_stands_as_its_issuer_does(ours: CA, theirs: CA) -> None:
    trust = Trust((ours.certificate,), (theirs.certificate,))
    assert trust.issuer(ours.issue("a.test")) == ("own", ours.certificate)
    assert trust.issuer(theirs.issue("a.test")) == ("other", theirs.certificate)
    assert trust.issuer(CA("strangers").issue("a.test")) == ("unknown", None)


def test_an_issuers_name_is_not_believed_without_its_signature(ours: CA) -> None:
    namesake = CA("ours")
    assert Trust((ours.certificate,)).issuer(namesake.issue("a.test")) == ("unknown", None)
    # While a CA is replaced by one of the same name, both count.
    both = Trust((ours.certificate, namesake.certificate))
    assert both.issuer(namesake.issue("a.test")) == ("own", namesake.certificate)


def test_the_same_files_read_again_are_the_same_trust(ours: CA, theirs: CA, tmp_path: Path) -> None:
    own, others = tmp_path / "ca.pem", tmp_path / "others.pem"
    own.write_bytes(ours.certificate.public_bytes(Encoding.PEM))
    others.write_bytes(theirs.certificate.public_bytes(Encoding.PEM))
    first = Trust.read(own, [others])
    assert first == Trust.read(own, [others])
    assert first != Trust.read(own)


def test_what_a_ca_above_ours_issues_is_not_ours(ours: CA, theirs: CA, tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    adopted = CA("adopted")
    adopted.certificate = ours.issue("adopted", key=adopted.key)
    for chain in ((adopted, ours), (adopted, ours, theirs), (theirs, adopted, ours)):
        file.write_bytes(b"".join(ca.pem for ca in chain))
        trust = Trust.read(file)
        assert trust.issuer(adopted.issue("a.test")) == ("own", adopted.certificate)
        assert trust.issuer(ours.issue("a.test")) == ("other", ours.certificate)
    # As it may be while it is replaced.
    assert trust.issuer(theirs.issue("a.test"))[0] == "own"


def test_each_list_in_a_file_speaks_for_its_own_ca(ours: CA, theirs: CA, tmp_path: Path) -> None:
    trust, file = Trust((ours.certificate,), (theirs.certificate,)), tmp_path / "crl.pem"
    file.write_bytes(b"some words\n" + theirs.list(5, 6) + ours.list(7))
    lists = RevocationLists.read(file, trust)
    assert lists.revoke(theirs.issue("a.test", serial=5))
    assert lists.revoke(ours.issue("a.test", serial=7))
    assert not lists.revoke(ours.issue("a.test", serial=5))
    assert not lists.revoke(theirs.issue("a.test", serial=8))


def test_a_list_counts_however_it_writes_its_issuers_name(ours: CA, tmp_path: Path) -> None:
    file = tmp_path / "crl.pem"
    # The same name to X.509, in another string type: programs that copy a name may write it anew.
    printable = NameAttribute(NameOID.COMMON_NAME, "ours", _ASN1Type.PrintableString)
    issuer = CA("ours")
    issuer.key, issuer.name = ours.key, x509.Name([printable])
    assert issuer.name.public_bytes() != ours.name.public_bytes()
    file.write_bytes(issuer.list(5))
    lists = RevocationLists.read(file, Trust((ours.certificate,)))
    assert lists.revoke(ours.issue("a.test", serial=5))
    assert not lists.revoke(ours.issue("a.test", serial=6))


def test_a_list_that_ended_still_revokes_and_says_when_it_ended(ours: CA, tmp_path: Path) -> None:
    file, end = tmp_path / "crl.pem", (NOW - timedelta(days=2)).replace(microsecond=0)
    file.write_bytes(ours.list(5, ends=end) + ours.list(6))
    lists = RevocationLists.read(file, Trust((ours.certificate,)))
    assert lists.revoke(ours.issue("a.test", serial=5))
    assert lists.revoke(ours.issue("a.test", serial=6))
    assert lists.ends == end


def test_a_strangers_list_is_passed_over_and_alone_is_refused(ours: CA, theirs: CA, tmp_path: Path) -> None:
    file, trust = tmp_path / "crl.pem", Trust((ours.certificate,))
    file.write_bytes(theirs.list(5) + ours.list(6))
    assert RevocationLists.read(file, trust).revoke(ours.issue("a.test", serial=6))
    file.write_bytes(theirs.list(5))
    with pytest.raises(Misconfigured, match="is of no CA that is trusted here"):
        RevocationLists.read(file, trust)
    file.write_bytes(ours.list(5, key=theirs.key))
    with pytest.raises(Misconfigured, match="is of no CA that is trusted here"):
        RevocationLists.read(file, trust)


def pem_bytes(pem: bytes) -> bytes:
    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))


@pytest.mark.parametrize("content", [b"", b"junk", b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"])
def test_a_file_that_is_no_list_is_named(ours: CA, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "crl.pem"
    file.write_bytes(content)
    with pytest.raises(Misconfigured, match=f"The revocation list {file} "):
        RevocationLists.read(file, Trust((ours.certificate,)))
    # A name that is no text, which the library finds out when it is looked at.
    der = pem_bytes(ours.list(5)).replace(b"\x0c\x04ours", b"\x0c\x04\xff\xff\xff\xff")
    file.write_bytes(b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(der) + b"-----END X509 CRL-----\n")
    with pytest.raises(Misconfigured, match="cannot be read"):
        RevocationLists.read(file, Trust((ours.certificate,)))
    file.write_bytes(ours.list(5)[:-30])
    with pytest.raises(Misconfigured, match="cannot be read"):
        RevocationLists.read(file, Trust((ours.certificate,)))
    with pytest.raises(Misconfigured, match="revocation list"):
        RevocationLists.read(tmp_path / "absent.pem", Trust((ours.certificate,)))
