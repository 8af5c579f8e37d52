"""The certificate a member shows on the authority's port: issued by the CA itself, to itself, and again before it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from muster.authority.authority import PuppetCA
from muster.authority.x509 import csr, profile
from muster.cluster.file import own_certname
from muster.kernel.errors import MusterError, Rejected, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically


@dataclass(frozen=True)
class OwnFiles:
    """Where the certificate, its key and the CA's bundle lie."""

    directory: Path

    @property
    def certificate(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        return self.directory / "key.pem"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"


async def ensured(ca: PuppetCA, files: OwnFiles, *, member: str, names: Sequence[str]) -> bool:
    """Make the files hold a certificate for these names that neither ends soon nor is revoked; whether a new one was issued.

    Raises:
        Unavailable: the store did not answer, and there is none yet; or the disk refused.
    """
    wanted = [member.lower(), *(n.lower() for n in names)]
    present = _serving(ca, files, wanted, datetime.now(UTC))
    if present is not None and not await _is_revoked(ca, present):
        return False
    made = await host_files(ca, own_certname(member), wanted)
    make_directory(files.directory, mode=0o700)
    # The key first: a certificate without its key would be served by nobody, the other way round is made anew.
    write_atomically(files.key, made.key_pem, mode=0o600)
    write_atomically(files.ca, ca.chain_pem)
    write_atomically(files.certificate, made.certificate_pem + _intermediates(ca))
    return True


@dataclass(frozen=True)
class HostFiles:
    """A certificate with its key."""

    certificate_pem: str
    key_pem: bytes = field(repr=False)


async def host_files(ca: PuppetCA, name: str, names: Sequence[str]) -> HostFiles:
    """Make a key and have the CA issue its certificate for these DNS names, in place of an earlier one.

    Raises:
        Rejected: the name is longer than a common name may be; nothing was issued.
        Unavailable: the store did not answer; nothing was issued.
    """
    if len(name) > profile.COMMON_NAME_LIMIT:
        raise Rejected(
            f"{name} has {len(name)} characters; a certificate can be made for names of {profile.COMMON_NAME_LIMIT} at most"
        )
    key = await asyncio.to_thread(ec.generate_private_key, ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    alternatives = x509.SubjectAlternativeName([x509.DNSName(n) for n in dict.fromkeys(names)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).add_extension(alternatives, critical=False)
    pem = await ca.certificates.issue_own(csr.as_der(request.sign(key, hashes.SHA256())))
    return HostFiles(pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def key_place(ssldir: Path, name: str) -> Path:
    """Return where Puppet looks for a host's key."""
    return ssldir / "private_keys" / f"{name}.pem"


def lay_out(ssldir: Path, name: str, made: HostFiles, *, bundle: str, lists: str) -> list[Path]:
    """Write a host's files where Puppet looks for them; return their paths, the key's first.

    Raises:
        Unavailable: the disk refused.
    """
    files: dict[Path, tuple[bytes | str, int]] = {
        key_place(ssldir, name): (made.key_pem, 0o600),
        ssldir / "certs" / f"{name}.pem": (made.certificate_pem, 0o644),
        ssldir / "certs" / "ca.pem": (bundle, 0o644),
        ssldir / "crl.pem": (lists, 0o644),
    }
    for file, (content, mode) in files.items():
        make_directory(file.parent, mode=0o750)
        write_atomically(file, content, mode=mode)
    return list(files)


def _intermediates(ca: PuppetCA) -> str:
    return "".join(profile.pem_of(c) for c in ca.issuer.chain if c.subject != c.issuer)


async def _is_revoked(ca: PuppetCA, certificate: x509.Certificate) -> bool:
    try:
        return await ca.certificates.is_revoked(certificate.serial_number, leniently=True)
    except Unavailable:
        # Neither store nor list: another one could not be issued either.
        return False


def _serving(ca: PuppetCA, files: OwnFiles, wanted: Sequence[str], now: datetime) -> x509.Certificate | None:
    """Return the files' certificate when it is good for these names and a while."""
    try:
        certificate = x509.load_pem_x509_certificate(read_bounded(files.certificate, what="certificate"))
        key = load_pem_private_key(read_bounded(files.key, what="key"), None)
    except (MusterError, ValueError, TypeError):
        return None
    names = profile.alternatives_of(certificate).dns
    same = isinstance(key, ec.EllipticCurvePrivateKey) and profile.belongs(key, certificate)
    lasting = certificate.not_valid_after_utc - profile.ahead(timedelta(days=ca.settings.cert_ttl_days)) > now
    return (
        certificate if same and lasting and set(wanted) <= set(names) and ca.certificates.issued(certificate) else None
    )
