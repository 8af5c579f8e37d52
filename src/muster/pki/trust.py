"""Whose certificates count now. A handshake tells what was true when it was made; connections and sessions outlive that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, Self, TypeAlias

from cryptography import x509

from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.pki import pem as pems
from muster.pki.facts import distinguished

Standing: TypeAlias = Literal["own", "other", "unknown"]
"""Who issued a certificate: the cluster's own CA, another trusted one, or nobody in the trust files."""

# A list of a hundred thousand revoked certificates has 4 MB.
_MAX_LIST_BYTES = 64 << 20


@dataclass(frozen=True)
class Trust:
    """The CAs of a listener.

    Attributes:
        own: certificates of the cluster's own CA; two while it is replaced.
        others: of the CAs trusted beside it, those above it included: what they issue is not the cluster's.

    Equality is that of the certificates: the same files read again are the same trust.
    """

    own: tuple[x509.Certificate, ...]
    others: tuple[x509.Certificate, ...] = ()

    @classmethod
    def read(cls, own: Path, others: Sequence[Path] = ()) -> Self:
        """Return what the files say; in ``own`` a CA that was adopted is followed by its issuers.

        Raises:
            Misconfigured: one is absent or no PEM.
        """
        chain = _certificates(own)
        above = [c for at, c in enumerate(chain) if any(_is_below(one, c) for one in chain[:at])]
        ours = tuple(c for c in chain if c not in above)
        return cls(ours, (*above, *(c for path in others for c in _certificates(path))))

    def issuer(self, certificate: x509.Certificate) -> tuple[Standing, x509.Certificate | None]:
        """Return who signed a certificate directly; a name is not believed without the signature."""
        for standing, group in (("own", self.own), ("other", self.others)):
            for ca in group:
                if ca.subject == certificate.issuer and pems.signed_by(certificate, ca):
                    return standing, ca  # type: ignore[return-value]
        return "unknown", None


@dataclass(frozen=True)
class RevocationLists:
    """The lists in one file, each signed by a CA that is trusted.

    Attributes:
        ends: when the first of them ends; None: none does.
    """

    serials: Mapping[x509.Name, frozenset[int]] = field(default_factory=dict, repr=False)
    ends: datetime | None = None

    @classmethod
    def read(cls, path: Path, trust: Trust) -> Self:
        """Return the lists of a PEM file, of which there may be several (Puppet's ``ca_crl.pem`` has one per CA).

        A list of a CA that is not trusted is passed over. One that ended still counts: what it revokes stays revoked.

        Raises:
            Misconfigured: the file is absent, no list can be read from it, or none is of a trusted CA.
        """
        text = read_bounded(path, what="revocation list", limit_bytes=_MAX_LIST_BYTES)
        authorities = (*trust.own, *trust.others)
        # By the name itself, which is equal however it is encoded: a list may encode it otherwise than certificates do.
        serials: dict[x509.Name, frozenset[int]] = {}
        ends: list[datetime] = []
        for one in _lists(text, path):
            if not any(_is_list_of(one, ca) for ca in authorities):
                continue
            serials[one.issuer] = serials.get(one.issuer, frozenset()) | {r.serial_number for r in one}
            if one.next_update_utc is not None:
                ends.append(one.next_update_utc)
        if not serials:
            raise Misconfigured(f"The revocation list {path} is of no CA that is trusted here")
        return cls(serials, min(ends, default=None))

    def revoke(self, certificate: x509.Certificate) -> bool:
        """Whether one of the lists names a certificate."""
        return certificate.serial_number in self.serials.get(certificate.issuer, ())


def _is_below(one: x509.Certificate, other: x509.Certificate) -> bool:
    return one.subject != one.issuer and pems.signed_by(one, other)


def _certificates(path: Path) -> tuple[x509.Certificate, ...]:
    pem = read_bounded(path, what="CA file", limit_bytes=pems.MAX_PEM_BYTES)
    return tuple(pems.certificates(pem, f"The CA file {path}"))


def _lists(text: bytes, path: Path) -> list[x509.CertificateRevocationList]:
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    found = []
    for part in text.split(begin)[1:]:
        body, ended, _ = part.partition(end)
        try:
            one = x509.load_pem_x509_crl(begin + body + end if ended else b"")
            # Read lazily; what could not be looked at later is refused now.
            _ = one.issuer, one.next_update_utc, one.extensions
            found.append(one)
        except pems.UNREADABLE as e:
            raise Misconfigured(f"The revocation list {path} cannot be read: {e}") from e
    if not found:
        raise Misconfigured(f"The revocation list {path} is not PEM: it holds no line BEGIN X509 CRL")
    return found


def _is_list_of(one: x509.CertificateRevocationList, ca: x509.Certificate) -> bool:
    if one.issuer != ca.subject:
        return False
    try:
        return one.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 - boundary: the library raises five unrelated types; each means "no"
        return False


def described(certificate: x509.Certificate) -> str:
    """Return how a refusal names a certificate: subject and serial, one line."""
    return f"{distinguished(certificate.subject)} (serial {certificate.serial_number:x})"
