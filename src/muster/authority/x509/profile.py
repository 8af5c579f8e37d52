"""Certificates and revocation lists as puppetserver makes them: the same extensions in the same order.

Source: docs/facts/puppet-ca.md §2.1, §2.5. Nothing here keeps state or reads a clock.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster.authority.x509.certnames import AUTHORISATION, COMMENT, NETSCAPE_COMMENT, PRIVATE, REGISTERED
from muster.authority.x509.csr import Alternatives, CertificateRequest, alternatives_in, authorisations, utf8_body
from muster.kernel.errors import Misconfigured

CAKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

BACKDATED = timedelta(hours=24)
# An agent checks its own certificate with no tolerance for a list from the future (docs/facts/puppet-ca.md §3.3).
_LIST_BACKDATED = timedelta(minutes=10)
# What a certificate's time can say (RFC 5280 §4.1.2.5).
_FIRST = datetime(1950, 1, 1, tzinfo=UTC)
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_LONGEST_AHEAD = timedelta(days=30)
# An ancestor's list comes by hand, from a key that lies in a safe; one that is short-lived comes by a programme.
_BROUGHT_AHEAD = (timedelta(days=4), timedelta(days=28))
# X.520's; above it the library refuses to make one.
COMMON_NAME_LIMIT = 64
# One class for base64 and blanks: two that overlap would look at every split of them (a body of blanks takes hours).
_BEGIN_CRL = re.compile(r"-----BEGIN X509 CRL-----([A-Za-z0-9+/=\s]{1,20000000}?)-----END X509 CRL-----")
_COMMENT_DER = bytes([0x16, len(COMMENT)]) + COMMENT


@dataclass(frozen=True)
class Issuer:
    """The certificate that signs, read once.

    Attributes:
        chain_pem: the bundle as it is served, byte for byte: the signing certificate first, the root last.
    """

    certificate: x509.Certificate
    chain_pem: str
    chain: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, chain_pem: str) -> Issuer:
        """Return the issuer of a bundle.

        Raises:
            Misconfigured: the text holds no certificate, or the first one is no CA.
        """
        try:
            chain = tuple(x509.load_pem_x509_certificates(chain_pem.encode()))
        except ValueError as e:
            raise Misconfigured("The CA bundle holds no certificate in PEM") from e
        return cls(chain[0], chain_pem, chain)

    @property
    def key_identifier(self) -> bytes:
        return key_identifier(self.certificate)

    @property
    def common_name(self) -> str:
        return common_name(self.certificate.subject)


def common_name(name: x509.Name) -> str:
    """Return the first common name, empty without one."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def key_identifier(certificate: x509.Certificate) -> bytes:
    """Return the subject key identifier: what the certificate says, else SHA-1 of the key."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return x509.SubjectKeyIdentifier.from_public_key(certificate.public_key()).digest


def random_serial() -> int:
    """Return a positive number of at most 159 bits: 20 octets hold it with its sign (RFC 5280 §4.1.2.2)."""
    return secrets.randbits(158) | 1 << 158


def signed_leaf(
    request: CertificateRequest,
    issuer: Issuer,
    key: CAKey,
    *,
    serial: int,
    now: datetime,
    ttl: timedelta,
) -> x509.Certificate:
    """Return the certificate of a request that was judged before.

    The subject is the request's common name alone; the name always stands among the DNS names; the extensions Puppet knows
    are copied, their values wrapped in a UTF8String when they are none.
    """
    copied = [_copied(e) for e in request.extensions if _is_puppets(e.oid.dotted_string)]
    return _leaf(
        request.name,
        request.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0],
        request.alternatives,
        copied,
        request.parsed.public_key(),  # type: ignore[arg-type]
        issuer,
        key,
        serial=serial,
        now=now,
        ttl=ttl,
    )


def renewed_leaf(
    old: x509.Certificate, issuer: Issuer, key: CAKey, *, serial: int, now: datetime, ttl: timedelta
) -> x509.Certificate:
    """Return a certificate with the old one's key, names and Puppet extensions."""
    kept = [(e.value, e.critical) for e in old.extensions if _is_puppets(e.oid.dotted_string)]
    attribute = old.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0]
    return _leaf(
        str(attribute.value), attribute, alternatives_of(old), kept, old.public_key(),  # type: ignore[arg-type]
        issuer, key, serial=serial, now=now, ttl=ttl,
    )  # fmt: skip


def _leaf(
    name: str,
    attribute: x509.NameAttribute[str | bytes],
    alternatives: Alternatives,
    copied: Sequence[tuple[x509.ExtensionType, bool]],
    public_key: PublicKey,
    issuer: Issuer,
    key: CAKey,
    *,
    serial: int,
    now: datetime,
    ttl: timedelta,
) -> x509.Certificate:
    # A longer common name can only be taken over as it came: making one anew is refused (X.520's limit).
    subject = attribute if len(name) > COMMON_NAME_LIMIT else x509.NameAttribute(NameOID.COMMON_NAME, name)
    # puppetserver writes addresses before names, whatever order was asked for (recorded csr san-ip).
    names = sorted(alternatives.names, key=lambda n: not isinstance(n, x509.IPAddress))
    if name not in alternatives.dns:
        names.append(x509.DNSName(name))
    ending = _ending(now, ttl)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([subject]))
        .issuer_name(issuer.certificate.subject)
        .serial_number(serial)
        # A time to live below zero is puppetserver's to give: such a certificate was never valid.
        .not_valid_before(min(now - BACKDATED, ending))
        .not_valid_after(ending)
        .public_key(public_key)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.UnrecognizedExtension(NETSCAPE_COMMENT, _COMMENT_DER), critical=False)
        .add_extension(_authority(issuer.certificate), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
    )
    for extension, critical in copied:
        builder = builder if critical else builder.add_extension(extension, critical=False)
    builder = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True
        )
        .add_extension(_usage(digital_signature=True, key_encipherment=True), critical=True)
    )
    # puppetserver writes every critical extension after those that are not (recorded csr ext-pp-critical).
    for extension, critical in copied:
        builder = builder.add_extension(extension, critical=True) if critical else builder
    return builder.sign(key, _digest(key))


def self_signed(common: str, key: CAKey, *, now: datetime, ttl: timedelta) -> x509.Certificate:
    """Return a CA of its own, as a puppetserver without one makes itself at its first start."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .serial_number(1)
        .not_valid_before(now - BACKDATED)
        .not_valid_after(_ending(now, ttl))
        .public_key(key.public_key())
        .add_extension(x509.UnrecognizedExtension(NETSCAPE_COMMENT, _COMMENT_DER), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(subject_key.digest, None, None), critical=False)
        .add_extension(subject_key, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .sign(key, _digest(key))
    )


def signed_list(
    issuer: Issuer,
    key: CAKey,
    revoked: Iterable[tuple[int, datetime]],
    *,
    number: int,
    now: datetime,
    ttl: timedelta,
) -> x509.CertificateRevocationList:
    """Return a revocation list; every entry's reason is keyCompromise, as puppetserver writes it."""
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    entries = [
        x509.RevokedCertificateBuilder(
            serial, at.replace(tzinfo=None), [x509.Extension(reason.oid, False, reason)]
        ).build()
        for serial, at in revoked
    ]
    builder = (
        # Given at once: adding one by one copies the list each time, 3 s for fifty thousand.
        x509.CertificateRevocationListBuilder(revoked_certificates=entries)
        .issuer_name(issuer.certificate.subject)
        .last_update(now - _LIST_BACKDATED)
        .next_update(_ending(now, ttl))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier(issuer.key_identifier, None, None), critical=False)
    )
    return builder.sign(key, _digest(key))


def alternatives_of(certificate: x509.Certificate) -> Alternatives:
    """Return a certificate's alternative names."""
    return alternatives_in(certificate.extensions)


def status_of(certificate: x509.Certificate) -> dict[str, object]:
    """Return what a status object says of a certificate, less its state (docs/facts/puppet-ca.md §1.3)."""
    alternatives = alternatives_of(certificate)
    return {
        "name": common_name(certificate.subject),
        "dns_alt_names": [f"DNS:{n}" for n in alternatives.dns],
        "authorization_extensions": authorisations(tuple(certificate.extensions)),
        "subject_alt_names": list(alternatives.shown),
        "not_before": stamp(certificate.not_valid_before_utc),
        "fingerprints": fingerprints(certificate.public_bytes(Encoding.DER)),
        "serial_number": certificate.serial_number,
        "not_after": stamp(certificate.not_valid_after_utc),
    }


def status_of_request(request: CertificateRequest) -> dict[str, object]:
    """Return what a status object says of a request, less its state."""
    alternatives = request.alternatives
    return {
        "name": request.name,
        "dns_alt_names": [f"DNS:{n}" for n in alternatives.dns],
        "subject_alt_names": list(alternatives.shown),
        "authorization_extensions": request.authorisations,
        "fingerprints": fingerprints(request.der),
    }


def fingerprints(der: bytes) -> dict[str, str]:
    """Return digests in upper-case hexadecimal pairs."""
    found = {name: _paired(hashlib.new(name.lower(), der).digest()) for name in ("SHA1", "SHA256", "SHA512")}
    return {**found, "default": found["SHA256"]}


def stamp(moment: datetime) -> str:
    """Return a moment as the CA's JSON has it: UTC, and said so with three letters."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SUTC")


def ahead(ttl: timedelta) -> timedelta:
    """Return how long before its end something that is made for that long is made anew.

    Source: docs/facts/puppet-ca.md §7.5. Thirty days alone would be all of a short life.
    """
    return min(_LONGEST_AHEAD, ttl / 5)


def is_late(one: x509.CertificateRevocationList, now: datetime) -> bool:
    """Whether somebody should have brought a newer list of this ancestor by now: it ends within four weeks.

    A list that lives for less than four months ends soon within its last quarter, but not later than four days before.
    """
    if one.next_update_utc is None:
        return False
    least, most = _BROUGHT_AHEAD
    return one.next_update_utc - now <= max(least, min(most, (one.next_update_utc - one.last_update_utc) / 4))


def belongs(key: CAKey, certificate: x509.Certificate) -> bool:
    """Whether the private key is the certificate's."""
    return _spki(key.public_key()) == _spki(certificate.public_key())


def same_key(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether two certificates are for the same key."""
    return _spki(one.public_key()) == _spki(other.public_key())


def crls_in(pem: str) -> list[x509.CertificateRevocationList]:
    """Return the lists in a text of PEM blocks.

    Raises:
        ValueError: one cannot be decoded.
    """
    return [x509.load_der_x509_crl(base64.b64decode(found.group(1))) for found in _BEGIN_CRL.finditer(pem)]


def list_number(one: x509.CertificateRevocationList) -> int | None:
    """Return a revocation list's number, None when it has none."""
    try:
        return one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None


def pem_of(thing: x509.Certificate | x509.CertificateRevocationList) -> str:
    return thing.public_bytes(Encoding.PEM).decode()


def _is_puppets(number: str) -> bool:
    return number.startswith((REGISTERED, PRIVATE, AUTHORISATION))


def _copied(extension: x509.Extension[x509.ExtensionType]) -> tuple[x509.ExtensionType, bool]:
    value = extension.value
    assert isinstance(value, x509.UnrecognizedExtension)  # noqa: S101 - the library knows none of Puppet's
    body = value.value
    if utf8_body(body) is None:
        body = b"\x0c" + _length_of(body) + body
    return x509.UnrecognizedExtension(value.oid, body), extension.critical


def _length_of(body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes([size])
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x80 | len(octets)]) + octets


def _authority(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier(key_identifier(ca), [x509.DirectoryName(ca.issuer)], ca.serial_number)


def _usage(**given: bool) -> x509.KeyUsage:
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: given.get(name, False) for name in every})


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _ending(now: datetime, ttl: timedelta) -> datetime:
    try:
        return max(_FIRST, min(now + ttl, _LAST))
    except OverflowError:
        return _LAST


def _digest(key: CAKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def _paired(digest: bytes) -> str:
    return digest.hex(":").upper()
