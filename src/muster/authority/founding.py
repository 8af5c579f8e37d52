"""A new CA: its key in the settings' custody, its certificate and an empty ledger in the store.

A file's key is made here; a signer's or a token's is there already, and signs the new CA's certificate itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from muster.authority import custody, profile
from muster.authority.authority import PuppetCA
from muster.authority.autosign import Autosign
from muster.authority.custody import Adopted
from muster.authority.ledger import Ledger
from muster.authority.profile import Issuer, PublicKey
from muster.cluster.file import Authority as Settings
from muster.cluster.file import AuthorityKey
from muster.kernel.clock import SystemClock
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.files import read_bounded
from muster.store.engine import Store

Kind = Literal["rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Founding:
    """What a new CA will be.

    Attributes:
        kind: of a key in a file; a signer or a token has its key already.
        key_file: where a file's key is written.
    """

    common_name: str
    kind: Kind
    days: int
    key_file: Path


async def refuse_unless_new(store: Store, settings: Settings, founding: Founding) -> None:
    """Refuse where there is a CA, a key that might be one's, or a holder whose key cannot be used.

    Raises:
        Conflict: there is; nothing was changed.
        Misconfigured: the signer, the token or the passphrase cannot be used.
    """
    if await Ledger(store, "").chain() is not None:
        raise Conflict("The store holds a Puppet CA already; nothing was changed")
    if settings.key.kind != "file":
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, _held(settings.key, founding.key_file))
    elif founding.key_file.exists():
        raise Conflict(f"{founding.key_file} exists; a new CA would overwrite another one's key; nothing was changed")
    else:
        # A small key tries the passphrase: the real one may take seconds to make.
        custody.encoded(ec.generate_private_key(ec.SECP256R1()), settings.key.passphrase_file)


async def founded(store: Store, settings: Settings, founding: Founding, *, member: str) -> None:
    """Make the CA.

    Raises:
        Conflict: there is one already; nothing was changed.
        Misconfigured: the signer, the token or the passphrase cannot be used; nothing was changed.
    """
    await refuse_unless_new(store, settings, founding)
    with contextlib.ExitStack() as stack:
        adopted = await asyncio.to_thread(stack.enter_context, _adopted(settings.key, founding))
        certificate = await asyncio.to_thread(
            profile.self_signed,
            founding.common_name,
            adopted.key,
            now=datetime.now(UTC),
            ttl=timedelta(days=founding.days),
        )
        issuer = Issuer.read(profile.pem_of(certificate))
        ledger = Ledger(store, member)
        maker = PuppetCA(ledger, settings, issuer, adopted.key, Autosign(store, settings), SystemClock())
        with adopted.in_place():
            await ledger.create(issuer.chain_pem, build=maker.build)


@contextlib.contextmanager
def _adopted(settings: AuthorityKey, founding: Founding) -> Iterator[Adopted]:
    if settings.kind == "file":
        key = _made(founding.kind)
        yield Adopted(key, founding.key_file, custody.encoded(key, settings.passphrase_file))
        return
    with _held(settings, founding.key_file) as held:
        yield held


@contextlib.contextmanager
def _held(settings: AuthorityKey, default: Path) -> Iterator[Adopted]:
    """Hold the key of a signer or a token that no certificate names yet."""
    if settings.kind == "signer":
        from muster.authority import signer

        assert settings.socket is not None  # noqa: S101 - the settings' own validator
        public = signer.public_key(settings.socket)
    else:
        public = _on_token(settings)
    with custody.opened(settings, _around(public), default) as key:
        yield Adopted(key)


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
    return Issuer.read(profile.pem_of(certificate))


def _on_token(settings: AuthorityKey) -> PublicKey:
    """Return the public half of a token's key.

    Raises:
        Misconfigured: the library, the token, the PIN or the public key is not there.
    """
    try:
        import pkcs11
        from pkcs11.util.ec import encode_ec_public_key
        from pkcs11.util.rsa import encode_rsa_public_key
    except ImportError as e:
        raise Misconfigured("A key on a token needs: pip install muster[pkcs11]") from e
    assert settings.module and settings.pin_file  # noqa: S101, PT018 - the settings' own validator
    pin = read_bounded(settings.pin_file, what="PIN file", limit_bytes=256).decode("utf-8", "replace").strip()
    where = f"{settings.key_label} on the token {settings.token_label}"
    try:
        token = pkcs11.lib(str(settings.module)).get_token(token_label=settings.token_label)
        with token.open(user_pin=pin) as session:
            found: Any = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=settings.key_label)
            is_ec = found.key_type == pkcs11.KeyType.EC
            public = load_der_public_key(encode_ec_public_key(found) if is_ec else encode_rsa_public_key(found))
    except pkcs11.NoSuchKey:
        raise Misconfigured(f"There is no public key {where}; put it there beside the private one") from None
    except Exception as e:
        # boundary: the library's exceptions say little and share no useful parent
        raise Misconfigured(f"The public key {where} cannot be read: {type(e).__name__} {e}") from e
    if not isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
        raise Misconfigured(f"The key {where} is neither RSA nor EC")
    return public


def _made(kind: Kind) -> Any:
    curves = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
    bits = kind.partition("-")[2]
    return ec.generate_private_key(curves[kind]) if kind in curves else rsa.generate_private_key(65537, int(bits))
