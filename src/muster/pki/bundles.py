"""Bundles: what one party needs to speak TLS in the cluster, and where it lies on disk.

::

    DIR/members/NAME   -> .NAME/SERIAL   cert.pem key.pem ca.pem
    DIR/clients/NAME   -> .NAME/SERIAL   cert.pem key.pem ca.pem
    DIR/balancer       -> .balancer/SERIAL   check.pem (certificate and key, HAProxy's form) ca.pem
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from muster.kernel import failpoints
from muster.kernel.errors import Conflict, Rejected, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically
from muster.kernel.names import FQDN, ip_address, shown
from muster.kernel.secrets import Secret
from muster.pki import pem as pems
from muster.pki.facts import CertificateFacts

Kind = Literal["member", "client", "balancer"]
KeyKind = Literal["ec-p256", "rsa-2048", "rsa-4096"]

KINDS: tuple[Kind, ...] = get_args(Kind)
KEY_KINDS: tuple[KeyKind, ...] = get_args(KeyKind)

_BY_KEY: Mapping[str, KeyKind] = {"EC secp256r1": "ec-p256", "RSA 2048": "rsa-2048", "RSA 4096": "rsa-4096"}

# X.509 gives a common name 64 characters (RFC 5280, ub-common-name); DNS allows names four times as long.
_MAX_COMMON_NAME = 64


@dataclass(frozen=True)
class BundleRequest:
    """Who a bundle is for.

    The common name is always among the DNS names; names and addresses keep their order and stand once.

    Raises:
        Rejected: a name or an address is not one, or the common name is longer than X.509 allows.
    """

    kind: Kind
    common_name: str
    dns_names: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    key_kind: KeyKind = "ec-p256"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.key_kind not in KEY_KINDS:
            raise Rejected(f"There is no bundle of kind {shown(self.kind)} with a key of kind {shown(self.key_kind)}")
        name = FQDN.parse(self.common_name)
        if len(name) > _MAX_COMMON_NAME:
            raise Rejected(f"{name} has {len(name)} characters; a certificate's common name has room for 64")
        names = dict.fromkeys((name, *(FQDN.parse(n) for n in self.dns_names)))
        object.__setattr__(self, "common_name", str(name))
        object.__setattr__(self, "dns_names", tuple(str(n) for n in names))
        object.__setattr__(self, "addresses", tuple(dict.fromkeys(str(ip_address(a)) for a in self.addresses)))

    def keeping(self, facts: CertificateFacts) -> BundleRequest:
        """Return the request with the names of an earlier certificate added, so that a reissue loses none."""
        return replace(self, dns_names=(*self.dns_names, *facts.names), addresses=(*self.addresses, *facts.addresses))


@dataclass(frozen=True)
class Bundle:
    """A certificate with its key.

    Attributes:
        serial: of the certificate; names the version on disk.
        certificate_pem: the certificate, then the intermediate CAs up to but without the root.
        chain_pem: the CA certificates its owner trusts, issuing CA first.
    """

    kind: Kind
    name: str
    serial: int
    certificate_pem: str
    key_pem: Secret
    chain_pem: str


def assembled(
    request: BundleRequest, chain: Sequence[x509.Certificate], key: pems.PrivateKey, own: Sequence[x509.Certificate]
) -> Bundle:
    """Return a bundle of what somebody else issued: the certificate, its intermediate CAs, its key, the CAs it trusts."""
    return Bundle(
        kind=request.kind,
        name=request.common_name,
        serial=chain[0].serial_number,
        certificate_pem=pems.text([chain[0], *(c for c in chain[1:] if not pems.self_issued(c))]),
        key_pem=pems.key_text(key),
        chain_pem=pems.text(own),
    )


@dataclass(frozen=True)
class BundlePaths:
    """Where a bundle lies; for the balancer ``certificate`` and ``key`` are the same file."""

    kind: Kind
    name: str
    directory: Path
    certificate: Path
    key: Path
    ca: Path


def paths(directory: Path, kind: Kind, name: str) -> BundlePaths:
    """Return where the bundle lies or would lie.

    Raises:
        Rejected: the name is no host name, and so no file name either.
    """
    if kind == "balancer":
        home = directory / "balancer"
        return BundlePaths(kind, name, home, home / "check.pem", home / "check.pem", home / "ca.pem")
    home = directory / f"{kind}s" / FQDN.parse(name).lower()
    return BundlePaths(kind, str(FQDN.parse(name)), home, home / "cert.pem", home / "key.pem", home / "ca.pem")


def present(directory: Path) -> list[BundlePaths]:
    """Return every bundle that lies there, members first, each kind by name; empty when there is none."""
    found: list[BundlePaths] = []
    for kind in ("member", "client"):
        home = directory / f"{kind}s"
        named = sorted(p.name for p in home.iterdir()) if home.is_dir() else []
        for name in named:
            if not name.startswith("."):
                with contextlib.suppress(Rejected):
                    found.append(paths(directory, kind, name))
    balancer = paths(directory, "balancer", "balancer")
    return [*found, balancer] if balancer.directory.is_dir() else found


def certificate_facts(at: BundlePaths) -> CertificateFacts:
    """Return what the bundle's certificate says.

    Raises:
        Misconfigured: there is none that can be read.
    """
    pem = read_bounded(at.certificate, what="certificate")
    return CertificateFacts.from_pem(pem, str(at.certificate))


def kind_of_key(facts: CertificateFacts) -> KeyKind:
    """Return the kind of key a certificate has, so that a reissue has the same; the usual kind for one we never make."""
    return _BY_KEY.get(facts.key, KEY_KINDS[0])


def write(bundle: Bundle, directory: Path) -> BundlePaths:
    """Make the bundle the one that lies at :func:`paths`; the previous version stays beside it, older ones go.

    Written by root it belongs to whom the previous version belongs to, else to the owner of the directory.

    Raises:
        Conflict: something not made by this function lies there; nothing was changed.
        Unavailable: the disk refused; the old bundle still stands.
    """
    at = paths(directory, bundle.kind, bundle.name)
    refuse_unless_ours(at)
    versions = at.directory.with_name(f".{at.directory.name}")
    version = versions / f"{bundle.serial:040x}"
    make_directory(at.directory.parent)
    like = _owned_like(at, directory)
    make_directory(versions, like=like)
    make_directory(version, like=like)
    key = bundle.key_pem.reveal()
    if bundle.kind == "balancer":
        write_atomically(version / "check.pem", bundle.certificate_pem + key, mode=0o600, like=like)
    else:
        write_atomically(version / "key.pem", key, mode=0o600, like=like)
        write_atomically(version / "cert.pem", bundle.certificate_pem, like=like)
    write_atomically(version / "ca.pem", bundle.chain_pem, like=like)
    previous = _current(at.directory)
    failpoints.before_commit("bundle")
    _point(at.directory, version)
    failpoints.after_commit("bundle")
    _forget(versions, keep={version.name, previous})
    return at


def for_browsers(bundle: Bundle, password: Secret) -> bytes:
    """Return a bundle as one PKCS#12 file, encrypted, with the CA beside the certificate."""
    chain = pems.certificates(bundle.certificate_pem.encode(), bundle.name)
    own = pems.certificates(bundle.chain_pem.encode(), bundle.name)
    key = pems.private_key(bundle.key_pem.reveal().encode(), bundle.name)
    return serialize_key_and_certificates(
        bundle.name.encode(),
        key,
        chain[0],
        [*chain[1:], *own],
        BestAvailableEncryption(password.reveal().encode()),
    )


def refuse_unless_ours(at: BundlePaths) -> None:
    """Refuse to replace what :func:`write` did not make.

    Raises:
        Conflict: something else lies there.
    """
    if at.directory.exists() and not at.directory.is_symlink():
        raise Conflict(f"{at.directory} was not made by Muster (it is no link to a version); move it away first")


def _owned_like(at: BundlePaths, directory: Path) -> Path:
    """Return whose owner a new version gets; a service's key that is root's among another account's files is a slip."""
    if at.key.exists() and (at.kind == "client" or at.key.stat().st_uid != 0):
        return at.key
    return directory


def _current(link: Path) -> str:
    return link.readlink().name if link.is_symlink() else ""


def _point(link: Path, version: Path) -> None:
    # Two renames can never be one: a crash between them would leave a new key under an old certificate, and the next
    # start would fail. So a version is complete before anybody can see it, and one rename of a link shows it.
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}")
    try:
        beside.symlink_to(Path(version.parent.name) / version.name, target_is_directory=True)
        beside.replace(link)
        fd = os.open(link.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    except OSError as e:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise Unavailable(f"Pointing {link} at {version} failed: {e.strerror or e}; the old bundle stands") from e


def _forget(versions: Path, *, keep: set[str]) -> None:
    for old in versions.iterdir():
        if old.name not in keep:
            shutil.rmtree(old, ignore_errors=True)
