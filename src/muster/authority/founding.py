"""A new CA: its key in a file, its certificate and an empty ledger in the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from muster.authority import profile
from muster.authority.authority import PuppetCA
from muster.authority.autosign import Autosign
from muster.authority.ledger import Ledger
from muster.authority.profile import Issuer
from muster.cluster.file import Authority as Settings
from muster.kernel.clock import SystemClock
from muster.kernel.errors import Conflict
from muster.kernel.files import make_directory, write_atomically
from muster.store.engine import Store

Kind = Literal["rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Founding:
    """What a new CA will be."""

    common_name: str
    kind: Kind
    days: int
    key_file: Path


async def refuse_unless_new(store: Store, founding: Founding) -> None:
    """Refuse where there is a CA, or a key that might be one's.

    Raises:
        Conflict: there is; nothing was changed.
    """
    if await Ledger(store, "").chain() is not None:
        raise Conflict("The store holds a Puppet CA already; nothing was changed")
    if founding.key_file.exists():
        raise Conflict(f"{founding.key_file} exists; a new CA would overwrite another one's key; nothing was changed")


async def founded(store: Store, settings: Settings, founding: Founding, *, member: str) -> None:
    """Make the CA.

    Raises:
        Conflict: there is one already.
    """
    await refuse_unless_new(store, founding)
    key, pem = await asyncio.to_thread(_made, founding.kind)
    now = datetime.now(UTC)
    certificate = profile.self_signed(founding.common_name, key, now=now, ttl=timedelta(days=founding.days))
    issuer = Issuer.read(profile.pem_of(certificate))
    make_directory(founding.key_file.parent, mode=0o700)
    # The key before the ledger: a CA in the store whose key nobody has could never be used, nor replaced.
    write_atomically(founding.key_file, pem, mode=0o600)
    ledger = Ledger(store, member)
    maker = PuppetCA(ledger, settings, issuer, key, Autosign(store, settings), SystemClock())
    await ledger.create(issuer.chain_pem, build=maker.build)


def _made(kind: Kind) -> tuple[Any, bytes]:
    curves = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
    bits = kind.partition("-")[2]
    key: Any = ec.generate_private_key(curves[kind]) if kind in curves else rsa.generate_private_key(65537, int(bits))
    return key, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
