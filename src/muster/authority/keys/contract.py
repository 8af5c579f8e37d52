"""What every kind of custody promises, and what they share: that a key is the CA's own, and how it comes into its place.

Whatever holds it, the rest of the room sees a private key of the ``cryptography`` library: the builders only ever ask it
to sign (docs/facts/puppet-ca.md §7.7).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

from muster.authority.x509.profile import CAKey, Issuer, belongs
from muster.kernel.errors import Conflict, Misconfigured, Unavailable
from muster.kernel.files import make_directory, write_new

PROOF = b"muster: is this the key of our CA?"
"""What a key signs to show that it is there; it is the beginning of no certificate and no list."""


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


class Custody(Protocol):
    """Who holds a CA's private key, as the settings say it."""

    @property
    def where(self) -> str:
        """In words, where the key is."""

    def opened(self, issuer: Issuer) -> AbstractContextManager[CAKey]:
        """Hold the CA's key.

        Raises:
            Misconfigured: it cannot be had, or does not belong to the issuer's certificate.
        """

    def adopted(self, issuer: Issuer, given: Path | None) -> AbstractContextManager[Adopted]:
        """Find out how the key of a CA that exists comes into this custody; writes nothing yet.

        ``given`` is a PEM file with the CA's key, where there is one. It is taken byte for byte unless it is to be
        encrypted; a signer or a token must have it already, and proves it.

        Raises:
            Misconfigured: it cannot be had, or what holds it has another one, or the passphrase cannot be read.
        """

    def begun(self, make: Callable[[], CAKey]) -> AbstractContextManager[Adopted]:
        """Hold the key of a new CA, which no certificate names yet; writes nothing yet.

        ``make`` makes a key for a file; a signer or a token has one already.

        Raises:
            Misconfigured: it cannot be had, or the passphrase cannot be read.
        """

    def refuse_unless_new(self) -> None:
        """Refuse to begin a CA where a key is that might be one's, or none can be had; changes nothing.

        Raises:
            Conflict: there is a key.
            Misconfigured: the signer, the token or the passphrase cannot be used.
        """

    def exported(self, issuer: Issuer) -> bytes | None:
        """Return the key in PEM as a puppetserver reads it, which knows no passphrase; None: its holder gives it to nobody.

        Raises:
            Misconfigured: it cannot be read or decrypted, or is another CA's.
        """


@contextlib.contextmanager
def in_custody(opening: AbstractContextManager[CAKey]) -> Iterator[Adopted]:
    """Yield the key that is in custody already.

    Raises:
        Misconfigured: it cannot be had; nothing was changed.
    """
    with contextlib.ExitStack() as stack:
        try:
            key = stack.enter_context(opening)
        except Misconfigured as e:
            raise Misconfigured(f"{e}; nothing was changed") from e
        yield Adopted(key)


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
    except (InvalidSignature, ValueError):
        # A value is wrong where the parts of a key do not fit each other.
        return False
    except Unavailable as e:
        raise Misconfigured(str(e)) from e
    return True
