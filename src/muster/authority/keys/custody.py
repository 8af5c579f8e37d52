"""Who holds the CA's private key: a file, an encrypted file, a process of its own, or a PKCS#11 token.

Whatever holds it, the rest of this room sees a private key of the ``cryptography`` library: the builders only ever ask it
to sign (docs/facts/puppet-ca.md §7.7). How a key comes into custody, when a CA is made or taken over, is here, too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from muster.authority.x509.profile import CAKey, Issuer, belongs
from muster.cluster.file import AuthorityKey
from muster.kernel.errors import Conflict, Misconfigured, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_new

PROOF = b"muster: is this the key of our CA?"
"""What a key signs to show that it is there; it is the beginning of no certificate and no list."""

_LIMIT_BYTES = 64 << 10


@contextlib.contextmanager
def opened(settings: AuthorityKey, issuer: Issuer, default: Path) -> Iterator[CAKey]:
    """Hold the CA's key; ``default`` is the file when the settings name none.

    Raises:
        Misconfigured: it cannot be had, or does not belong to the issuer's certificate.
    """
    if settings.kind == "signer":
        from muster.authority.keys.signer import connected

        assert settings.socket is not None  # noqa: S101 - the settings' own validator
        with connected(settings.socket, issuer) as remote:
            yield remote
        return
    if settings.kind == "pkcs11":
        from muster.authority.keys.token import found

        with found(settings, issuer) as on_token:
            yield on_token
        return
    path = settings.file or default
    yield checked(in_file(path, settings.passphrase_file), issuer, str(path))


@dataclass(frozen=True)
class Adopted:
    """The key of a CA that is being made or taken over.

    Attributes:
        key: signs now.
        file: where ``pem`` is to be written; None when whoever holds the key has it already.
    """

    key: CAKey
    file: Path | None = None
    pem: bytes = field(default=b"", repr=False)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Have the key in its file for the block that writes the ledger, and ever after.

        Before the ledger: a CA in the store whose key nobody has could never be used, nor replaced. When the block finds
        that there is another CA by now, the file goes again.

        Raises:
            Conflict: a file is there by now; nothing was changed.
        """
        if self.file is not None:
            make_directory(self.file.parent, mode=0o700)
            if not write_new(self.file, self.pem, mode=0o600):
                raise Conflict(f"{self.file} exists by now; nothing was changed")
        try:
            yield
        except Conflict:
            if self.file is not None:
                self.file.unlink(missing_ok=True)
            raise


@contextlib.contextmanager
def adopted(settings: AuthorityKey, issuer: Issuer, default: Path, given: Path | None) -> Iterator[Adopted]:
    """Find out how the key of a CA that exists comes into the settings' custody; writes nothing yet.

    ``given`` is a PEM file with the CA's key, where there is one. It is taken byte for byte unless it is to be encrypted; a
    signer or a token must have it already, and proves it.

    Raises:
        Misconfigured: it cannot be had, or what holds it has another one, or the passphrase cannot be read.
    """
    file = settings.file or default
    if settings.kind == "file" and given is not None and not file.exists():
        key = checked(in_file(given, guarded=False), issuer, str(given))
        as_it_is = settings.passphrase_file is None
        pem = read_bounded(given, what="the CA's key") if as_it_is else encoded(key, settings.passphrase_file)
        yield Adopted(key, file, pem)
        return
    with contextlib.ExitStack() as stack:
        try:
            key = stack.enter_context(opened(settings, issuer, default))
        except Misconfigured as e:
            raise Misconfigured(f"{e}; nothing was changed") from e
        yield Adopted(key)


def encoded(key: CAKey, passphrase_file: Path | None) -> bytes:
    """Return a key in PEM, encrypted under the file's first line where there is one.

    Raises:
        Misconfigured: the passphrase cannot be read, or is longer than a PEM file's can be.
    """
    how: KeySerializationEncryption = NoEncryption()
    try:
        if passphrase_file is not None:
            how = BestAvailableEncryption(_first_line(passphrase_file))
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
    except ValueError as e:
        raise Misconfigured(f"The CA key's passphrase file {passphrase_file} cannot be used: {e}") from e


def exported(settings: AuthorityKey, issuer: Issuer, default: Path) -> bytes | None:
    """Return the CA's key in PEM as a puppetserver reads it, which knows no passphrase; None: its holder gives it to nobody.

    Raises:
        Misconfigured: it cannot be read or decrypted, or is another CA's.
    """
    if settings.kind != "file":
        return None
    path = settings.file or default
    key = checked(in_file(path, settings.passphrase_file), issuer, str(path))
    return read_bounded(path, what="the CA's key") if settings.passphrase_file is None else encoded(key, None)


def holder(settings: AuthorityKey, default: Path) -> str:
    """Return in words where the settings say that the key is."""
    if settings.kind == "signer":
        return f"the signer at {settings.socket}"
    if settings.kind == "pkcs11":
        return f"the token {settings.token_label} (key {settings.key_label})"
    return f"{settings.file or default}{', encrypted' if settings.passphrase_file else ''}"


def in_file(path: Path, passphrase_file: Path | None = None, *, guarded: bool = True) -> CAKey:
    """Return the key in a PEM file; one that everybody may read is refused where it is ``guarded``.

    Raises:
        Misconfigured: it cannot be read or decrypted, or others may read it, or it is of no kind that signs.
    """
    pem = read_bounded(path, what="the CA's key", limit_bytes=_LIMIT_BYTES)
    if guarded and path.stat().st_mode & 0o007:
        raise Misconfigured(f"The CA's key {path} may be used by everybody on this host; chmod o= {path}")
    passphrase = _first_line(passphrase_file) if passphrase_file else None
    try:
        key = load_pem_private_key(pem, passphrase)
    except TypeError as e:
        wants = "has no passphrase" if passphrase else "needs a passphrase (authority.key.passphrase_file)"
        raise Misconfigured(f"The CA's key {path} {wants}") from e
    except ValueError as e:
        raise Misconfigured(f"The CA's key {path} cannot be read: no PEM, or the passphrase is wrong") from e
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise Misconfigured(f"The CA's key {path} is of no kind that signs certificates here")
    return key


def checked(key: CAKey, issuer: Issuer, where: str) -> CAKey:
    """Return the key when it is the issuer's.

    Raises:
        Misconfigured: it is another one: this member would sign what nobody trusts.
    """
    if not belongs(key, issuer.certificate):
        raise Misconfigured(f"The CA's key {where} does not belong to {issuer.common_name}")
    return key


def proven(key: CAKey, issuer: Issuer, where: str) -> CAKey:
    """Return the key when it signs as the issuer's does.

    Raises:
        Misconfigured: it does not, or did not answer.
    """
    if not signs_as(key, issuer):
        raise Misconfigured(f"The CA's key {where} does not sign as {issuer.common_name} does")
    return key


def signs_as(key: CAKey, issuer: Issuer) -> bool:
    """Whether a key, whoever holds it, signs as the issuer's does.

    Raises:
        Misconfigured: it did not answer.
    """
    public: Any = issuer.certificate.public_key()
    try:
        if isinstance(key, rsa.RSAPrivateKey):
            scheme = padding.PKCS1v15()
            public.verify(key.sign(PROOF, scheme, hashes.SHA256()), PROOF, scheme, hashes.SHA256())
        elif isinstance(key, ec.EllipticCurvePrivateKey):
            algorithm = ec.ECDSA(hashes.SHA256())
            public.verify(key.sign(PROOF, algorithm), PROOF, algorithm)
    except InvalidSignature:
        return False
    except Unavailable as e:
        raise Misconfigured(str(e)) from e
    return True


def _first_line(path: Path) -> bytes:
    lines = read_bounded(path, what="the CA key's passphrase file", limit_bytes=4096).splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The CA key's passphrase file {path} is empty")
    return lines[0].strip()
