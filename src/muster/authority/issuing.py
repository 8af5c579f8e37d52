"""Writing certificates down, those that come at the same time in one transaction: most of a signing is its commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import bindparam, delete, insert, select, update

from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.store.engine import Store, Unit
from muster.store.tables import audit, autosign_tokens, certificates, requests, store_now

_MOST = 64

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


@dataclass
class Issue:
    """One certificate that is to be written down.

    Attributes:
        row: its columns, less the time it was issued.
        told: its columns in the audit, less the time.
        token: to be used up with it.
        request_sha256: the waiting request it was made from; None when it was made from one that never waited.
    """

    certname: str
    row: dict[str, Any]
    told: dict[str, Any]
    token: str | None
    request_sha256: str | None
    done: bool = False
    refusal: MusterError | None = field(default=None, repr=False)


class Issuing:
    """Writes certificates down.

    Concurrency: any number of tasks; while one transaction runs, what else comes waits and goes with the next.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = asyncio.Lock()
        self._waiting: list[Issue] = []

    async def issue(self, one: Issue) -> None:
        """Return when it is committed.

        Raises:
            Conflict: the name has a certificate or a request of its own, the token was used, or the request changed;
                nothing was changed for this one.
            Unavailable: the store did not answer.
        """
        self._waiting.append(one)
        try:
            while not one.done:
                async with self._turn:
                    if not one.done:
                        await self._issue_with_others(one)
        finally:
            self._waiting[:] = [i for i in self._waiting if i is not one]
        if one.refusal is not None:
            raise one.refusal

    async def _issue_with_others(self, one: Issue) -> None:
        batch = {i.certname: i for i in reversed(self._waiting) if i.certname != one.certname}
        # In one order on every member, or two of them could wait for each other's names.
        some = sorted([one, *list(batch.values())[: _MOST - 1]], key=lambda i: i.certname)
        refusals: Sequence[MusterError | None]
        try:
            refusals = await self._committed(some)
        except Conflict as e:
            if len(some) > 1:
                # Another member wrote one of these names meanwhile, which undid all: each by itself from here.
                await self._issue_alone(one)
                return
            refusals = [e]
        except Unavailable as e:
            # For all of them: each has waited its time.
            refusals = [e] * len(some)
        for issue, refusal in zip(some, refusals, strict=True):
            self._end(issue, refusal)

    async def _issue_alone(self, one: Issue) -> None:
        try:
            (refusal,) = await self._committed([one])
        except Conflict as e:
            refusal = e
        self._end(one, refusal)

    def _end(self, one: Issue, refusal: MusterError | None) -> None:
        one.done, one.refusal = True, refusal
        self._waiting[:] = [i for i in self._waiting if i is not one]

    async def _committed(self, some: Sequence[Issue]) -> list[Conflict | None]:
        async with self._store.write() as uow:
            refusals = await _judged(uow, some)
            taken = [i for i, refusal in zip(some, refusals, strict=True) if refusal is None]
            if taken:
                await uow.connection.execute(_CERTIFICATES, [i.row for i in taken])
                await uow.connection.execute(_AUDIT, [i.told for i in taken])
        return refusals


async def _judged(uow: Unit, some: Sequence[Issue]) -> list[Conflict | None]:
    """Say for each why it may not be written; remove the requests and use the tokens of the others."""
    names = {"names": [i.certname for i in some]}
    waiting = {r.certname: r for r in await uow.connection.execute(_WAITING, names)}
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
    elif waiting is not None and waiting.flaw is None:
        return Conflict(f"{one.certname} has a certificate request")
    if has_certificate:
        return Conflict(f"{one.certname} has a certificate")
    if one.token is not None:
        used = await uow.connection.execute(_USED, {"token": one.token, "name": one.certname})
        if used.rowcount != 1:
            return Conflict(f"The token for {one.certname} was used, withdrawn or has expired")
    return None
