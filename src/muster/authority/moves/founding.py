"""A new CA: its key in the settings' custody, its certificate and an empty ledger in the store.

A file's key is made here; a signer's or a token's is there already, and signs the new CA's certificate itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

from cryptography.hazmat.primitives.asymmetric import ec, rsa

from muster.authority.hand import Hand
from muster.authority.keys import custody
from muster.authority.ledger.ledger import Ledger
from muster.authority.lists import RevocationLists
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer
from muster.cluster.file import Authority as Settings
from muster.kernel.clock import SystemClock
from muster.store.engine import Store

Kind = Literal["rsa-4096", "rsa-3072", "rsa-2048", "ec-p256", "ec-p384"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Founding:
    """What a new CA will be.

    Attributes:
        kind: of a key in a file; a signer or a token has its key already.
        key_file: where a file's key is written when the settings name no file.
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
    await asyncio.to_thread(custody.named(settings.key, founding.key_file).refuse_unless_new)


async def founded(store: Store, settings: Settings, founding: Founding, *, member: str) -> None:
    """Make the CA.

    Raises:
        Conflict: there is one already; nothing was changed.
        Misconfigured: the signer, the token or the passphrase cannot be used; nothing was changed.
    """
    await refuse_unless_new(store, settings, founding)
    with contextlib.ExitStack() as stack:
        begun = custody.named(settings.key, founding.key_file).begun(lambda: _made(founding.kind))
        adopted = await asyncio.to_thread(stack.enter_context, begun)
        certificate = await asyncio.to_thread(
            profile.self_signed,
            founding.common_name,
            adopted.key,
            now=datetime.now(UTC),
            ttl=timedelta(days=founding.days),
        )
        issuer = Issuer.read(profile.pem_of(certificate))
        ledger = Ledger(store, member)
        lists = RevocationLists(Hand(ledger, settings, issuer, adopted.key, SystemClock()))
        with adopted.in_place():
            await ledger.create(issuer.chain_pem, build=lists.build)


def _made(kind: Kind) -> Any:
    curves = {"ec-p256": ec.SECP256R1(), "ec-p384": ec.SECP384R1()}
    bits = kind.partition("-")[2]
    return ec.generate_private_key(curves[kind]) if kind in curves else rsa.generate_private_key(65537, int(bits))
