"""The CA's key on a PKCS#11 token: a hardware module, or SoftHSM.

Every signature opens no session of its own: one is kept, used by one thread at a time, and opened anew when the token was
taken out and put back. Source: PKCS #11 v2.40, CKM_SHA256_RSA_PKCS and CKM_ECDSA.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key

from muster.authority.keys.contract import checked, signs_as
from muster.authority.keys.remote import HeldElsewhere, held
from muster.authority.x509.profile import CAKey, Issuer, PublicKey
from muster.cluster.file import AuthorityKey
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import read_bounded

# Of this process: which PINs (as digests) which token refused.
_REFUSED: set[tuple[str, str, bytes]] = set()
# What pkcs11 raises for what a token does or lacks: PKCS11Error is one of these, and known without importing it.
_FAILED = RuntimeError
# What reading the public key raises when the token's attributes are those of none.
_UNREADABLE = (ValueError, TypeError, LookupError, UnsupportedAlgorithm)


@dataclass(frozen=True)
class OnToken(HeldElsewhere):
    """The key on the token that the settings name."""

    settings: AuthorityKey

    @property
    def where(self) -> str:
        return f"the token {self.settings.token_label} (key {self.settings.key_label})"

    def opened(self, issuer: Issuer) -> AbstractContextManager[CAKey]:
        return found(self.settings, issuer)

    def public_key(self) -> PublicKey:
        return public_key(self.settings)


@contextlib.contextmanager
def found(settings: AuthorityKey, issuer: Issuer) -> Iterator[CAKey]:
    """Yield the key on the token.

    Raises:
        Misconfigured: the library, the token, the PIN or the key is not there, or the key is another one's.
    """
    holder = _Holder(settings, is_ec=isinstance(issuer.certificate.public_key(), ec.EllipticCurvePublicKey))
    try:
        # The public half is the certificate's; whether the token holds the other one, a signature tells.
        key = held(issuer.certificate.public_key(), holder.sign)
        if not signs_as(key, issuer):
            raise Misconfigured(f"The CA's key {settings.key_label} on token {settings.token_label} is another CA's")
        yield checked(key, issuer, str(settings.key_label))
    finally:
        holder.close()


def public_key(settings: AuthorityKey) -> PublicKey:
    """Return the public half of the key, which must lie on the token beside it.

    Raises:
        Misconfigured: the library, the token, the PIN or the public key is not there.
    """
    pkcs11 = _library()
    from pkcs11.util.ec import encode_ec_public_key
    from pkcs11.util.rsa import encode_rsa_public_key

    where = f"{settings.key_label} on the token {settings.token_label}"
    try:
        with _opened(settings) as session:
            found: Any = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=settings.key_label)
            is_ec = found.key_type == pkcs11.KeyType.EC
            public = load_der_public_key(encode_ec_public_key(found) if is_ec else encode_rsa_public_key(found))
    except pkcs11.NoSuchKey:
        raise Misconfigured(f"There is no public key {where}; put it there beside the private one") from None
    except (_FAILED, *_UNREADABLE) as e:
        raise Misconfigured(f"The public key {where} cannot be read: {type(e).__name__} {e}") from e
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise Misconfigured(f"The key {where} is neither RSA nor EC")
    return public


def _library() -> Any:
    try:
        import pkcs11
    except ImportError as e:
        raise Misconfigured(
            "A key on a token needs python-pkcs11: packaging/requirements-pkcs11.txt has it (packaging/README.md)"
        ) from e
    return pkcs11


def _opened(settings: AuthorityKey) -> Any:
    """Open a session with the token.

    Raises:
        Misconfigured: it refused this PIN before, or there is no library.
        RuntimeError: whatever the library raises.
    """
    pkcs11 = _library()
    assert settings.module and settings.pin_file  # noqa: S101, PT018 - the settings' own validator
    pin = read_bounded(settings.pin_file, what="PIN file", limit_bytes=256).decode("utf-8", "replace").strip()
    refused = (str(settings.module), str(settings.token_label), hashlib.sha256(pin.encode()).digest())
    if refused in _REFUSED:
        raise Misconfigured(
            f"The token {settings.token_label} refused the PIN in {settings.pin_file}; it is not tried again until it "
            "changes, or the token would lock itself"
        )
    token = pkcs11.lib(str(settings.module)).get_token(token_label=settings.token_label)
    try:
        return token.open(user_pin=pin)
    except pkcs11.PinIncorrect:
        _REFUSED.add(refused)
        raise


class _Holder:
    """One session with the token."""

    def __init__(self, settings: AuthorityKey, *, is_ec: bool) -> None:
        self._settings = settings
        self._is_ec = is_ec
        self._turn = threading.Lock()
        self._session: Any = None
        self._key: Any = None

    def sign(self, data: bytes) -> bytes:
        """Return the signature.

        Raises:
            Unavailable: the token does not answer.
        """
        with self._turn:
            # Only with a session that was good: a second try with a wrong PIN brings the token nearer to locking itself.
            if self._key is not None:
                try:
                    return self._signed(data)
                except _FAILED:
                    # A token that was away has a session that is none any more.
                    self._forget()
            try:
                return self._signed(data)
            except Misconfigured:
                self._forget()
                raise
            except _FAILED as e:
                self._forget()
                raise Unavailable(f"The token {self._settings.token_label} did not sign: {type(e).__name__} {e}") from e

    def close(self) -> None:
        with self._turn:
            self._forget()

    def _signed(self, data: bytes) -> bytes:
        if self._key is None:
            self._open()
        pkcs11 = _library()
        if self._is_ec:
            # Hashed here: SoftHSM 2.6 and older modules know ECDSA without a hash of their own only.
            raw = self._key.sign(hashlib.sha256(data).digest(), mechanism=pkcs11.Mechanism.ECDSA)
            half = len(raw) // 2
            return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
        return bytes(self._key.sign(data, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS))

    def _open(self) -> None:
        self._session = _opened(self._settings)
        self._key = self._session.get_key(
            object_class=_library().ObjectClass.PRIVATE_KEY, label=self._settings.key_label
        )

    def _forget(self) -> None:
        session, self._session, self._key = self._session, None, None
        if session is not None:
            with contextlib.suppress(_FAILED):
                session.close()
