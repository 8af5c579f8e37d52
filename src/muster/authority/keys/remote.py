"""Private keys that somebody else holds: they sign by asking, and give nothing else away."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from muster.authority.x509.profile import CAKey
from muster.kernel.errors import Misconfigured, Unsupported

Ask = Callable[[bytes], bytes]
"""Signs data with SHA-256 (PKCS #1 v1.5, or ECDSA as a DER sequence) and returns the signature."""


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
