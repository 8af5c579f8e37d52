"""Who holds the CA's private key: a file, an encrypted file, a process of its own, or a PKCS#11 token.

Whatever holds it, the rest of this room sees a private key of the ``cryptography`` library: the builders only ever ask it
to sign (reference/puppet-ca.md §7.7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from muster.authority.profile import CAKey, Issuer, belongs
from muster.cluster.file import AuthorityKey
from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded

_LIMIT_BYTES = 64 << 10


@contextlib.contextmanager
def opened(settings: AuthorityKey, issuer: Issuer, default: Path) -> Iterator[CAKey]:
    """Hold the CA's key; ``default`` is the file when the settings name none.

    Raises:
        Misconfigured: it cannot be had, or does not belong to the issuer's certificate.
    """
    if settings.kind == "signer":
        from muster.authority.signer import connected

        assert settings.socket is not None  # noqa: S101 - the settings' own validator
        with connected(settings.socket, issuer) as remote:
            yield remote
        return
    if settings.kind == "pkcs11":
        from muster.authority.token import found

        with found(settings, issuer) as on_token:
            yield on_token
        return
    path = settings.file or default
    yield checked(in_file(path, settings.passphrase_file), issuer, str(path))


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


def _first_line(path: Path) -> bytes:
    lines = read_bounded(path, what="the CA key's passphrase file", limit_bytes=4096).splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The CA key's passphrase file {path} is empty")
    return lines[0].strip()
