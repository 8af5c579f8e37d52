"""Writing certificates down, those that come at the same time in one transaction: most of a signing is its commit."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, text, update

from muster.kernel.errors import Conflict
from muster.store.engine import Store, Unit
from muster.store.tables import audit, autosign_tokens, certificates, requests, store_now

_MOST = 64
# Two numbers name the lock, so that it is none of those that one number names; the first is ours.
_TURN = text("SELECT pg_advisory_xact_lock(1297437507, k) FROM unnest(CAST(:keys AS int[])) AS k")

_WAITING = (
    select(requests.c.certname, requests.c.sha256, requests.c.flaw)
    .where(requests.c.certname.in_(bindparam("names", expanding=True)))
    .order_by(requests.c.certname)
    .with_for_update()
)
_LIVE = select(certificates.c.certname).where(
    certificates.c.certname.in_(bindparam("names", expanding=True)), certificates.c.state == "live"
)
_SERVED = delete(requests).where(requests.c.certname.in_(bindparam("names", expanding=True)))
_CERTIFICATES = insert(certificates).values(issued_at=store_now())
_AUDIT = insert(audit).values(at=store_now())
_USED = (
    update(autosign_tokens)
    .where(
        autosign_tokens.c.id == bindparam("token"),
        autosign_tokens.c.certname == bindparam("name"),
        autosign_tokens.c.used_at.is_(None),
        autosign_tokens.c.expires_at > store_now(),
    )
    .values(used_at=store_now())
)


@dataclass(frozen=True)
class Issue:
    """One certificate that is to be written down.

    Attributes:
        row: its columns, less the time it was issued.
        told: its columns in the audit, less the time.
        token: to be used up with it.
        request_sha256: the waiting request it was made from; None when it was made from one that never waited.
        own_request_sha256: the request it was made from where that takes the place of any that waits under its name; None:
            it has to give way to that.
    """

    certname: str
    row: dict[str, Any]
    told: dict[str, Any]
    token: str | None
    request_sha256: str | None
    own_request_sha256: str | None = None

    def supersedes(self, waiting: Any) -> bool:
        """Whether it takes the place of somebody else's request, rather than serving it."""
        own = self.own_request_sha256
        return own is not None and waiting is not None and waiting.flaw is None and waiting.sha256 != own


@dataclass(frozen=True)
class _Waiting:
    issue: Issue
    answer: asyncio.Future[None]

    def end(self, refusal: BaseException | None) -> None:
        """Tell the caller, unless it has gone."""
        if self.answer.done():
            return
        if refusal is None:
            self.answer.set_result(None)
        else:
            self.answer.set_exception(refusal)


class Issuing:
    """Writes certificates down.

    Concurrency: any number of tasks of one loop; while one transaction runs, what else comes waits and goes with the next.
    A caller that goes away takes nothing with it: what others wait for is written by a task of its own.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Waiting] = []
        self._writing: asyncio.Task[None] | None = None

    async def issue(self, one: Issue) -> None:
        """Return when it is committed.

        Raises:
            Conflict: the name has a certificate or a request of its own, the token was used, or the request changed;
                nothing was changed for this one.
            Unavailable: the store did not answer.
        """
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(one, answer))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="certificates written down")
        await answer

    async def _write(self) -> None:
        while self._waiting:
            # One of a name at a time: the second has to see what became of the first.
            by_name: dict[str, _Waiting] = {}
            for one in self._waiting:
                if len(by_name) < _MOST:
                    by_name.setdefault(one.issue.certname, one)
            # In one order on every member, or two of them could wait for each other's names.
            some = [by_name[name] for name in sorted(by_name)]
            self._waiting = [w for w in self._waiting if by_name.get(w.issue.certname) is not w]
            try:
                await self._settle(some)
            except BaseException as e:
                # boundary: whatever it was, nobody may wait for ever.
                for one in some:
                    one.end(e if isinstance(e, Exception) else asyncio.CancelledError())
                if not isinstance(e, Exception):
                    raise

    async def _settle(self, some: Sequence[_Waiting]) -> None:
        try:
            refusals = await self._committed([w.issue for w in some])
        except Conflict as e:
            if len(some) == 1:
                some[0].end(e)
                return
            # Another member wrote one of these names meanwhile, and that undid all: each by itself from here.
            for one in some:
                await self._settle([one])
            return
        for one, refusal in zip(some, refusals, strict=True):
            one.end(refusal)

    async def _committed(self, some: Sequence[Issue]) -> list[Conflict | None]:
        async with self._store.write("sign") as uow:
            waiting = await _waiting(uow, some)
            refusals = await _judged(uow, some, waiting)
            told = {i.certname: _told(i, waiting.get(i.certname)) for i in some}
            taken = [i for i, refusal in zip(some, refusals, strict=True) if refusal is None]
            if taken:
                await uow.connection.execute(_CERTIFICATES, [i.row for i in taken])
                await uow.connection.execute(_AUDIT, [t for i in taken for t in told[i.certname]])
        return refusals


async def took_turn(uow: Unit, certnames: Iterable[str]) -> None:
    """Return when nobody else submits or issues anything under these names; nobody will until the unit ends.

    A request and a certificate stand in different tables: written at the same moment, neither would see the other. SQLite's
    write transaction keeps everybody out anyway.

    Concurrency: taken before any row, and after the list's; in one order on every member.
    """
    if uow.connection.dialect.name != "postgresql":
        return
    digests = (hashlib.sha256(name.encode()).digest() for name in certnames)
    # Two names that share a number only wait for each other.
    keys = sorted({int.from_bytes(d[:4], "big", signed=True) for d in digests})
    await uow.connection.execute(_TURN, {"keys": keys})


async def _waiting(uow: Unit, some: Sequence[Issue]) -> dict[str, Any]:
    """Take the names' turns; return what waits under them."""
    await took_turn(uow, [i.certname for i in some])
    names = {"names": [i.certname for i in some]}
    return {r.certname: r for r in await uow.connection.execute(_WAITING, names)}


def _told(one: Issue, waiting: Any) -> list[dict[str, Any]]:
    """Return the rows of the audit: a request that has to give way is said first."""
    gave_way = {**one.told, "event": "superseded", "serial": None}
    return [gave_way, one.told] if one.supersedes(waiting) else [one.told]


async def _judged(uow: Unit, some: Sequence[Issue], waiting: Mapping[str, Any]) -> list[Conflict | None]:
    """Say for each why it may not be written; remove the requests and use the tokens of the others."""
    names = {"names": [i.certname for i in some]}
    live = set((await uow.connection.execute(_LIVE, names)).scalars())
    refusals = [await _refusal(uow, i, waiting.get(i.certname), i.certname in live) for i in some]
    served = [
        i.certname for i, refusal in zip(some, refusals, strict=True) if refusal is None and i.certname in waiting
    ]
    if served:
        await uow.connection.execute(_SERVED, {"names": served})
    return refusals


async def _refusal(uow: Unit, one: Issue, waiting: Any, has_certificate: bool) -> Conflict | None:
    if one.request_sha256 is not None:
        if waiting is None or waiting.sha256 != one.request_sha256:
            return Conflict(f"The request of {one.certname} changed while it was signed")
    elif waiting is not None and waiting.flaw is None and one.own_request_sha256 is None:
        return Conflict(f"{one.certname} has a certificate request")
    if has_certificate:
        return Conflict(f"{one.certname} has a certificate")
    if one.token is not None:
        used = await uow.connection.execute(_USED, {"token": one.token, "name": one.certname})
        if used.rowcount != 1:
            return Conflict(f"The token for {one.certname} was used, withdrawn or has expired")
    return None
