"""What the cluster's certificates are like: keys, names, usages, dates, and which CA may issue them; pure."""

from __future__ import annotations

from datetime import datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster.kernel.errors import Rejected
from muster.pki.bundles import BundleRequest, KeyKind
from muster.pki.facts import distinguished, is_ca
from muster.pki.pem import PrivateKey

# Hosts of a new cluster often have not met their time server yet.
CLOCK_SKEW = timedelta(minutes=5)

COMMON_NAME = "Muster cluster CA"

# A century; the dates of X.509 and of Python end in the year 9999.
_MAX_DAYS = 36_500


def new_key(kind: KeyKind) -> PrivateKey:
    """Return a fresh private key."""
    if kind == "ec-p256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=int(kind.removeprefix("rsa-")))


def self_signed(
    cluster_name: str, common_name: str, key: PrivateKey, now: datetime, valid_days: int
) -> x509.Certificate:
    """Return a new CA's own certificate."""
    # The cluster's name is the organisation: a common name of fixed length leaves it all of its 64 characters.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, cluster_name),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_seconds(now - CLOCK_SKEW))
        .not_valid_after(_seconds(now + timedelta(days=valid_days)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(key, _digest(key))
    )


def signed(
    request: BundleRequest, key: PrivateKey, ca: x509.Certificate, ca_key: PrivateKey, *, now: datetime, valid_days: int
) -> x509.Certificate:
    """Return a certificate for a bundle's key, signed by the CA; it never outlives that."""
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if request.kind == "member":
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    names: list[x509.GeneralName] = [x509.DNSName(n) for n in request.dns_names]
    names += [x509.IPAddress(ip_address(a)) for a in request.addresses]
    start = max(_seconds(now - CLOCK_SKEW), ca.not_valid_before_utc)
    end = min(_seconds(now + timedelta(days=valid_days)), ca.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, request.common_name)]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_leaf_usage(key), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_key_identifier(ca, ca_key), critical=False)
        .sign(ca_key, _digest(ca_key))
    )


def refuse_validity(what: str, days: int) -> None:
    """Refuse what is valid for no day, or for more than a century.

    Raises:
        Rejected: it is one of these; ``what`` begins the sentence.
    """
    if not 1 <= days <= _MAX_DAYS:
        raise Rejected(f"{what} cannot be valid for {days} days; 1 to {_MAX_DAYS} are possible")


def refuse_unfit(certificate: x509.Certificate, now: datetime) -> None:
    """Refuse a certificate that can issue none now.

    Raises:
        Rejected: it is no CA's, may not sign, or is expired or not yet valid.
    """
    named = f"The CA certificate {distinguished(certificate.subject)}"
    if not is_ca(certificate):
        raise Rejected(f"{named} is not a CA certificate: its basic constraints do not say so")
    if not _may_sign(certificate):
        raise Rejected(f"{named} may not sign certificates: its key usage does not allow it")
    if certificate.not_valid_after_utc <= now:
        raise Rejected(f"{named} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; make or adopt a new CA")
    if certificate.not_valid_before_utc > now:
        raise Rejected(
            f"{named} is valid only from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; is the clock right?"
        )


def _key_identifier(ca: x509.Certificate, ca_key: PrivateKey) -> x509.AuthorityKeyIdentifier:
    # An adopted CA may have computed its identifier another way than we would; ours must repeat what it says.
    try:
        own = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)


def _leaf_usage(key: PrivateKey) -> x509.KeyUsage:
    # Key encipherment is what RSA key exchange of TLS 1.2 asks for; an EC key cannot do it.
    return _usage(digital_signature=True, key_encipherment=isinstance(key, rsa.RSAPrivateKey))


def _usage(
    *,
    digital_signature: bool = False,
    key_encipherment: bool = False,
    key_cert_sign: bool = False,
    crl_sign: bool = False,
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _digest(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _seconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
