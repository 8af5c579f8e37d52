"""PEM and DER read once, with a sentence for everything that can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

MAX_PEM_BYTES = 1 << 20


def certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text in its order, at least one.

    Raises:
        Misconfigured: there is none, or one cannot be read.
    """
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        raise Misconfigured(f"{where} is not a PEM certificate: it holds no line BEGIN CERTIFICATE")
    try:
        found = x509.load_pem_x509_certificates(pem)
        for certificate in found:
            # Extensions are read lazily; a certificate we could not judge later is refused now.
            _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm) as e:
        raise Misconfigured(f"{where} holds a certificate that cannot be read: {e}") from e
    return found


def private_key(pem: bytes, where: str, passphrase: Secret | None = None) -> PrivateKey:
    """Return the private key of a PEM text, which may also hold certificates; ``passphrase`` opens an encrypted one.

    Raises:
        Misconfigured: there is none, it is encrypted, or of a kind that cannot sign.
    """
    if b"PRIVATE KEY-----" not in pem:
        raise Misconfigured(f"{where} is not a PEM private key: it holds no line BEGIN PRIVATE KEY")
    try:
        word = passphrase.reveal().encode() if passphrase is not None and is_encrypted(pem) else None
        key = load_pem_private_key(pem[_key_start(pem) :], password=word)
    except TypeError as e:
        raise Misconfigured(f"{where} is encrypted with a passphrase; a service needs it without one, mode 0600") from e
    except (ValueError, UnsupportedAlgorithm) as e:
        # The library's text may quote what it parsed; nothing of a key file is repeated.
        also = ", or its passphrase is another" if passphrase is not None and is_encrypted(pem) else ""
        raise Misconfigured(f"{where} holds a private key that cannot be read{also}") from e
    if not isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    ):
        raise Misconfigured(f"{where} holds a key of a kind that TLS cannot use; RSA and EC keys can be used")
    return key


def is_encrypted(pem: bytes) -> bool:
    """Whether a PEM private key needs a passphrase, in OpenSSL's old form or in PKCS #8."""
    return b"ENCRYPTED PRIVATE KEY-----" in pem or b"Proc-Type: 4,ENCRYPTED" in pem


def text(certificates: Iterable[x509.Certificate]) -> str:
    """Return certificates as one PEM text, in their order."""
    return "".join(c.public_bytes(Encoding.PEM).decode() for c in certificates)


def key_text(key: PrivateKey) -> Secret:
    """Return a private key in PEM (PKCS #8), without a passphrase."""
    return Secret(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())


def same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether two certificates speak for the same key."""
    return _public_bytes(one) == _public_bytes(other)


def matches(certificate: x509.Certificate, key: PrivateKey) -> bool:
    """Whether the private key belongs to the certificate."""
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return _public_bytes(certificate) == public


def self_issued(certificate: x509.Certificate) -> bool:
    """Whether subject and issuer bear the same name; says nothing of the signature."""
    return certificate.issuer == certificate.subject


def signed_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether the issuer's name stands in the certificate and its key made the signature."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # noqa: BLE001  boundary: the library raises five unrelated types; each means "no".
        return False
    return True


def _key_start(pem: bytes) -> int:
    label = pem.index(b"PRIVATE KEY-----")
    return max(pem.rfind(b"-----BEGIN ", 0, label), 0)


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
