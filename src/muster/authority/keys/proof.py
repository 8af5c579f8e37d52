"""Whether a key that is held elsewhere still signs: an absent one is noticed here, not by an agent."""

from __future__ import annotations

import asyncio

from muster.authority.keys.contract import proven
from muster.authority.x509.profile import CAKey, Issuer
from muster.kernel.errors import Unavailable

_LIMIT_S = 5.0


class Proof:
    """Has one key sign something small, now and then.

    Concurrency: one loop; a key that hangs is asked once.
    """

    def __init__(self, key: CAKey, issuer: Issuer, kind: str) -> None:
        self._key = key
        self._issuer = issuer
        self._kind = kind
        self._proving: asyncio.Task[CAKey] | None = None

    async def prove(self) -> None:
        """Return when the key has signed; one in a file is in this process, and not tried.

        Raises:
            Unavailable: its holder has not signed in time.
            Misconfigured: its holder does not answer, or signs with another key.
        """
        if self._kind == "file":
            return
        if self._proving is None:
            proving = asyncio.to_thread(proven, self._key, self._issuer, f"({self._kind})")
            self._proving = asyncio.create_task(proving, name="key proved")
        # One that hangs keeps its thread: who calls must not wait for it, nor may threads pile up.
        await asyncio.wait([self._proving], timeout=_LIMIT_S)
        if not self._proving.done():
            raise Unavailable(f"The CA's key ({self._kind}) has not signed within {_LIMIT_S:g} s")
        proof, self._proving = self._proving, None
        proof.result()

    async def close(self) -> None:
        """Give up what still waits for the key."""
        if self._proving is not None:
            self._proving.cancel()
            await asyncio.gather(self._proving, return_exceptions=True)
