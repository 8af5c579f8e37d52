"""Tokens that every member believes: signed by a key that the members have in common, and that others follow.

The keys stand in the store, so what signs is the same on every member; none of it is in a file. A key signs until it is
``key_lifetime_s`` old; then whoever comes first adds another, and the one before is kept for as long as a token that it
signed may last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from muster.kernel import log
from muster.kernel.errors import Conflict, Unavailable
from muster.store.documents import Document, Documents
from muster.store.engine import Store

_log = log.logger("features")

_DOCUMENT = "container_gateway/keys"
_ALGORITHM = "EdDSA"
_ISSUER = "muster"
_LONGEST = 4096
# Members read the keys anew after so long: until then some sign with the key before.
_KEPT_S = 30.0
# A store that did not answer is asked again after so long; whoever comes meanwhile, or waited, goes on without.
_AWAY_S = 1.0
# An unknown key makes a member read them at once, but whoever makes tokens up does not make it read each time.
_UNKNOWN_S = 1.0
# Members' clocks may differ by as much.
_SKEW_S = 30
# PyJWT 2.10 to 2.12 let the latter out of a header that is nested deeply.
_NO_TOKEN = (jwt.InvalidTokenError, RecursionError)


@dataclass(frozen=True)
class _Keys:
    """The keys as they were read, the one that signs last."""

    document: Document = field(repr=False)
    by_id: Mapping[str, Ed25519PublicKey]
    newest: str
    signs: Ed25519PrivateKey = field(repr=False)
    newest_made_at: float
    # By the store's clock, and by ours.
    now: float
    read_at: float


class Tokens:
    """Issues tokens and tells whose they are.

    Concurrency: any number of tasks of one loop.
    """

    def __init__(
        self,
        store: Store,
        cluster: str,
        *,
        longest_s: float,
        key_lifetime_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._cluster = cluster
        self._longest_s = longest_s
        self._key_lifetime_s = key_lifetime_s
        self._monotonic = monotonic
        self._wall = wall
        self._kept: _Keys | None = None
        self._reading = asyncio.Lock()
        self._away = ""
        self._away_at = 0.0

    async def issued(self, user: str, lifetime_s: float) -> tuple[str, float]:
        """Return a token for a user, and how many seconds it is good for.

        Raises:
            Unavailable: the store did not answer, and no key is known yet.
        """
        keys = await self._keys(_KEPT_S)
        age_s = keys.now - keys.newest_made_at + (self._monotonic() - keys.read_at)
        if age_s >= self._key_lifetime_s:
            keys = await self._followed(keys)
        lifetime_s = min(lifetime_s, self._longest_s)
        now = self._wall()
        said = {"iss": _ISSUER, "aud": self._cluster, "sub": user, "iat": int(now), "exp": int(now + lifetime_s)}
        token = jwt.encode(said, keys.signs, _ALGORITHM, headers={"kid": keys.newest})
        return token, lifetime_s

    async def user(self, token: str) -> str | None:
        """Return whose token it is, None when it is nobody's: made up, altered, ended, or of another cluster.

        Raises:
            Unavailable: the store did not answer, and no key is known yet.
        """
        if len(token) > _LONGEST:
            return None
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except _NO_TOKEN:
            return None
        keys = await self._keys(_KEPT_S)
        if kid not in keys.by_id:
            keys = await self._keys(_UNKNOWN_S)
        key = keys.by_id.get(kid) if isinstance(kid, str) else None
        if key is None:
            return None
        try:
            said = jwt.decode(
                token, key, [_ALGORITHM], audience=self._cluster, issuer=_ISSUER, leeway=_SKEW_S,
                options={"require": ["exp", "iat", "sub", "aud", "iss"]},
            )  # fmt: skip
        except _NO_TOKEN:
            return None
        return str(said["sub"])

    async def _keys(self, kept_s: float) -> _Keys:
        """Return the keys, read at most ``kept_s`` ago, or longer while the store does not answer."""
        kept = self._kept
        if kept is not None and self._monotonic() - kept.read_at < kept_s:
            return kept
        async with self._reading:
            if self._kept is not None and self._kept is not kept:
                return self._kept
            if not self._away or self._monotonic() - self._away_at >= _AWAY_S:
                try:
                    self._kept, self._away = await self._read(), ""
                    return self._kept
                except Unavailable as e:
                    self._away, self._away_at = str(e), self._monotonic()
                    if kept is not None:
                        _log.warning("The keys of tokens were not read; those before serve on", why=self._away)
            if kept is None:
                raise Unavailable(self._away)
            return kept

    async def _read(self) -> _Keys:
        documents = Documents(self._store)
        found = await documents.read(_DOCUMENT)
        if found.version == 0:
            try:
                found = await documents.replace(found, {"keys": [await self._made()]}, by="container_gateway")
            except Conflict:
                found = await documents.read(_DOCUMENT)
        return await self._understood(found)

    async def _understood(self, found: Document) -> _Keys:
        keys = {str(one["id"]): _key(str(one["pem"])) for one in found.content["keys"]}
        # It stands last, and there is always one.
        newest = found.content["keys"][-1]
        name = str(newest["id"])
        known = {k: v.public_key() for k, v in keys.items()}
        now = await self._now()
        return _Keys(found, known, name, keys[name], float(newest["made_at"]), now, self._monotonic())

    async def _followed(self, keys: _Keys) -> _Keys:
        """Add the key that signs from now on, and drop those whose last token has ended; somebody else may have."""
        async with self._reading:
            if self._kept is not None and self._kept.newest != keys.newest:
                return self._kept
            try:
                self._kept = await self._read_after(keys)
            except Unavailable as e:
                _log.warning("The key of tokens was not followed by another; it signs on", why=str(e))
                return keys
            return self._kept

    async def _read_after(self, keys: _Keys) -> _Keys:
        """Return the keys when another has followed them, whoever added it."""
        now = await self._now()
        known = keys.document.content["keys"]
        # A key signed until the next was read everywhere.
        over = self._longest_s + _KEPT_S + 2 * _SKEW_S
        live = [
            one for at, one in enumerate(known)
            if at + 1 == len(known) or float(known[at + 1]["made_at"]) + over > now
        ]  # fmt: skip
        content = {"keys": [*live, await self._made()]}
        try:
            found = await Documents(self._store).replace(keys.document, content, by="container_gateway")
        except Conflict:
            return await self._read()
        return await self._understood(found)

    async def _made(self) -> dict[str, object]:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        now = await self._now()
        # Its own public half names it: no two are the same.
        return {"id": key.public_key().public_bytes_raw().hex()[:16], "pem": pem, "made_at": now}

    async def _now(self) -> float:
        async with self._store.read() as uow:
            return await uow.now()


def _key(pem: str) -> Ed25519PrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, Ed25519PrivateKey)  # noqa: S101 - made here and nowhere else
    return key
