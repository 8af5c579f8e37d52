"""Writing certificates down, those that come at the same time in one transaction: most of a signing is its commit."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from muster.kernel.errors import Conflict
from muster.store.engine import Store
from muster.store.reading import Dialect, Query
from muster.store.writing import Change, Writing

_MOST = 64
# Two numbers name the lock, so that it is none of those that one number names; the first is ours.
_TURN = Change("SELECT pg_advisory_xact_lock(1297437507, k) FROM unnest(CAST(:keys AS int[])) AS k")
# The requests are locked, in one order on every member; what is live has no digest.
_STANDING: Mapping[Dialect, Query] = {
    "sqlite": Query(
        "SELECT certname, sha256, flaw FROM requests WHERE certname IN (SELECT value FROM json_each(:names))"
        " UNION ALL SELECT certname, NULL, NULL FROM certificates"
        " WHERE certname IN (SELECT value FROM json_each(:names)) AND state = 'live'"
    ),
    "postgresql": Query(
        "SELECT * FROM"
        " (SELECT certname, sha256, flaw FROM requests WHERE certname = ANY(:names) ORDER BY certname FOR UPDATE) AS waiting"
        " UNION ALL SELECT certname, NULL, NULL FROM certificates WHERE certname = ANY(:names) AND state = 'live'"
    ),
}
_SERVED = Change("DELETE FROM requests WHERE certname = :certname")
_CERTIFICATES = Change(
    "INSERT INTO certificates (serial, certname, pem, not_before, not_after, state, status, issued_by, issued_at) VALUES"
    " (:serial, :certname, :pem, :not_before, :not_after, :state, :status, :issued_by, {now})"
)
_AUDIT = Change(
    "INSERT INTO audit (at, event, certname, serial, actor, member) VALUES"
    " ({now}, :event, :certname, :serial, :actor, :member)"
)
_USED = Change(
    "UPDATE autosign_tokens SET used_at = {now}"
    " WHERE id = :token AND certname = :name AND used_at IS NULL AND expires_at > {now}"
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

    def supersedes(self, waiting: _Request | None) -> bool:
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


class _Batch:
    """What goes into one transaction, chosen when that begins: what came while it waited to begin goes with it.

    Concurrency: chosen in whatever thread carries the transaction out.
    """

    def __init__(self, queue: deque[_Waiting]) -> None:
        self._queue = queue
        self._lock = threading.Lock()
        self._chosen: list[_Waiting] | None = None

    def chosen(self) -> list[_Waiting]:
        """Take some of those that wait, in the order of their names, at the first call; nobody else takes them."""
        with self._lock:
            if self._chosen is None:
                self._chosen = self._taken()
            return self._chosen

    def _taken(self) -> list[_Waiting]:
        by_name: dict[str, _Waiting] = {}
        later = []
        while self._queue and len(by_name) < _MOST:
            one = self._queue.popleft()
            # One of a name at a time: the second has to see what became of the first.
            if by_name.setdefault(one.issue.certname, one) is not one:
                later.append(one)
        self._queue.extendleft(reversed(later))
        # In one order on every member, or two of them could wait for each other's names.
        return [by_name[name] for name in sorted(by_name)]


class Issuing:
    """Writes certificates down.

    Concurrency: any number of tasks of one loop; while one transaction runs, what else comes waits and goes with the next.
    A caller that goes away takes nothing with it: what others wait for is written by a task of its own.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: deque[_Waiting] = deque()
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
            batch = _Batch(self._waiting)
            try:
                await self._settle(batch.chosen)
            except BaseException as e:
                # boundary: whatever it was, nobody may wait for ever. It may have come before anything was chosen.
                for one in batch.chosen():
                    one.end(e if isinstance(e, Exception) else asyncio.CancelledError())
                if not isinstance(e, Exception):
                    raise

    async def _settle(self, choose: Callable[[], list[_Waiting]]) -> None:
        try:
            refusals = await self._committed(choose)
        except Conflict as e:
            some = choose()
            if len(some) == 1:
                some[0].end(e)
                return
            # Another member wrote one of these names meanwhile, and that undid all: each by itself from here.
            for one in some:
                await self._settle(partial(list, (one,)))
            return
        for one, refusal in zip(choose(), refusals, strict=True):
            one.end(refusal)

    async def _committed(self, choose: Callable[[], list[_Waiting]]) -> list[Conflict | None]:
        async def written(uow: Writing) -> list[Conflict | None]:
            some = [w.issue for w in choose()]
            standing = await _standing(uow, [i.certname for i in some])
            refusals = await _judged(uow, some, standing)
            taken = [i for i, refusal in zip(some, refusals, strict=True) if refusal is None]
            if taken:
                await uow.change(_CERTIFICATES, [i.row for i in taken])
                await uow.change(_AUDIT, [t for i in taken for t in _told(i, standing.waiting.get(i.certname))])
            return refusals

        return await self._store.carry_out("sign", written)


async def took_turn(uow: Writing, certnames: Iterable[str]) -> None:
    """Return when nobody else submits or issues anything under these names; nobody will until the unit ends.

    A request and a certificate stand in different tables: written at the same moment, neither would see the other. SQLite's
    write transaction keeps everybody out anyway.

    Concurrency: taken before any row, and after the list's; in one order on every member.
    """
    if uow.dialect != "postgresql":
        return
    digests = (hashlib.sha256(name.encode()).digest() for name in certnames)
    # Two names that share a number only wait for each other.
    keys = sorted({int.from_bytes(d[:4], "big", signed=True) for d in digests})
    await uow.change(_TURN, [{"keys": keys}])


class _Request(NamedTuple):
    """A request that waits."""

    sha256: str
    flaw: str | None


@dataclass(frozen=True)
class _Standing:
    """What stands under some names."""

    waiting: Mapping[str, _Request]
    live: frozenset[str]


async def _standing(uow: Writing, certnames: Sequence[str]) -> _Standing:
    """Take the names' turns; return what stands under them."""
    await took_turn(uow, certnames)
    names: Any = json.dumps(certnames) if uow.dialect == "sqlite" else list(certnames)
    found = await uow.rows(_STANDING[uow.dialect], names=names)
    return _Standing(
        {r["certname"]: _Request(r["sha256"], r["flaw"]) for r in found if r["sha256"] is not None},
        frozenset(r["certname"] for r in found if r["sha256"] is None),
    )


def _told(one: Issue, waiting: _Request | None) -> list[dict[str, Any]]:
    """Return the rows of the audit: a request that has to give way is said first."""
    gave_way = {**one.told, "event": "superseded", "serial": None}
    return [gave_way, one.told] if one.supersedes(waiting) else [one.told]


async def _judged(uow: Writing, some: Sequence[Issue], standing: _Standing) -> list[Conflict | None]:
    """Say for each why it may not be written; remove the requests and use the tokens of the others."""
    waiting = standing.waiting
    refusals = [await _refusal(uow, i, waiting.get(i.certname), i.certname in standing.live) for i in some]
    served = [
        {"certname": i.certname}
        for i, refusal in zip(some, refusals, strict=True)
        if refusal is None and i.certname in waiting
    ]
    if served:
        await uow.change(_SERVED, served)
    return refusals


async def _refusal(uow: Writing, one: Issue, waiting: _Request | None, has_certificate: bool) -> Conflict | None:
    if one.request_sha256 is not None:
        if waiting is None or waiting.sha256 != one.request_sha256:
            return Conflict(f"The request of {one.certname} changed while it was signed")
    elif waiting is not None and waiting.flaw is None and one.own_request_sha256 is None:
        return Conflict(f"{one.certname} has a certificate request")
    if has_certificate:
        return Conflict(f"{one.certname} has a certificate")
    if one.token is not None and await uow.changed(_USED, {"token": one.token, "name": one.certname}) != 1:
        return Conflict(f"The token for {one.certname} was used, withdrawn or has expired")
    return None
