"""Who of the members asks Foreman for a script, and what came of it, in the store; none of it can be read there.

A row is a claim, until the script stands in it. Store time says when either has ended. Nothing here is needed: whoever hears
nothing of the store asks Foreman himself.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field

from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change, Writing

MOST = 1000
"""How many scripts are kept; those that end first go."""

_LOOK = Query("SELECT script, claimed_until, ends_at FROM registration_scripts WHERE id = :id")
# What ends later than anything begun now would is from before the store's clock was set back.
_CLAIM = Change(
    "INSERT INTO registration_scripts (id, holder, claimed_until, ends_at) VALUES (:id, :holder, {now} + :within_s, 0)"
    " ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, claimed_until = excluded.claimed_until, ends_at = 0,"
    " script = NULL WHERE (registration_scripts.ends_at <= {now} OR registration_scripts.ends_at > {now} + :kept_s)"
    " AND (registration_scripts.claimed_until <= {now} OR registration_scripts.claimed_until > {now} + :within_s)"
)
_KEEP = Change(
    "UPDATE registration_scripts SET script = :script, ends_at = {now} + :kept_s, claimed_until = 0"
    " WHERE id = :id AND holder = :holder"
)
_FORGET_ENDED = Change(
    "DELETE FROM registration_scripts WHERE ends_at <= {now} AND claimed_until <= {now} AND id <> :id"
)
_FORGET_EXCESS = Change(
    "DELETE FROM registration_scripts WHERE script IS NOT NULL AND id NOT IN"
    " (SELECT id FROM registration_scripts WHERE script IS NOT NULL ORDER BY ends_at DESC, id LIMIT :most)"
)
_RELEASE = Change("DELETE FROM registration_scripts WHERE id = :id AND holder = :holder AND script IS NULL")


@dataclass(frozen=True)
class Claim:
    """The right to ask for all."""

    id: str
    holder: str


@dataclass(frozen=True)
class Sealed:
    """A script as it lies in the store.

    Attributes:
        left_s: for how long it is still good.
    """

    script: bytes = field(repr=False)
    left_s: float


class Claims:
    """The rows. ``kept_s``: how long scripts are good; ``within_s``: how long a claim is."""

    def __init__(self, store: Store, *, kept_s: float, within_s: float, most: int = MOST) -> None:
        self._store = store
        self._kept_s = kept_s
        self._within_s = within_s
        self._most = most

    async def standing(self, id: str) -> Sealed | Claim | None:
        """Return the script, else the claim, which is the caller's from now on; None: somebody else has it.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            now = await uow.now()
            rows = await uow.rows(_LOOK, id=id)
        if rows:
            script, ends_at, until = rows[0]["script"], rows[0]["ends_at"], rows[0]["claimed_until"]
            if script is not None and now < ends_at <= now + self._kept_s:
                return Sealed(bytes(script), ends_at - now)
            if now < until <= now + self._within_s:
                return None
        return await self._claimed(id)

    async def _claimed(self, id: str) -> Claim | None:
        claim = Claim(id, secrets.token_hex(8))
        row = {"id": id, "holder": claim.holder, "within_s": self._within_s, "kept_s": self._kept_s}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_CLAIM, row) == 1

        return claim if await self._store.carry_out("registration-claimed", work) else None

    async def keep(self, claim: Claim, script: bytes) -> None:
        """Give all members a script, unless the claim has become another's; drop what has ended, and what is too much.

        Raises:
            Unavailable: the store did not answer.
        """
        row = {"id": claim.id, "holder": claim.holder, "script": script, "kept_s": self._kept_s}

        async def work(uow: Writing) -> None:
            if await uow.changed(_KEEP, row):
                await uow.changed(_FORGET_ENDED, {"id": claim.id})
                await uow.changed(_FORGET_EXCESS, {"most": self._most})

        await self._store.carry_out("registration-kept", work)

    async def release(self, claim: Claim) -> None:
        """Let others ask.

        Raises:
            Unavailable: the store did not answer.
        """

        async def work(uow: Writing) -> None:
            await uow.changed(_RELEASE, {"id": claim.id, "holder": claim.holder})

        await self._store.carry_out("registration-released", work)
