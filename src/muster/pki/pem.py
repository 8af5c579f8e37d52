"""PEM and DER read once, with a sentence for everything that can be wrong with them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
from muster.kernel.names import shown
from muster.kernel.secrets import Secret

PrivateKey: TypeAlias = (
    rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
)

MAX_PEM_BYTES = 1 << 20
UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises for bytes that are no certificate or list, some of it only when an extension is looked at."""

_BEGIN = re.compile(rb"^-----BEGIN ([^\r\n-]{1,64})-----", re.MULTILINE)
# What OpenSSL takes for a plain certificate where one is asked for.
_PLAIN = frozenset({"CERTIFICATE", "X509 CERTIFICATE"})
_NAMED_BLOCKS = 5


@dataclass(frozen=True)
class Block:
    """One block of a PEM text.

    Attributes:
        number: its place among all blocks, from 1.
        line: where it begins, from 1.
        label: what its first line says it is, as it stands there.
    """

    number: int
    line: int
    label: str

    def __str__(self) -> str:
        return f"block {self.number} (line {self.line}, {shown(self.label)})"


def passed_over(pem: bytes) -> list[Block]:
    """Return the blocks that a reader of certificates skips without a word, in order."""
    return [block for block, _ in _blocks(pem) if block.label not in _PLAIN]


def listed(blocks: Sequence[Block]) -> str:
    """Return the blocks in words, of many the first few."""
    more = f" and {len(blocks) - _NAMED_BLOCKS} more" if len(blocks) > _NAMED_BLOCKS else ""
    return ", ".join(str(b) for b in blocks[:_NAMED_BLOCKS]) + more


def _blocks(pem: bytes) -> Iterator[tuple[Block, bytes]]:
    """Yield every block with its text, which ends where the next one begins."""
    found = list(_BEGIN.finditer(pem))
    line, counted = 1, 0
    for number, match in enumerate(found, 1):
        line += pem.count(b"\n", counted, match.start())
        counted = match.start()
        end = found[number].start() if number < len(found) else len(pem)
        yield Block(number, line, match[1].decode("ascii", "replace")), pem[match.start() : end]


def certificates(pem: bytes, where: str) -> list[x509.Certificate]:
    """Return the certificates of a PEM text in its order, at least one.

    Raises:
        Misconfigured: there is none, or one cannot be read.
    """
    if b"-----BEGIN CERTIFICATE-----" not in pem:
        others = passed_over(pem)
        instead = f"; it holds {listed(others)}" if others else ""
        raise Misconfigured(f"{where} is not a PEM certificate: it holds no line BEGIN CERTIFICATE{instead}")
    try:
        return _read(pem)
    except UNREADABLE as e:
        block = _unreadable(pem)
        which = f", {block}; remove it, or copy it again" if block is not None else ""
        raise Misconfigured(f"{where} holds a certificate that cannot be read{which}: {e}") from e


def _read(pem: bytes) -> list[x509.Certificate]:
    return [_judged(one) for one in x509.load_pem_x509_certificates(pem)]


def certificate_of(der: bytes) -> x509.Certificate:
    """Return a certificate that somebody shows.

    Raises:
        one of UNREADABLE: it is none, or nobody could judge it.
    """
    return _judged(x509.load_der_x509_certificate(der))


def _judged(certificate: x509.Certificate) -> x509.Certificate:
    # Extensions are read lazily; a certificate we could not judge later is refused now.
    _ = certificate.extensions, certificate.subject, certificate.issuer, certificate.public_key()
    return certificate


def _unreadable(pem: bytes) -> Block | None:
    for block, text in _blocks(pem):
        if block.label in _PLAIN:
            try:
                _read(text)
            except UNREADABLE:
                return block
    return None


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
    except Exception:  # noqa: BLE001 - boundary: the library raises five unrelated types; each means "no"
        return False
    return True


def _key_start(pem: bytes) -> int:
    label = pem.index(b"PRIVATE KEY-----")
    return max(pem.rfind(b"-----BEGIN ", 0, label), 0)


def _public_bytes(certificate: x509.Certificate) -> bytes:
    return certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
