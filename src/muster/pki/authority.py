"""The cluster's CA: created here or adopted from the site, and the certificates it issues."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from muster.kernel.clock import SystemClock
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Rejected, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically
from muster.kernel.names import shown
from muster.kernel.secrets import Secret
from muster.pki import pem as pems
from muster.pki.bundles import Bundle, BundleRequest, KeyKind
from muster.pki.facts import distinguished
from muster.pki.pem import PrivateKey
from muster.pki.profile import COMMON_NAME, new_key, refuse_unfit, refuse_validity, self_signed, signed

_MAX_ORGANIZATION = 64


@dataclass(frozen=True)
class ClusterCA:
    """The CA in one directory: ``ca.pem`` (0644, issuing CA first, then its issuers) and ``ca.key`` (0600).

    A key that was adopted encrypted stays so; ``ca.passphrase`` leads to the file whose first line opens it.

    While the CA is being replaced, ``ca.pem`` ends with the other CA's certificates: trusted, but not used to issue.
    """

    directory: Path
    certificates: tuple[x509.Certificate, ...]
    _key: PrivateKey = field(repr=False)
    _encrypted: tuple[bytes, Path] | None = field(default=None, repr=False)

    @classmethod
    def create(
        cls,
        directory: Path,
        cluster_name: str,
        *,
        now: datetime,
        valid_days: int = 3650,
        key_kind: KeyKind = "ec-p256",
        overwrite: bool = False,
        common_name: str = COMMON_NAME,
        dry: bool = False,
    ) -> Self:
        """Make a new self-signed CA and write it; ``dry`` refuses the same and writes nothing.

        Raises:
            Conflict: a CA lies there and ``overwrite`` is false; nothing was changed.
            Rejected: the name or the validity cannot stand in a certificate.
            Unavailable: the disk refused.
        """
        if not cluster_name.isprintable() or not 0 < len(cluster_name) <= _MAX_ORGANIZATION:
            raise Rejected(f"A CA for {shown(cluster_name)!r} cannot be named: 1 to 64 printable characters are needed")
        refuse_validity("A CA", valid_days)
        _refuse_overwrite(directory, overwrite)
        key = new_key(key_kind)
        ca = cls(directory, (self_signed(cluster_name, common_name, key, now, valid_days),), key)
        if not dry:
            ca._write()
        return ca

    @classmethod
    def adopt(
        cls,
        directory: Path,
        certificate_pem: bytes,
        key_pem: bytes,
        *,
        now: datetime | None = None,
        overwrite: bool = False,
        dry: bool = False,
        passphrase_file: Path | None = None,
    ) -> Self:
        """Write a CA the site already has: its certificate, followed by its issuers when it is an intermediate.

        An encrypted key stays encrypted; ``passphrase_file`` is remembered, what stands in it is not. ``dry`` refuses the
        same and writes nothing.

        Raises:
            Conflict: a CA lies there and ``overwrite`` is false; nothing was changed.
            Rejected: it is no CA, may not sign, is expired, or its chain does not end in a root.
            Misconfigured: a file cannot be read, or the key belongs to another certificate.
            Unavailable: the disk refused.
        """
        given = pems.certificates(certificate_pem, "The CA certificate")
        if pems.is_encrypted(key_pem) and passphrase_file is None:
            raise Misconfigured(
                "The CA key is encrypted with a passphrase; name the file whose first line opens it (--ca-passphrase-file)"
            )
        key = pems.private_key(key_pem, "The CA key", _passphrase(passphrase_file) if passphrase_file else None)
        _check_pair(given[0], key, "The CA key", "the CA certificate")
        refuse_unfit(given[0], now or SystemClock().now())
        encrypted = (key_pem, passphrase_file.absolute()) if passphrase_file and pems.is_encrypted(key_pem) else None
        ca = cls(directory, _chain(given), key, encrypted)
        _refuse_overwrite(directory, overwrite)
        if not dry:
            ca._write()
        return ca

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Read the CA of a directory.

        Raises:
            NotFound: there is none.
            Misconfigured: it cannot be read, or key and certificate do not belong together.
        """
        certificate, key_path = ca_paths(directory)
        if not certificate.exists():
            raise NotFound(f"There is no CA in {directory}; make one with: muster certs init")
        found = pems.certificates(read_bounded(certificate, what="CA certificate"), str(certificate))
        key = ca_key(directory)
        _check_pair(found[0], key, str(key_path), str(certificate))
        return cls(directory, tuple(found), key)

    @property
    def certificate(self) -> x509.Certificate:
        """The certificate whose key signs."""
        return self.certificates[0]

    @property
    def chain_pem(self) -> str:
        """The CA certificates, issuing CA first."""
        return pem_text(self.certificates)

    def issue(self, request: BundleRequest, *, now: datetime, valid_days: int = 825) -> Bundle:
        """Return a new key with a certificate for it; nothing is written.

        The certificate never outlives the CA: its end is cut to the CA's.

        Raises:
            Rejected: as :meth:`refuse_unless_able`.
        """
        self.refuse_unless_able(now=now, valid_days=valid_days)
        key = new_key(request.key_kind)
        certificate = signed(request, key, self.certificate, self._key, now=now, valid_days=valid_days)
        intermediates = pem_text(c for c in issuers(self.certificates) if not pems.self_issued(c))
        return Bundle(
            kind=request.kind,
            name=request.common_name,
            serial=certificate.serial_number,
            certificate_pem=pems.text([certificate]) + intermediates,
            key_pem=pems.key_text(key),
            chain_pem=self.chain_pem,
        )

    def refuse_unless_able(self, *, now: datetime, valid_days: int = 825) -> None:
        """Refuse what :meth:`issue` would refuse.

        Raises:
            Rejected: the CA is expired or not yet valid at ``now``, or the validity is none that a certificate has.
        """
        refuse_unfit(self.certificate, now)
        refuse_validity("A certificate", valid_days)

    def _write(self) -> None:
        make_directory(self.directory)
        certificate, key = ca_paths(self.directory)
        set_aside(self.directory)
        if self._encrypted is None:
            write_atomically(key, pems.key_text(self._key).reveal(), mode=0o600)
            passphrase_link(self.directory).unlink(missing_ok=True)
        else:
            pem, passphrase_file = self._encrypted
            write_atomically(key, pem, mode=0o600)
            link_passphrase(self.directory, passphrase_file)
        write_atomically(certificate, self.chain_pem, mode=0o644)


def ca_paths(directory: Path) -> tuple[Path, Path]:
    """Return where the CA's certificate and key lie."""
    return directory / "ca.pem", directory / "ca.key"


def passphrase_link(directory: Path) -> Path:
    """Return where it is said which file opens the CA's key; the passphrase itself stays in the administrator's file."""
    return directory / "ca.passphrase"


def link_passphrase(directory: Path, file: Path) -> None:
    """Remember which file opens the CA's key.

    Raises:
        Unavailable: the disk refused.
    """
    link = passphrase_link(directory)
    try:
        link.unlink(missing_ok=True)
        link.symlink_to(file)
    except OSError as e:
        raise Unavailable(f"Pointing {link} at {file} failed: {e.strerror or e}") from e


def ca_key(directory: Path) -> PrivateKey:
    """Return the CA's key, opened with its passphrase where it needs one.

    Raises:
        Misconfigured: it cannot be read or opened.
    """
    path = ca_paths(directory)[1]
    pem = read_bounded(path, what="CA key")
    if not pems.is_encrypted(pem):
        return pems.private_key(pem, str(path))
    # While a new CA takes over, its key may lie here already and its passphrase not yet.
    links = [passphrase_link(directory), passphrase_link(directory / "rotation" / "new")]
    there = [link for link in links if link.exists()]
    if not there:
        raise Misconfigured(
            f"{path} is encrypted, and {links[0]} leads to no passphrase; make it a link to the file whose first line is "
            f"the passphrase: ln -s FILE {links[0]}"
        )
    for link in there[:-1]:
        try:
            return pems.private_key(pem, str(path), _passphrase(link))
        except Misconfigured:
            continue
    return pems.private_key(pem, str(path), _passphrase(there[-1]))


def _passphrase(file: Path) -> Secret:
    lines = read_bounded(file, what="the CA key's passphrase file", limit_bytes=4096).splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The CA key's passphrase file {file} is empty")
    return Secret(lines[0].strip().decode("utf-8", "replace"))


def _check_pair(certificate: x509.Certificate, key: PrivateKey, key_name: str, certificate_name: str) -> None:
    if not pems.matches(certificate, key):
        raise Misconfigured(f"{key_name} does not belong to {certificate_name} ({distinguished(certificate.subject)})")


def _chain(given: list[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return the certificates from the first up to its root; others in the text are left out."""
    chain = issuers(given)
    if not pems.self_issued(chain[-1]):
        raise Rejected(
            f"The CA certificate {distinguished(chain[-1].subject)} was issued by "
            f"{distinguished(chain[-1].issuer)}, whose certificate is missing; append the issuers up to the root"
        )
    return chain


def issuers(certificates: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Return the first certificate and its issuers among the others, as far as they are there."""
    chain = [certificates[0]]
    while not pems.self_issued(chain[-1]):
        above = next((c for c in certificates if c not in chain and pems.signed_by(chain[-1], c)), None)
        if above is None:
            break
        chain.append(above)
    return tuple(chain)


def pem_text(certificates: Iterable[x509.Certificate]) -> str:
    """Return certificates as one PEM text, in their order."""
    return pems.text(certificates)


def _refuse_overwrite(directory: Path, overwrite: bool) -> None:
    present = [p for p in ca_paths(directory) if p.exists()]
    if present and not overwrite:
        raise Conflict(
            f"{present[0]} exists already; replacing a CA makes every certificate it issued worthless, so it must be "
            "asked for (--replace)"
        )


def set_aside(directory: Path) -> None:
    """Keep a copy of the CA about to be replaced, named by the end of its fingerprint."""
    certificate, key = ca_paths(directory)
    if not (certificate.exists() and key.exists()):
        return
    old_pem = read_bounded(certificate, what="CA certificate")
    tag = pems.certificates(old_pem, str(certificate))[0].fingerprint(hashes.SHA256()).hex()[:12]
    write_atomically(certificate.with_name(f"ca-{tag}.pem"), old_pem, mode=0o644, like=certificate)
    write_atomically(key.with_name(f"ca-{tag}.key"), read_bounded(key, what="CA key"), mode=0o600, like=key)
    if passphrase_link(directory).is_symlink():
        aside = directory / f"ca-{tag}.passphrase"
        aside.unlink(missing_ok=True)
        aside.symlink_to(passphrase_link(directory).readlink())
