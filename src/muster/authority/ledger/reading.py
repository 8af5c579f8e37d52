"""What stands in the ledger, to read where more than one name or table is asked: statuses, history, all that is revoked."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Select, exists, select

from muster.authority.ledger.entries import Revoked, serial_text
from muster.store.engine import Unit
from muster.store.tables import audit, certificates, requests, revocations


async def statuses_in(uow: Unit, state: str | None) -> list[str]:
    """Return every status as JSON, pending requests first; ``state`` picks ``requested``, ``signed`` or ``revoked``."""
    out: list[str] = []
    if state in (None, "requested"):
        rows = await uow.connection.execute(select(requests.c.status).order_by(requests.c.certname))
        out += [f'{{"state":"requested",{r.status[1:]}' for r in rows]
    if state != "requested":
        rows = await uow.connection.execute(_with_revocation(state))
        out += [f'{{"state":"{"revoked" if r.revoked else "signed"}",{r.status[1:]}' for r in rows]
    return out


async def successor_in(uow: Unit, serial: int) -> str | None:
    """Return the live certificate of the name that a superseded one has, in PEM; None when either is revoked."""
    old, new = certificates.alias("old"), certificates.alias("new")
    revoked = exists().where(revocations.c.serial.in_((old.c.serial, new.c.serial)))
    query = (
        select(new.c.pem)
        .join_from(old, new, old.c.certname == new.c.certname)
        .where(old.c.serial == serial_text(serial), old.c.state == "superseded", new.c.state == "live", ~revoked)
    )
    return (await uow.connection.execute(query)).scalar_one_or_none()


async def history_in(uow: Unit, certname: str | None, *, most: int) -> list[dict[str, Any]]:
    """Return what was done, the newest first; to one name, or to all."""
    query = select(audit).order_by(audit.c.id.desc()).limit(most)
    if certname is not None:
        query = query.where(audit.c.certname == certname)
    rows = (await uow.connection.execute(query)).mappings().all()
    return [
        {**{k: r[k] for k in ("event", "certname", "serial", "actor", "member")}, "at": _moment(r["at"])} for r in rows
    ]


async def every_revoked_in(uow: Unit) -> list[Revoked]:
    """Return all that is revoked, in the order in which it was."""
    query = select(revocations.c.serial, revocations.c.revoked_at, revocations.c.certname)
    rows = await uow.connection.execute(query.order_by(revocations.c.revoked_at, revocations.c.serial))
    return [Revoked(int(r.serial, 16), datetime.fromtimestamp(r.revoked_at, UTC), r.certname) for r in rows]


def _with_revocation(state: str | None) -> Select[Any]:
    revoked = exists().where(revocations.c.serial == certificates.c.serial)
    query = select(certificates.c.status, revoked.label("revoked")).where(certificates.c.state == "live")
    if state == "signed":
        query = query.where(~revoked)
    elif state == "revoked":
        query = query.where(revoked)
    return query.order_by(certificates.c.certname)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
