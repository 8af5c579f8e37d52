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

from muster.authority.authority import PuppetCA
from muster.authority.autosign import Autosign
from muster.authority.keys import custody
from muster.authority.keys.custody import Adopted
from muster.authority.ledger.ledger import Ledger
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer, PublicKey
from muster.cluster.file import Authority as Settings
from muster.cluster.file import AuthorityKey
from muster.kernel.clock import SystemClock
from muster.kernel.errors import Conflict
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
    await Ledger(store, "").refuse_unless_empty()
    if settings.key.kind != "file":
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, _held(settings.key, founding.key_file))
    elif founding.key_file.exists():
        raise Conflict(
            f"{founding.key_file} exists; a new CA would overwrite another one's key; nothing was changed. If it is no "
            "CA's, because an earlier attempt was cut short, move it away and try again"
        )
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
        from muster.authority.keys import signer

        assert settings.socket is not None  # noqa: S101 - the settings' own validator
        public = signer.public_key(settings.socket)
    else:
        from muster.authority.keys import token

        public = token.public_key(settings)
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


def _made(kind: Kind) -> Any:
    curves = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
    bits = kind.partition("-")[2]
    return ec.generate_private_key(curves[kind]) if kind in curves else rsa.generate_private_key(65537, int(bits))
