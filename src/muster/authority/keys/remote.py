"""Private keys that somebody else holds: they sign by asking, and give nothing else away."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from muster.authority.keys.contract import Adopted, in_custody
from muster.authority.x509.profile import CAKey, Issuer, PublicKey, pem_of
from muster.kernel.errors import Misconfigured, Unsupported

Ask = Callable[[bytes], bytes]
"""Signs data with SHA-256 (PKCS #1 v1.5, or ECDSA as a DER sequence) and returns the signature."""


class HeldElsewhere(ABC):
    """What is the same of every custody whose holder has the key already, and keeps it."""

    @property
    @abstractmethod
    def where(self) -> str: ...

    @abstractmethod
    def opened(self, issuer: Issuer) -> AbstractContextManager[CAKey]: ...

    @abstractmethod
    def public_key(self) -> PublicKey:
        """Return the public half of the key, whichever CA's it is.

        Raises:
            Misconfigured: its holder does not answer, or has none.
        """

    def adopted(self, issuer: Issuer, given: Path | None) -> AbstractContextManager[Adopted]:  # noqa: ARG002 - it has the key
        return in_custody(self.opened(issuer))

    @contextlib.contextmanager
    def begun(self, make: Callable[[], CAKey]) -> Iterator[Adopted]:  # noqa: ARG002 - it has the key
        with self.opened(_around(self.public_key())) as key:
            yield Adopted(key)

    def refuse_unless_new(self) -> None:
        with self.opened(_around(self.public_key())):
            return

    def exported(self, issuer: Issuer) -> bytes | None:  # noqa: ARG002 - nobody gets it
        return None


def _around(public: PublicKey) -> Issuer:
    """Return a certificate around a key, signed by nobody of importance: whoever opens a key compares it with one."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "the new CA")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public).serial_number(1)
    certificate = (
        builder.not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    )
    return Issuer.read(pem_of(certificate))


def held(public: Any, ask: Ask) -> CAKey:
    """Return a private key of the library's kind whose holder is asked to sign.

    Raises:
        Misconfigured: the public key is of no kind that can be held elsewhere.
    """
    if isinstance(public, rsa.RSAPublicKey):
        return _RSA(public, ask)
    if isinstance(public, ec.EllipticCurvePublicKey):
        return _EC(public, ask)
    raise Misconfigured("Only RSA and EC keys can be held by a signer or a token")


def _never(*_: Any, **__: Any) -> NoReturn:
    raise Unsupported("This key is held elsewhere; it signs and does nothing else")


class _RSA(rsa.RSAPrivateKey):
    def __init__(self, public: rsa.RSAPublicKey, ask: Ask) -> None:
        self._public = public
        self._ask = ask

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    def sign(self, data: Any, padding_: Any, algorithm: Any) -> bytes:
        if not isinstance(padding_, padding.PKCS1v15) or not _is_sha256(algorithm):
            _never()
        return self._ask(bytes(data))

    def __copy__(self) -> _RSA:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> _RSA:
        return self

    decrypt = private_numbers = private_bytes = _never


class _EC(ec.EllipticCurvePrivateKey):
    def __init__(self, public: ec.EllipticCurvePublicKey, ask: Ask) -> None:
        self._public = public
        self._ask = ask

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public.curve

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        if not isinstance(signature_algorithm, ec.ECDSA) or not _is_sha256(signature_algorithm.algorithm):
            _never()
        return self._ask(bytes(data))

    def __copy__(self) -> _EC:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> _EC:
        return self

    exchange = private_numbers = private_bytes = _never


def _is_sha256(algorithm: Any) -> bool:
    return isinstance(algorithm, hashes.SHA256) and not isinstance(algorithm, Prehashed)
