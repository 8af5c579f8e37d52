"""Which boot files are being fetched, by whom, and how far it is, in the store: one at a time for a path.

Whoever fetches one says so every second; who was silent for ten has lost it. Store time says so. A password in a URL lies in
the store for as long as its file is under way, since any member may have to go on with it, and is dropped at the end.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from muster.netboot.address import Address
from muster.netboot.contract import BootPath, Fetch, FetchState
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change, Writing

SILENT_S = 10.0
"""Who has said nothing for so long has lost what it fetched."""
KEPT_S = 86400.0
"""How long what came of one is kept."""

_MOST = 1000
_ONE = Query(
    "SELECT path, url, state, member, done_bytes, total_bytes, why, asked_at, started_at, beat_at, ended_at"
    " FROM netboot_fetches WHERE path = :path"
)
_ALL = Query(
    "SELECT path, url, state, member, done_bytes, total_bytes, why, asked_at, started_at, beat_at, ended_at"
    " FROM netboot_fetches ORDER BY asked_at DESC, path LIMIT :most"
)
_OPEN = Query(
    "SELECT path, url, state, member, done_bytes, total_bytes, why, asked_at, started_at, beat_at, ended_at"
    " FROM netboot_fetches WHERE ended_at IS NULL ORDER BY asked_at, path LIMIT :most"
)
# What was said later than now was said before the store's clock was set back.
_ASK = Change(
    "INSERT INTO netboot_fetches (path, url, state, member, holder, done_bytes, total_bytes, why, about, asked_at,"
    " started_at, beat_at, ended_at) VALUES (:path, :url, 'waiting', :member, :holder, 0, NULL, '', :about, {now}, NULL,"
    " {now}, NULL) ON CONFLICT (path) DO UPDATE SET url = excluded.url, state = 'waiting', member = excluded.member,"
    " holder = excluded.holder, done_bytes = 0, total_bytes = NULL, why = '', about = excluded.about,"
    " asked_at = excluded.asked_at, started_at = NULL, beat_at = excluded.beat_at, ended_at = NULL"
    " WHERE netboot_fetches.ended_at IS NOT NULL OR coalesce(netboot_fetches.beat_at, 0) <= {now} - :silent_s"
    " OR netboot_fetches.beat_at > {now} + :silent_s"
)
_TAKE = Change(
    "UPDATE netboot_fetches SET state = 'waiting', member = :member, holder = :holder, beat_at = {now}"
    " WHERE path = :path AND ended_at IS NULL AND (coalesce(beat_at, 0) <= {now} - :silent_s OR beat_at > {now} + :silent_s)"
)
_TELL = Change(
    "UPDATE netboot_fetches SET state = 'running', done_bytes = :done, total_bytes = :total,"
    " started_at = coalesce(started_at, {now}), beat_at = {now}"
    " WHERE path = :path AND holder = :holder AND ended_at IS NULL"
)
_WAIT = Change(
    "UPDATE netboot_fetches SET beat_at = {now} WHERE path = :path AND holder = :holder AND ended_at IS NULL"
)
_END = Change(
    "UPDATE netboot_fetches SET state = :state, url = :url, done_bytes = :done, total_bytes = :total, why = :why,"
    " started_at = coalesce(started_at, {now}), beat_at = {now}, ended_at = {now}"
    " WHERE path = :path AND holder = :holder AND ended_at IS NULL"
)
_LEAVE = Change(
    "UPDATE netboot_fetches SET state = 'waiting', beat_at = 0"
    " WHERE path = :path AND holder = :holder AND ended_at IS NULL"
)
_FORGET = Change("DELETE FROM netboot_fetches WHERE ended_at <= {now} - :kept_s")


@dataclass(frozen=True)
class Claim:
    """The right to fetch a file for all.

    Attributes:
        url: with a password, if it has one.
        holder: tells this claim from every other.
    """

    path: BootPath
    url: str = field(repr=False)
    holder: str


@dataclass(frozen=True)
class Standing:
    """How far one is, and whether anybody still says so.

    Attributes:
        asked_ago_s: since it was asked for.
    """

    fetch: Fetch
    is_silent: bool
    asked_ago_s: float


@dataclass(frozen=True)
class Far:
    """How far a download is: bytes, and of how many; None: nobody said."""

    done: int = 0
    total: int | None = None


class Fetches:
    """The rows. ``member``: who takes and asks here."""

    def __init__(self, store: Store, *, member: str) -> None:
        self._store, self._member = store, member

    async def ask(self, path: BootPath, url: str, about: str) -> Claim | None:
        """Ask for a file to be fetched; return the claim, or None: somebody fetches it already.

        Raises:
            Unavailable: the store did not answer.
        """
        claim = Claim(path, url, secrets.token_hex(8))
        row = {**self._claimed(claim), "url": url, "about": about}

        async def work(uow: Writing) -> bool:
            return await uow.changed(_ASK, row) == 1

        return claim if await self._store.carry_out("boot-fetch-asked", work) else None

    async def take(self, path: BootPath) -> Claim | None:
        """Take a file over whose member is silent; return the claim, or None: it is not, or another was faster.

        Raises:
            Unavailable: the store did not answer.
        """
        holder = secrets.token_hex(8)

        async def work(uow: Writing) -> str | None:
            if not await uow.changed(_TAKE, self._claimed(Claim(path, "", holder))):
                return None
            rows = await uow.rows(_ONE, path=path.text)
            return str(rows[0]["url"])

        url = await self._store.carry_out("boot-fetch-taken", work)
        return Claim(path, url, holder) if url is not None else None

    async def tell(self, claim: Claim, far: Far | None) -> bool:
        """Say how far it is, None: it waits for room; return whether it is the caller's still.

        Raises:
            Unavailable: the store did not answer.
        """
        row: dict[str, Any] = {"path": claim.path.text, "holder": claim.holder}

        async def work(uow: Writing) -> bool:
            if far is None:
                return await uow.changed(_WAIT, row) == 1
            return await uow.changed(_TELL, {**row, "done": far.done, "total": far.total}) == 1

        return await self._store.carry_out("boot-fetch-told", work)

    async def end(self, claim: Claim, state: Literal["done", "failed"], far: Far, why: str) -> Fetch | None:
        """Say what came of it, and return that; None: it is another's by now, and nothing was said.

        Raises:
            Unavailable: the store did not answer.
        """
        row = {
            "path": claim.path.text, "holder": claim.holder, "state": state, "url": _plain(claim.url), "done": far.done,
            "total": far.total, "why": why,
        }  # fmt: skip

        async def work(uow: Writing) -> Fetch | None:
            if not await uow.changed(_END, row):
                return None
            return _fetch((await uow.rows(_ONE, path=claim.path.text))[0])

        return await self._store.carry_out("boot-fetch-ended", work)

    async def leave(self, claim: Claim) -> None:
        """Let another member go on with it at once.

        Raises:
            Unavailable: the store did not answer.
        """

        async def work(uow: Writing) -> None:
            await uow.changed(_LEAVE, {"path": claim.path.text, "holder": claim.holder})

        await self._store.carry_out("boot-fetch-left", work)

    async def forget(self) -> None:
        """Drop what ended a day ago.

        Raises:
            Unavailable: the store did not answer.
        """

        async def work(uow: Writing) -> None:
            await uow.changed(_FORGET, {"kept_s": KEPT_S})

        await self._store.carry_out("boot-fetch-forgotten", work)

    async def of(self, path: BootPath) -> Standing | None:
        """Return how far the last of a path is; None: there is none, or it was forgotten.

        Raises:
            Unavailable: the store did not answer.
        """
        found = await self._standing(_ONE, path=path.text)
        return found[0] if found else None

    async def listed(self) -> Sequence[Fetch]:
        """Return all, newest first.

        Raises:
            Unavailable: the store did not answer.
        """
        return [standing.fetch for standing in await self._standing(_ALL, most=_MOST)]

    async def silent(self) -> Sequence[Standing]:
        """Return those that somebody has to go on with, oldest first.

        Raises:
            Unavailable: the store did not answer.
        """
        return [standing for standing in await self._standing(_OPEN, most=_MOST) if standing.is_silent]

    async def _standing(self, query: Query, **values: Any) -> list[Standing]:
        async with self._store.read() as uow:
            now = await uow.now()
            rows = await uow.rows(query, **values)
        return [
            Standing(
                _fetch(row),
                row["ended_at"] is None and abs(now - (row["beat_at"] or 0.0)) >= SILENT_S,
                now - row["asked_at"],
            )
            for row in rows
        ]

    def _claimed(self, claim: Claim) -> dict[str, Any]:
        return {"path": claim.path.text, "member": self._member, "holder": claim.holder, "silent_s": SILENT_S}


def _plain(url: str) -> str:
    return Address.parse(url).plain


def _fetch(row: Mapping[str, Any]) -> Fetch:
    return Fetch(
        BootPath(row["path"]), _plain(row["url"]), cast(FetchState, row["state"]), row["member"], row["done_bytes"],
        row["total_bytes"], row["why"], row["started_at"], row["ended_at"],
    )  # fmt: skip
