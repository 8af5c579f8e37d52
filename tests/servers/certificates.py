"""Small CAs in memory, for certificates and lists of any kind."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
Key = ec.EllipticCurvePrivateKey


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class CA:
    """A small CA: it issues certificates and lists."""

    def __init__(self, name: str) -> None:
        self.key: Key = ec.generate_private_key(ec.SECP256R1())
        self.name = named(name)
        self.certificate = self.issue(name, key=self.key)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def issue(
        self, name: str, *, serial: int | None = None, key: Key | None = None, ends: datetime = NOW + timedelta(days=1)
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(named(name))
            .issuer_name(self.name)
            .public_key((key or ec.generate_private_key(ec.SECP256R1())).public_key())
            .serial_number(serial or x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(ends)
            .add_extension(x509.BasicConstraints(key is not None and key is self.key, None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def bundle(self, name: str, **said: Any) -> bytes:
        """Return a certificate with its key, PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return self.issue(name, key=key, **said).public_bytes(Encoding.PEM) + key_pem

    def list(self, *serials: int, ends: datetime = NOW + timedelta(days=1), **forged: Any) -> bytes:
        builder = x509.CertificateRevocationListBuilder(self.name, NOW - timedelta(days=9), ends)
        for serial in serials:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW).build()
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(forged.get("key", self.key), hashes.SHA256()).public_bytes(Encoding.PEM)


def at_an_address(directory: Path, address: str) -> Path:
    """Write ``cert.pem`` and ``key.pem`` of a server that has an address and no name, its own CA; return the former."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = (
        x509.CertificateBuilder()
        .subject_name(named("bmc"))
        .issuer_name(named("bmc"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(days=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (directory / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    return directory / "cert.pem"
