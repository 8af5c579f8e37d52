"""What the signer signs: hosts' certificates and lists as this room makes them, and nothing that would outlive a break-in.

A member that is broken into can ask for signatures while it lasts. One certificate of a CA below ours, or one that
administers it, would be as good as the key, and for years. Pure: bytes in, a sentence out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from muster.authority.keys.contract import PROOF
from muster.authority.x509.certnames import PP_CLI_AUTH
from muster.authority.x509.profile import common_name, list_number
from muster.kernel.errors import Rejected
from muster.kernel.names import shown

LONGEST_DAYS = 1825
"""How long a certificate may be valid when the signer is not told otherwise: as long as a puppetserver's are."""

# Clocks differ, and a day more is nobody's CA.
_SLACK = timedelta(days=1)
# What the library reads is a whole certificate or list; these stand for the signature that is still to be made.
_ALGORITHMS = {
    rsa.RSAPublicKey: bytes.fromhex("300d06092a864886f70d01010b0500"),
    ec.EllipticCurvePublicKey: bytes.fromhex("300a06082a8648ce3d040302"),
}
_NO_SIGNATURE = b"\x03\x02\x00\x00"
_UNREADABLE = (ValueError, TypeError, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType)


_E = TypeVar("_E", bound=x509.ExtensionType)


@dataclass(frozen=True)
class Rules:
    """What a signer holds to.

    Attributes:
        issuer: the CA's certificate. None: it is not known, as before ``muster ca init``; then whose certificates are signed
            is not compared, and a self-signed one for the signer's own key is signed, too, which gives nobody anything.
        longest: how long a certificate may be valid from now.
    """

    issuer: x509.Certificate | None = None
    longest: timedelta = timedelta(days=LONGEST_DAYS)


def judged(
    data: bytes, public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey, rules: Rules, now: datetime
) -> str | None:
    """Return in words what would be signed, for the log; None for the proof that members ask for every few seconds.

    ``public`` is the signer's own key.

    Raises:
        Rejected: it is nothing that the signer signs; the sentence says why.
    """
    if data == PROOF:
        return None
    whole = _whole(data, public)
    try:
        certificate = x509.load_der_x509_certificate(whole)
    except _UNREADABLE:
        return _list(whole, rules)
    try:
        return _certificate(certificate, public, rules, now)
    except _UNREADABLE as e:
        raise Rejected(f"A certificate with an extension that cannot be read: {e}") from e


def _certificate(
    certificate: x509.Certificate,
    public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey,
    rules: Rules,
    now: datetime,
) -> str:
    name = shown(common_name(certificate.subject) or "nobody")
    what = (
        f"certificate of {name}, serial {certificate.serial_number:X}, until {certificate.not_valid_after_utc:%Y-%m-%d}"
    )
    if rules.issuer is None and certificate.issuer == certificate.subject and _is_of(certificate, public):
        return f"the CA's own {what}"
    if rules.issuer is not None and certificate.issuer != rules.issuer.subject:
        raise Rejected(f"The {what}, is in the name of another issuer: {shown(certificate.issuer.rfc4514_string())}")
    extensions = certificate.extensions
    if _value(extensions, x509.BasicConstraints) != x509.BasicConstraints(ca=False, path_length=None):
        raise Rejected(f"The {what}, does not say that it is no CA's (basicConstraints)")
    usage = _value(extensions, x509.KeyUsage)
    if usage is None or usage.key_cert_sign or usage.crl_sign:
        raise Rejected(f"The {what}, does not keep its key from signing certificates and lists (keyUsage)")
    if any(e.oid == PP_CLI_AUTH for e in extensions):
        raise Rejected(
            f"The {what}, would be an administrator's (pp_cli_auth); name it in authority.administrators, or sign it with "
            "the key itself"
        )
    if certificate.not_valid_after_utc > now + rules.longest + _SLACK:
        raise Rejected(f"The {what}, would be valid for more than {rules.longest.days} days (--longest-days)")
    return what


def _list(whole: bytes, rules: Rules) -> str:
    try:
        found = x509.load_der_x509_crl(whole)
        number = list_number(found)
    except _UNREADABLE as e:
        raise Rejected("What is to be signed is neither a certificate nor a revocation list") from e
    if rules.issuer is not None and found.issuer != rules.issuer.subject:
        raise Rejected(f"A revocation list in the name of another issuer: {shown(found.issuer.rfc4514_string())}")
    return f"revocation list {number}"


def _value(extensions: x509.Extensions, kind: type[_E]) -> _E | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _is_of(certificate: x509.Certificate, public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bool:
    form = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    return certificate.public_key().public_bytes(*form) == public.public_bytes(*form)


def _whole(data: bytes, public: rsa.RSAPublicKey | ec.EllipticCurvePublicKey) -> bytes:
    algorithm = next(a for kind, a in _ALGORITHMS.items() if isinstance(public, kind))
    content = data + algorithm + _NO_SIGNATURE
    size = len(content)
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    length = octets if size < 0x80 else bytes([0x80 | len(octets)]) + octets
    return b"\x30" + length + content
