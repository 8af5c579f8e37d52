"""The CA's key in a PEM file, encrypted or not, that others may not read."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from muster.authority.keys.contract import Adopted, checked, in_custody, proven
from muster.authority.x509.profile import CAKey, Issuer
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.files import read_bounded

_LIMIT_BYTES = 64 << 10


@dataclass(frozen=True)
class KeyFile:
    """The key in a file; under a passphrase where one is named."""

    path: Path
    passphrase_file: Path | None = None

    @property
    def where(self) -> str:
        return f"{self.path}{', encrypted' if self.passphrase_file else ''}"

    @contextlib.contextmanager
    def opened(self, issuer: Issuer) -> Iterator[CAKey]:
        where = str(self.path)
        # Our own, which was examined when it came: to look again whether its parts are prime takes a quarter of a second for
        # 4096 bits. That it signs as it should is soon seen, and says as much about what has become of it.
        key = in_file(self.path, self.passphrase_file, examined=False)
        yield proven(checked(key, issuer, where), issuer, where)

    @contextlib.contextmanager
    def adopted(self, issuer: Issuer, given: Path | None) -> Iterator[Adopted]:
        if given is None or self.path.exists():
            with in_custody(self.opened(issuer)) as already:
                yield already
            return
        key = checked(in_file(given, guarded=False), issuer, str(given))
        as_it_is = self.passphrase_file is None
        pem = read_bounded(given, what="the CA's key") if as_it_is else encoded(key, self.passphrase_file)
        yield Adopted(key, self.path, pem)

    @contextlib.contextmanager
    def begun(self, make: Callable[[], CAKey]) -> Iterator[Adopted]:
        key = make()
        yield Adopted(key, self.path, encoded(key, self.passphrase_file))

    def refuse_unless_new(self) -> None:
        if self.path.exists():
            raise Conflict(
                f"{self.path} exists; a new CA would overwrite another one's key; nothing was changed. If it is no "
                "CA's, because an earlier attempt was cut short, move it away and try again"
            )
        # A small key tries the passphrase: the real one may take seconds to make.
        encoded(ec.generate_private_key(ec.SECP256R1()), self.passphrase_file)

    def exported(self, issuer: Issuer) -> bytes | None:
        key = checked(in_file(self.path, self.passphrase_file), issuer, str(self.path))
        return read_bounded(self.path, what="the CA's key") if self.passphrase_file is None else encoded(key, None)


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


def in_file(path: Path, passphrase_file: Path | None = None, *, guarded: bool = True, examined: bool = True) -> CAKey:
    """Return the key in a PEM file; one that everybody may read is refused where it is ``guarded``.

    Without being ``examined``, an RSA key's parts may not fit each other: who asks for that proves the key before its use.

    Raises:
        Misconfigured: it cannot be read or decrypted, or others may read it, or it is of no kind that signs.
    """
    pem = read_bounded(path, what="the CA's key", limit_bytes=_LIMIT_BYTES)
    if guarded and path.stat().st_mode & 0o007:
        raise Misconfigured(f"The CA's key {path} may be used by everybody on this host; chmod o= {path}")
    passphrase = _first_line(passphrase_file) if passphrase_file else None
    try:
        key = load_pem_private_key(pem, passphrase, unsafe_skip_rsa_key_validation=not examined)
    except TypeError as e:
        wants = "has no passphrase" if passphrase else "needs a passphrase (authority.key.passphrase_file)"
        raise Misconfigured(f"The CA's key {path} {wants}") from e
    except ValueError as e:
        raise Misconfigured(f"The CA's key {path} cannot be read: no PEM, or the passphrase is wrong") from e
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise Misconfigured(f"The CA's key {path} is of no kind that signs certificates here")
    return key


def _first_line(path: Path) -> bytes:
    lines = read_bounded(path, what="the CA key's passphrase file", limit_bytes=4096).splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The CA key's passphrase file {path} is empty")
    return lines[0].strip()
