from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.kernel.errors import Misconfigured
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.pki.facts import CertificateFacts, common_name

NOW = datetime.now(UTC)
CN, OU = NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME


def der(*subject: tuple[x509.ObjectIdentifier, str]) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(oid, value) for oid, value in subject])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def test_only_a_common_name_counts() -> None:
    assert common_name(der((OU, "foreman.example.com"), (CN, "host.example.com"))) == "host.example.com"
    assert common_name(der((OU, "foreman.example.com"))) is None


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("foreman.example.com", "foreman.example.com"),
        ("Foreman.example.com", "Foreman.example.com"),
        ("foreman", "foreman"),
        ("foreman.example.com/x", None),
        ("foreman.example.com,O=x", None),
        ("foreman.example.com x", None),
        ("foreman.example.com\nx", None),
        ("foreman.example.com.", None),
        ("/foreman.example.com", None),
        (" foreman.example.com", None),
        ("The Foreman", None),
    ],
)
def test_a_common_name_is_wholly_a_host_name_or_none(value: str, name: str | None) -> None:
    assert common_name(der((CN, value))) == name


def test_of_several_common_names_the_first_counts() -> None:
    assert common_name(der((CN, "first.example.com"), (CN, "second.example.com"))) == "first.example.com"


@pytest.mark.parametrize("garbage", [b"", b"\x30\x03\x02\x01\x01", b"garbage" * 50])
def test_garbage_has_no_name_and_no_facts(garbage: bytes) -> None:
    assert common_name(garbage) is None
    with pytest.raises(Misconfigured):
        CertificateFacts.from_der(garbage)
    with pytest.raises(Misconfigured):
        CertificateFacts.from_pem(garbage)


def test_facts_say_what_was_asked_for(tmp_path: Path) -> None:
    ca = ClusterCA.create(tmp_path, "demo", now=NOW)
    request = BundleRequest("member", "p1.example.com", ("proxy.example.com",), ("::1", "127.0.0.2"), "rsa-2048")
    bundle = ca.issue(request, now=NOW, valid_days=90)
    facts = CertificateFacts.from_pem(bundle.certificate_pem.encode())
    assert facts.subject_cn == "p1.example.com"
    assert facts.names == ("p1.example.com", "proxy.example.com")
    assert facts.addresses == ("::1", "127.0.0.2")
    assert facts.issuer == "CN=Muster cluster CA,O=demo"
    assert facts.not_after - facts.not_before == timedelta(days=90, minutes=5)
    assert (facts.key, facts.is_ca, facts.serial) == ("RSA 2048", False, bundle.serial)
    assert CertificateFacts.of(ca.certificate).is_ca
