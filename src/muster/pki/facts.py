"""What a certificate says, read from its structure and never from a printed name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import FQDN, shown
from muster.pki import pem as pems


@dataclass(frozen=True)
class CertificateFacts:
    """What one certificate says about itself.

    Attributes:
        subject_cn: first common name as it stands, None when there is none.
        names: DNS names of the alternative names, in order.
        addresses: IP addresses of the alternative names, in order.
        issuer: distinguished name, RFC 4514, one line.
        fingerprint_sha256: of the DER form, lower-case hexadecimal.
        key: kind and size, as ``EC secp256r1`` or ``RSA 2048``.
    """

    subject_cn: str | None
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    issuer: str
    not_before: datetime
    not_after: datetime
    serial: int
    fingerprint_sha256: str
    is_ca: bool
    key: str

    @classmethod
    def of(cls, certificate: x509.Certificate) -> Self:
        names, addresses = _alternative_names(certificate)
        return cls(
            subject_cn=_first_common_name(certificate.subject),
            names=names,
            addresses=addresses,
            issuer=distinguished(certificate.issuer),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
            serial=certificate.serial_number,
            fingerprint_sha256=certificate.fingerprint(hashes.SHA256()).hex(),
            is_ca=is_ca(certificate),
            key=key_kind(certificate),
        )

    @classmethod
    def from_pem(cls, pem: bytes, where: str = "The certificate") -> Self:
        """Return the facts of the first certificate of a PEM text.

        Raises:
            Misconfigured: it holds none that can be read.
        """
        return cls.of(pems.certificates(pem, where)[0])

    @classmethod
    def from_der(cls, der: bytes, where: str = "The certificate") -> Self:
        """As :meth:`from_pem`, for DER."""
        try:
            return cls.of(pems.certificate_of(der))
        except pems.UNREADABLE as e:
            raise Misconfigured(f"{where} cannot be read as a DER certificate: {e}") from e

    def as_json(self) -> dict[str, Any]:
        return {
            "subject_cn": self.subject_cn,
            "names": list(self.names),
            "addresses": list(self.addresses),
            "issuer": self.issuer,
            "not_before": self.not_before.isoformat(),
            "not_after": self.not_after.isoformat(),
            "serial": f"{self.serial:x}",
            "fingerprint_sha256": self.fingerprint_sha256,
            "is_ca": self.is_ca,
            "key": self.key,
        }


def common_name(der: bytes) -> str | None:
    """Return the first common name of the subject; None when it is not wholly a host name, without a trailing dot.

    A certificate that cannot be read has no name: the caller then trusts nobody.

    Source: docs/facts/smart-proxy-protocol.md §3; ours reads the name's structure, not its printed form.
    """
    try:
        value = _first_common_name(x509.load_der_x509_certificate(der).subject)
    except pems.UNREADABLE:
        return None
    try:
        # Cut to what is one, it would be another's name.
        return value if value is not None and FQDN.parse(value) == value else None
    except Rejected:
        return None


def distinguished(name: x509.Name) -> str:
    """Return a name as RFC 4514 text, safe on a terminal."""
    return shown(name.rfc4514_string()) or "(no name)"


def is_ca(certificate: x509.Certificate) -> bool:
    """Whether the basic constraints say so."""
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def key_kind(certificate: x509.Certificate) -> str:
    """Return kind and size of the public key."""
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def _first_common_name(name: x509.Name) -> str | None:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if not found:
        return None
    value = found[0].value
    return value if isinstance(value, str) else None


def _alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    try:
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), ()
    names = tuple(alternatives.get_values_for_type(x509.DNSName))
    return names, tuple(str(a) for a in alternatives.get_values_for_type(x509.IPAddress))
