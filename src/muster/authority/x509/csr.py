"""Certificate requests as agents and the ``puppetserver ca`` command line send them, read with tolerance, judged without.

The command line sends version 2 (``CertificationRequestInfo ::= version 0`` in RFC 2986 §4.1, and strict parsers refuse
others), so the version is set to 0 for parsing and the signature is verified over the bytes that were signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from muster.authority.x509.certnames import (
    AUTHORISATION,
    AUTHORISATION_NAMES,
    AUTO_RENEW,
    CHALLENGE_PASSWORD,
    PP_CLI_AUTH,
    PRIVATE,
    REGISTERED,
    refuse_unless_hostname,
)
from muster.kernel.errors import Rejected

# Host names may be longer than X.520 lets a common name be, and agents send them.
warnings.filterwarnings("ignore", message="Attribute's length must be", category=UserWarning)

LIMIT_BYTES = 64 << 10
_BEGIN = re.compile(rb"-----BEGIN ((?:NEW )?CERTIFICATE REQUEST|[A-Z0-9 ]{1,40})-----")
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_SMALLEST_RSA_BITS = 2048
_LARGEST_RSA_BITS = 16384


@dataclass(frozen=True)
class Alternatives:
    """The alternative names of a request, in its order.

    Attributes:
        others: kinds that are neither DNS names nor IP addresses, in words.
    """

    names: tuple[x509.GeneralName, ...] = ()
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    others: tuple[str, ...] = ()

    @property
    def shown(self) -> tuple[str, ...]:
        """As status objects show them: addresses first, then names."""
        return (*(f"IP:{a}" for a in self.addresses), *(f"DNS:{n}" for n in self.dns))


@dataclass(frozen=True)
class CertificateRequest:
    """One request.

    Attributes:
        der: as it was sent.
        parsed: the same with version 0.
        signed: the bytes its signature is over.
    """

    der: bytes
    parsed: x509.CertificateSigningRequest
    signed: bytes

    @property
    def pem(self) -> str:
        """One PEM block of the request as it was sent, in 64 columns."""
        body = base64.encodebytes(self.der).replace(b"\n", b"").decode()
        lines = "\n".join(body[i : i + 64] for i in range(0, len(body), 64))
        return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n"

    @cached_property
    def name(self) -> str:
        """The first common name, empty when it has none.

        Raises:
            Rejected: the subject cannot be decoded.
        """
        try:
            found = self.parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        except ValueError as e:
            raise Rejected("The subject of the certificate request cannot be decoded") from e
        value = found[0].value if found else ""
        return value if isinstance(value, str) else value.decode("utf-8", "replace")

    @cached_property
    def extensions(self) -> tuple[x509.Extension[x509.ExtensionType], ...]:
        """The requested extensions in order.

        Raises:
            Rejected: one stands twice, or cannot be decoded.
        """
        try:
            return tuple(self.parsed.extensions)
        except x509.DuplicateExtension as e:
            raise Rejected(f"The request has extension {e.oid.dotted_string} twice") from e
        except (ValueError, x509.UnsupportedGeneralNameType) as e:
            raise Rejected("An extension of the request cannot be decoded") from e

    @cached_property
    def alternatives(self) -> Alternatives:
        """Its subject alternative names."""
        return alternatives_in(self.extensions)

    @property
    def authorisations(self) -> dict[str, str]:
        """Requested authorisation extensions, by short name, else by number."""
        return authorisations(self.extensions)

    @property
    def challenge(self) -> str | None:
        """The challenge password (RFC 2985 §5.4.1), where Foreman's tokens travel; None without one."""
        return self._attribute(CHALLENGE_PASSWORD)

    @property
    def wants_renewal(self) -> bool:
        """Whether the agent says that it renews its certificate by itself."""
        return self._attribute(AUTO_RENEW) == "true"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.der).hexdigest()

    def _attribute(self, oid: x509.ObjectIdentifier) -> str | None:
        try:
            return self.parsed.attributes.get_attribute_for_oid(oid).value.decode("utf-8", "replace")
        except (x509.AttributeNotFound, ValueError):
            return None

    def is_signed_by_its_key(self) -> bool:
        """Whether whoever sent it has the private key."""
        try:
            key, algorithm = self.parsed.public_key(), self.parsed.signature_hash_algorithm
            if isinstance(key, rsa.RSAPublicKey) and algorithm is not None:
                parameters = self.parsed.signature_algorithm_parameters
                scheme = parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15()
                key.verify(self.parsed.signature, self.signed, scheme, algorithm)
            elif isinstance(key, ec.EllipticCurvePublicKey) and algorithm is not None:
                key.verify(self.parsed.signature, self.signed, ec.ECDSA(algorithm))
            elif isinstance(key, ed25519.Ed25519PublicKey | ed448.Ed448PublicKey):
                key.verify(self.parsed.signature, self.signed)
            else:
                return False
        except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError):
            return False
        return True


def read(body: bytes) -> CertificateRequest:
    """Return the one request in a PEM text; other text around it is passed over.

    Raises:
        Rejected: there is none, or more than one, or it cannot be decoded.
    """
    if len(body) > LIMIT_BYTES:
        raise Rejected(f"The certificate request is larger than {LIMIT_BYTES} bytes")
    found = _BEGIN.findall(body)
    if not found:
        raise Rejected("The body holds no certificate request in PEM")
    if len(found) > 1:
        raise Rejected("The body holds more than one PEM object; one certificate request is expected")
    label: bytes = found[0]
    if not label.endswith(b"CERTIFICATE REQUEST"):
        raise Rejected(f"The body holds a {label.decode().lower()}, not a certificate request")
    _, _, rest = body.partition(b"-----BEGIN " + label + b"-----")
    text, end, _ = rest.partition(b"-----END " + label + b"-----")
    if not end:
        raise Rejected("The certificate request has no end line")
    try:
        der = base64.b64decode(b"".join(text.split()), validate=True)
    except binascii.Error as e:
        raise Rejected("The certificate request is no base64") from e
    return of_der(der)


def of_der(der: bytes) -> CertificateRequest:
    """As :func:`read`, for DER.

    Raises:
        Rejected: it cannot be decoded.
    """
    try:
        start, version = _places(der)
        strict = der if der[version] == 0 else der[:version] + b"\0" + der[version + 1 :]
        parsed = x509.load_der_x509_csr(strict)
        signed = parsed.tbs_certrequest_bytes
        return CertificateRequest(der, parsed, der[start : start + len(signed)])
    except (ValueError, IndexError, UnsupportedAlgorithm) as e:
        raise Rejected("The certificate request cannot be decoded") from e


def refuse_weak(request: CertificateRequest) -> None:
    """Refuse keys nobody should trust for years (puppetserver takes any).

    Raises:
        Rejected: RSA below 2048 bits, a curve TLS does not offer, or a kind of key agents do not make.
    """
    try:
        key = request.parsed.public_key()
    except (ValueError, UnsupportedAlgorithm) as e:
        raise Rejected("The public key of the certificate request is of no kind this CA knows") from e
    _refuse_weak_key(key, "certificate request")


def refuse_renewal(certificate: x509.Certificate) -> None:
    """Refuse to issue anew what no request may ask for: puppetserver signed it, and an import took it over.

    Which names and extensions are allowed may have changed since; those it has it keeps (docs/facts/puppet-ca.md §7.3).

    Raises:
        Rejected: a weak key, alternative names other than DNS and IP, or wildcards.
    """
    try:
        key, alternatives = certificate.public_key(), alternatives_in(certificate.extensions)
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as e:
        raise Rejected("The certificate cannot be decoded") from e
    if alternatives.others:
        raise Rejected(f"It contains alternative names other than DNS and IP: {', '.join(alternatives.others)}")
    if any("*" in n for n in (*alternatives.dns, *(str(n.value) for n in names))):
        raise Rejected("It contains a wildcard among its names")
    _refuse_weak_key(key, "certificate")


def _refuse_weak_key(key: object, of: str) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        if not _SMALLEST_RSA_BITS <= key.key_size <= _LARGEST_RSA_BITS:
            least, most = _SMALLEST_RSA_BITS, _LARGEST_RSA_BITS
            raise Rejected(f"RSA keys must have {least} to {most} bits; this one has {key.key_size}")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, _CURVES):
            raise Rejected(f"Curve {key.curve.name} is not accepted; P-256, P-384 and P-521 are")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise Rejected(f"The public key of the {of} is of no kind this CA signs")


def refuse_subject(request: CertificateRequest, name: str) -> None:
    """Refuse a request whose subject is not the name it is sent under, or no host name.

    Raises:
        Rejected: in puppetserver's words.
    """
    if request.name != name:
        raise Rejected(f'Instance name "{request.name}" does not match requested key "{name}"')
    refuse_unless_hostname(name)


def refuse_content(request: CertificateRequest, *, allow_alternatives: bool, allow_authorisations: bool) -> None:
    """Refuse what must not be signed, in puppetserver's order and words; then what puppetserver lets through.

    Raises:
        Rejected: alternative names, extensions, a signature or a key that are not allowed.
    """
    name = request.name
    extensions, alternatives = request.extensions, request.alternatives
    if not allow_alternatives and (alternatives.dns or alternatives.addresses):
        counted = alternatives.shown
        if counted != (f"DNS:{name}",):
            extra = ", ".join(a for a in counted if a != f"DNS:{name}")
            raise Rejected(
                f"CSR '{name}' contains extra subject alternative names ({extra}), which are disallowed. To allow "
                "subject alternative names, set allow-subject-alt-names to true in your ca.conf file. Then restart the "
                "puppetserver and try signing this certificate again."
            )
    numbers = [e.oid.dotted_string for e in extensions]
    if not allow_authorisations and any(n.startswith(AUTHORISATION) for n in numbers):
        raise Rejected(
            f"CSR '{name}' contains an authorization extension, which is disallowed. To allow authorization extensions, "
            "set allow-authorization-extensions to true in your ca.conf file. Then restart the puppetserver and try "
            "signing this certificate again."
        )
    foreign = [n for n in numbers if not _is_permitted(n)]
    if foreign:
        raise Rejected(f"Found extensions that are not permitted: {', '.join(foreign)}")
    if not request.is_signed_by_its_key():
        raise Rejected("CSR contains a public key that does not correspond to the signing key")
    if alternatives.others:
        raise Rejected(
            f"CSR '{name}' contains alternative names other than DNS and IP: {', '.join(alternatives.others)}"
        )
    if any("*" in n for n in alternatives.dns):
        raise Rejected(f"CSR '{name}' contains a wildcard among its alternative names")
    refuse_weak(request)


def alternatives_in(extensions: Iterable[x509.Extension[x509.ExtensionType]]) -> Alternatives:
    """Return the alternative names among extensions."""
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            return _alternatives(extension.value)
    return Alternatives()


def authorisations(extensions: tuple[x509.Extension[x509.ExtensionType], ...]) -> dict[str, str]:
    """Return authorisation extensions with their values as text."""
    found = {}
    for extension in extensions:
        number = extension.oid.dotted_string
        if number.startswith(AUTHORISATION) and isinstance(extension.value, x509.UnrecognizedExtension):
            found[AUTHORISATION_NAMES.get(number, number)] = utf8_text(extension.value.value)
    return found


def utf8_text(der: bytes) -> str:
    """Return the text of a DER UTF8String; of anything else, its bytes as they can be shown."""
    body = utf8_body(der)
    return (der if body is None else body).decode("utf-8", "replace")


def utf8_body(der: bytes) -> bytes | None:
    """Return the content of a DER UTF8String, None when it is something else."""
    if len(der) < 2 or der[0] != 0x0C:
        return None
    try:
        header, length = _length(der, 1)
    except ValueError:
        return None
    return der[header:] if header + length == len(der) else None


def _is_permitted(number: str) -> bool:
    if number == PP_CLI_AUTH.dotted_string:
        return False
    return number == x509.SubjectAlternativeName.oid.dotted_string or number.startswith(
        (REGISTERED, PRIVATE, AUTHORISATION)
    )


def _alternatives(found: x509.SubjectAlternativeName) -> Alternatives:
    dns, addresses, others = [], [], []
    for name in found:
        if isinstance(name, x509.DNSName):
            dns.append(name.value)
        elif isinstance(name, x509.IPAddress) and isinstance(name.value, IPv4Address | IPv6Address):
            addresses.append(_java_address(name.value))
        else:
            # An IPAddress here holds a network: eight octets, or thirty-two.
            others.append(type(name).__name__)
    return Alternatives(tuple(found), tuple(dns), tuple(addresses), tuple(others))


def _java_address(address: IPv4Address | IPv6Address) -> str:
    """Return an address as puppetserver writes it: IPv6 in eight groups without leading zeros."""
    if isinstance(address, IPv4Address):
        return str(address)
    return ":".join(f"{int(group, 16):x}" for group in address.exploded.split(":"))


def _places(der: bytes) -> tuple[int, int]:
    """Return where the signed part begins and where its version's one byte stands.

    Raises:
        ValueError: it does not begin as a request does.
    """
    if der[0] != 0x30:
        raise ValueError("no sequence")
    start, _ = _length(der, 1)
    if der[start] != 0x30:
        raise ValueError("no sequence in the sequence")
    inner, _ = _length(der, start + 1)
    if der[inner : inner + 2] != b"\x02\x01":
        raise ValueError("no version")
    return start, inner + 2


def _length(der: bytes, at: int) -> tuple[int, int]:
    """Return where the content begins and how long it is (X.690 §8.1.3)."""
    first = der[at]
    if first < 0x80:
        return at + 1, first
    count = first & 0x7F
    if not 1 <= count <= 3:
        raise ValueError("a length of no sensible size")
    return at + 1 + count, int.from_bytes(der[at + 1 : at + 1 + count], "big")


def as_der(request: x509.CertificateSigningRequest) -> CertificateRequest:
    """Return a request made here as one that was sent."""
    return of_der(request.public_bytes(Encoding.DER))
