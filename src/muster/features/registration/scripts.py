"""Scripts that register hosts, asked of Foreman once for all who want the same: in this process, and in all members'.

What may change an answer is its key: where hosts are told to register, the parameters, and how somebody proves himself. The
store has a script under a digest of that and encrypted with it, so that who reads the store, or a copy of it, learns neither
a token nor a script. What a password could be guessed from stays out of it altogether.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from muster.content.handed import Said
from muster.edge.feature import Surroundings
from muster.edge.params import Value
from muster.features.registration.claims import Claim, Claims, Sealed
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.tasks import ended

LONGEST_BYTES = 256 << 10
"""The longest script that is kept; a longer one is asked for each time."""

# Of a token that Foreman made, which nobody guesses; of a password, or of nothing, anybody may make the digest himself.
_UNGUESSABLE = re.compile(r"[Bb]earer [A-Za-z0-9._~+/-]{32,4096}=*\Z")
_MOST_HERE = 64
# At once, of different keys: whoever makes tokens up must not make the members' store busy.
_MOST_SHARED = 32
# The store may be asked for so long before Foreman is.
_STORE_S = 1.0
# Whoever found it away goes without for a while.
_AWAY_S = 5.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.15, 1.0
# Beyond the end of a claim, for whoever takes it over to be heard of.
_MARGIN_S = 2.0
_NONCE_BYTES = 12

_log = log.logger("features")

Ask = Callable[[], Awaitable[Said]]


@dataclass(frozen=True)
class Key:
    """What an answer depends on, in digests.

    Attributes:
        id: names it.
        cipher: encrypts it.
        is_shared: whether other members may find it.
    """

    id: str
    cipher: bytes = field(repr=False)
    is_shared: bool

    @classmethod
    def of(cls, foreman: str, url: str, given: Mapping[str, Value], proof: str) -> Key:
        """Return the key of one question; the order of parameters is no part of it."""
        material = json.dumps([foreman, url, given, proof], sort_keys=True, separators=(",", ":")).encode()
        return cls(
            _derived(material, b"muster registration: id").hex(),
            _derived(material, b"muster registration: cipher"),
            _UNGUESSABLE.match(proof) is not None,
        )

    def sealed(self, script: bytes) -> bytes:
        """Return a script for the store."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self.cipher).encrypt(nonce, script, self.id.encode())

    def opened(self, sealed: bytes) -> bytes:
        """Return what :meth:`sealed` made.

        Raises:
            Unavailable: it is something else.
        """
        try:
            return AESGCM(self.cipher).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], self.id.encode())
        except (InvalidTag, ValueError):
            raise Unavailable("A script in the store is none that a member put there") from None


def _derived(material: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(material)


class Scripts:
    """What is kept in this process, and what is asked for.

    Concurrency: any number of tasks of one loop. Whoever goes away takes the answer from nobody.

    Args:
        foreman: its URL.
        claims: the members' store; None: this process is alone.
        kept_s: how long a script is good; 0: Foreman is asked each time.
        asked_within_s: how long asking Foreman may take, as a claim is good for.
    """

    def __init__(
        self,
        foreman: str,
        claims: Claims | None,
        *,
        kept_s: float,
        asked_within_s: float,
        monotonic: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._foreman = foreman
        self._claims = claims
        self._kept_s = kept_s
        self._asked_within_s = asked_within_s
        self._monotonic = monotonic
        self._pause = pause
        self._kept: OrderedDict[str, tuple[Said, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Said]] = {}
        self._shared = 0
        self._away_until = float("-inf")

    def key(self, url: str, given: Mapping[str, Value], proof: str) -> Key:
        """Return what an answer depends on: the URL Foreman is told, the other parameters, and the Authorization."""
        return Key.of(self._foreman, url, given, proof)

    async def script(self, key: Key, ask: Ask) -> Said:
        """Return what is kept, else what Foreman says to the one question of all who come meanwhile.

        Only a script is kept: who comes after another answer asks anew.

        Raises:
            MusterError: as ``ask``.
        """
        if not self._kept_s:
            return await ask()
        kept = self._kept.get(key.id)
        if kept is not None:
            if self._monotonic() < kept[1]:
                return kept[0]
            del self._kept[key.id]
        asking = self._asking.get(key.id)
        if asking is None:
            asking = self._asking[key.id] = asyncio.create_task(self._asked(key, ask), name="script that registers")
            asking.add_done_callback(lambda task: self._asked_and_done(key.id, task))
        return await asyncio.shield(asking)

    async def aclose(self) -> None:
        """End the questions that still run."""
        await ended(self._asking.values())

    def _asked_and_done(self, id: str, task: asyncio.Task[Said]) -> None:
        del self._asking[id]
        # One that nobody waits for any more may fail unheard.
        if not task.cancelled():
            task.exception()

    async def _asked(self, key: Key, ask: Ask) -> Said:
        claims = self._claims
        if (
            claims is not None
            and key.is_shared
            and self._shared < _MOST_SHARED
            and self._monotonic() >= self._away_until
        ):
            self._shared += 1
            try:
                found = await self._of_members(claims, key, ask)
            finally:
                self._shared -= 1
            if found is not None:
                return found
        said = await ask()
        self._keep(key, said, self._kept_s)
        return said

    async def _of_members(self, claims: Claims, key: Key, ask: Ask) -> Said | None:
        """Return what one member asked Foreman, perhaps this one; None: nothing is heard of the others."""
        until = self._monotonic() + self._asked_within_s + _MARGIN_S
        pause_s = _FIRST_PAUSE_S
        while self._monotonic() < until:
            try:
                async with asyncio.timeout(_STORE_S):
                    standing = await claims.standing(key.id)
                if isinstance(standing, Sealed):
                    said = Said(200, "text/plain", key.opened(standing.script))
                    self._keep(key, said, standing.left_s)
                    return said
            except (MusterError, TimeoutError) as e:
                self._without("Foreman is asked by this member alone", e)
                return None
            if standing is not None:
                return await self._for_all(claims, standing, key, ask)
            await self._pause(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
        return None

    async def _for_all(self, claims: Claims, claim: Claim, key: Key, ask: Ask) -> Said:
        said: Said | None = None
        try:
            said = await ask()
        finally:
            is_kept = said is not None and self._keep(key, said, self._kept_s)
            try:
                async with asyncio.timeout(_STORE_S):
                    if said is not None and is_kept:
                        await claims.keep(claim, key.sealed(said.body))
                    else:
                        await claims.release(claim)
            except (MusterError, TimeoutError) as e:
                # The claim ends by itself.
                self._without("The other members were not told what Foreman said", e)
        return said

    def _keep(self, key: Key, said: Said, kept_s: float) -> bool:
        """Keep a script here, and return whether it is one that may be kept."""
        if said.status != 200 or len(said.body) > LONGEST_BYTES:
            return False
        self._kept[key.id] = said, self._monotonic() + kept_s
        self._kept.move_to_end(key.id)
        while len(self._kept) > _MOST_HERE:
            self._kept.popitem(last=False)
        return True

    def _without(self, sentence: str, error: BaseException) -> None:
        is_known = self._monotonic() < self._away_until
        self._away_until = self._monotonic() + _AWAY_S
        if is_known:
            # Each of many that asked at once finds the same.
            return
        why = f"no answer within {_STORE_S:g} s" if isinstance(error, TimeoutError) else str(error)
        _log.warning(f"{sentence}: {why}")


def opened(around: Surroundings, *, kept_s: float, asked_within_s: float) -> Scripts:
    """Return the scripts of a member; end them with :meth:`Scripts.aclose`."""
    cluster = around.cluster
    foreman = cluster.foreman.url if cluster is not None else None
    claims = Claims(around.store, kept_s=kept_s, within_s=asked_within_s) if around.store is not None else None
    return Scripts(foreman or "", claims, kept_s=kept_s, asked_within_s=asked_within_s)
