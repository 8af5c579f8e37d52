"""The ledger: every certificate, request and revocation of the Puppet CA, in short transactions.

Signing happens outside them; what a caller is told has been committed. Revocations and the list that publishes them change
together under the list's row lock, so number and content never disagree (docs/facts/puppet-ca.md §7.2, §7.3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import and_, delete, func, insert, select, update

from muster.authority.ledger.entries import Builder, Entry, Outdated, Pending, certificate_row, serial_text
from muster.authority.ledger.issuing import Issue, Issuing, took_turn
from muster.authority.ledger.lookup import (
    AUTHORITY,
    LIVE_PEM,
    NUMBER,
    REVOKED,
    Known,
    Published,
    certificate_in,
    chain_in,
    known_in,
    published_in,
    refuse_unwritable,
    request_in,
    waiting_in,
)
from muster.authority.ledger.publishing import held, later, locked, publish
from muster.authority.ledger.reading import every_revoked_in, history_in, statuses_in, successor_in
from muster.kernel.errors import Conflict, Misconfigured, NotFound
from muster.store.engine import Store, Unit
from muster.store.schema import Absent
from muster.store.tables import (
    audit,
    authorities,
    certificates,
    crls,
    requests,
    revocations,
    store_now,
)

_CHUNK = 500
_REFUSED = "renewal refused"


async def refuse_unless_empty(uow: Unit) -> None:
    """As :meth:`Ledger.refuse_unless_empty`, within the unit that begins a ledger."""
    if (await uow.connection.execute(select(authorities.c.id).where(authorities.c.id == AUTHORITY))).first():
        raise Conflict("The store holds a Puppet CA already; nothing was changed")


class Ledger:
    """The ledger in a store. ``member`` is who writes, for the audit."""

    def __init__(self, store: Store, member: str) -> None:
        self._store = store
        self._member = member
        self._issuing = Issuing(store)

    async def chain(self) -> str | None:
        """Return the CA's bundle, None when there is no CA yet.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await chain_in(uow)

    async def refuse_unless_empty(self) -> None:
        """Refuse where there is a CA: nothing may be written, not even a key, before that is known.

        Raises:
            Conflict: there is one.
        """
        try:
            async with self._store.read() as uow:
                await refuse_unless_empty(uow)
        except Absent:
            # This call may not make it, and where there is none, there is no CA either.
            return

    async def create(self, chain_pem: str, *, build: Builder, ancestors_pem: str = "") -> None:
        """Begin an empty ledger.

        Raises:
            Conflict: there is a CA already; nothing was changed.
        """
        async with self._store.write("found") as uow:
            await refuse_unless_empty(uow)
            values = {"id": AUTHORITY, "chain_pem": chain_pem, "created_at": store_now()}
            await uow.connection.execute(insert(authorities).values(**values))
            own, infra, next_update = await asyncio.to_thread(build, (), 0)
            await uow.connection.execute(
                insert(crls).values(
                    authority=AUTHORITY, number=0, own_pem=own, infra_pem=infra, ancestors_pem=ancestors_pem,
                    updated_at=store_now(), next_update=next_update,
                )
            )  # fmt: skip
            await self.record(uow, "created")

    async def known(self, certname: str) -> Known | None:
        """Return what there is under a name, the certificate before a request; None when there is nothing."""
        async with self._store.read() as uow:
            return await known_in(uow, certname)

    async def certificate(self, certname: str) -> str | None:
        """Return the live certificate's PEM."""
        refuse_unwritable(certname)
        found = await self._store.ask(LIVE_PEM, certname=certname)
        return str(found[0]["pem"]) if found else None

    async def request(self, certname: str) -> Known | None:
        """Return the pending request, None when there is none."""
        refuse_unwritable(certname)
        async with self._store.read() as uow:
            return await request_in(uow, certname)

    async def statuses(self, state: str | None) -> list[str]:
        """Return every status as JSON, pending requests first; ``state`` picks ``requested``, ``signed`` or ``revoked``."""
        async with self._store.read() as uow:
            return await statuses_in(uow, state)

    async def submit(self, pending: Pending, *, limit: int, per_source: int = 0, actor: str = "") -> None:
        """Keep a request for an administrator; ``per_source`` is how many may wait of its source, 0: any number.

        ``actor`` is who asked, for the audit, where that says more than the source.

        Raises:
            Conflict: the name has a certificate or a request, or too many requests wait; nothing was changed.
        """
        async with self._store.write("request") as uow:
            waiting = await waiting_in(uow)
            if waiting >= limit:
                raise Conflict(f"{waiting} certificate requests wait for an administrator already; no more are taken")
            if per_source:
                own = select(func.count()).select_from(requests).where(requests.c.source == pending.source)
                if (count := (await uow.connection.execute(own)).scalar_one()) >= per_source:
                    raise Conflict(
                        f"{count} certificate requests of {pending.source} wait for an administrator already; no more are "
                        "taken from there (authority.pending_per_source)"
                    )
            await took_turn(uow, [pending.certname])
            await uow.connection.execute(
                delete(requests).where(requests.c.certname == pending.certname, requests.c.flaw.is_not(None))
            )
            await _insert_request(uow, pending)
            # Looked at now: a certificate of the name may have been issued while this waited for its turn.
            if await certificate_in(uow, pending.certname):
                raise Conflict(f"{pending.certname} has a certificate by now")
            await self.record(uow, "requested", pending.certname, actor=actor or pending.source)

    async def waiting(self) -> int:
        """Return how many requests wait."""
        async with self._store.read() as uow:
            return await waiting_in(uow)

    async def expire(self, *, older_s: float) -> int:
        """Throw away the requests that have waited longer; return how many, each is in the audit."""
        late = requests.c.submitted_at < store_now() - older_s
        async with self._store.read() as uow:
            # Nearly always none: only then is anybody kept from writing.
            if (await uow.connection.execute(select(requests.c.certname).where(late).limit(1))).first() is None:
                return 0
        async with self._store.write("expire") as uow:
            gone = await uow.connection.execute(delete(requests).where(late).returning(requests.c.certname))
            names = list(gone.scalars())
            if names:
                about = [(name, None) for name in sorted(names)]
                await self._record_all(uow, "expired", about, "", await uow.now())
        return len(names)

    async def issue(
        self,
        entry: Entry,
        *,
        actor: str,
        token: str | None = None,
        request_sha256: str | None = None,
        own_request_sha256: str | None = None,
    ) -> None:
        """Write a certificate down; the request of its name goes.

        A ``token`` is used up in the same transaction; ``request_sha256`` is the request it was made from, which must still
        be the one that waits; without it none may wait but one with a flaw. With ``own_request_sha256``, the request it was
        made from, another one that waits gives way, and the audit says so.

        Raises:
            Conflict: the name has a live certificate or a request, the token was used, or the request changed; nothing
                was changed, and the certificate must not leave this process.
        """
        row = certificate_row(entry, self._member)
        told = self._told("signed", entry.certname, entry.serial, actor)
        await self._issuing.issue(Issue(entry.certname, row, told, token, request_sha256, own_request_sha256))

    async def renew(self, entry: Entry, old_serial: int, *, actor: str) -> None:
        """Write a certificate down in place of the live one, which stays valid.

        Raises:
            Conflict: the old one is revoked or no longer live; nothing was changed.
        """
        old = serial_text(old_serial)
        async with self._store.write("renew") as uow:
            # Or a revocation of the name at the same moment would miss the new one.
            await held(uow)
            if await _is_revoked(uow, old):
                raise Conflict(f"The certificate of {entry.certname} is revoked")
            live = certificates.update().where(_live(entry.certname)).values(state="superseded")
            if (await uow.connection.execute(live.where(certificates.c.serial == old))).rowcount != 1:
                raise Conflict(f"The certificate of {entry.certname} was replaced meanwhile")
            await _insert_certificate(uow, entry, self._member)
            await self.record(uow, "renewed", entry.certname, serial=entry.serial, actor=actor)

    async def successor(self, serial: int) -> str | None:
        """Return the live certificate of the name that a superseded one has, in PEM; None when either is revoked."""
        async with self._store.read() as uow:
            return await successor_in(uow, serial)

    async def refused(self, certname: str, serial: int, *, actor: str) -> None:
        """Write down that a certificate is not renewed: once, for its agent asks again with every run."""
        told = (audit.c.certname == certname, audit.c.event == _REFUSED, audit.c.serial == serial_text(serial))
        async with self._store.read() as uow:
            if (await uow.connection.execute(select(audit.c.id).where(*told).limit(1))).first() is not None:
                return
        async with self._store.write("refuse") as uow:
            await self.record(uow, _REFUSED, certname, serial=serial, actor=actor)

    async def replace(self, entry: Entry, *, actor: str) -> None:
        """Write a certificate down in place of whatever is live under its name, which stays valid; its request goes."""
        async with self._store.write("replace") as uow:
            # Or a revocation of the name at the same moment would miss the new one.
            await held(uow)
            await took_turn(uow, [entry.certname])
            live = update(certificates).where(_live(entry.certname)).values(state="superseded")
            await uow.connection.execute(live)
            await uow.connection.execute(delete(requests).where(requests.c.certname == entry.certname))
            await _insert_certificate(uow, entry, self._member)
            await self.record(uow, "signed", entry.certname, serial=entry.serial, actor=actor)

    async def revoke(self, certnames: Iterable[str], *, build: Builder, actor: str, remove: bool = False) -> list[str]:
        """Revoke every certificate of these names that has not ended, and publish one new list if any was new.

        With ``remove``, certificates and requests of those that had a certificate are removed, too.

        Returns:
            The names that have no certificate; nothing was done about them.
        """
        names = list(dict.fromkeys(certnames))
        refuse_unwritable(*names)
        async with self._store.write("revoke") as uow:
            published = await locked(uow)
            now = await uow.now()
            live: set[str] = set()
            unended: dict[str, str] = {}
            for some in _chunks(names):
                columns = (
                    certificates.c.serial,
                    certificates.c.certname,
                    certificates.c.state,
                    certificates.c.not_after,
                )
                for row in await uow.connection.execute(select(*columns).where(certificates.c.certname.in_(some))):
                    if row.state == "live":
                        live.add(row.certname)
                    if row.state == "live" or row.not_after > now:
                        unended[row.serial] = row.certname
            known = [n for n in names if n in live]
            fresh = await self._revoked(uow, {s: n for s, n in unended.items() if n in live}, actor)
            if remove:
                for some in _chunks(known):
                    await self._removed(uow, some, actor)
            if fresh:
                await publish(uow, published, build)
        return [n for n in names if n not in live]

    async def republish(self, *, build: Builder, before: float, outdated: Outdated | None = None) -> bool:
        """Publish the lists anew when they end before that moment, or are ``outdated``; whether it was done."""
        async with self._store.write("list") as uow:
            published = await locked(uow)
            if published.next_update >= before and (
                outdated is None or not await asyncio.to_thread(outdated, await every_revoked_in(uow), published)
            ):
                return False
            await publish(uow, published, build)
            await self.record(uow, "list renewed")
            return True

    async def remove(self, certname: str, *, actor: str) -> None:
        """Remove a name's certificate and request without revoking anything.

        Raises:
            NotFound: there is neither.
        """
        refuse_unwritable(certname)
        async with self._store.write("remove") as uow:
            if not await self._removed(uow, [certname], actor):
                raise NotFound(f"{certname} has neither a certificate nor a request")

    async def reject(self, certname: str, *, actor: str) -> None:
        """Remove a pending request.

        Raises:
            NotFound: there is none.
        """
        refuse_unwritable(certname)
        async with self._store.write("reject") as uow:
            gone = delete(requests).where(requests.c.certname == certname)
            if (await uow.connection.execute(gone)).rowcount == 0:
                raise NotFound(f"{certname} has no certificate request")
            await self.record(uow, "rejected", certname, actor=actor)

    async def knows(self, certname: str, serial: int) -> bool:
        """Whether a certificate of that name and serial was written down."""
        query = select(certificates.c.serial).where(
            certificates.c.certname == certname, certificates.c.serial == serial_text(serial)
        )
        async with self._store.read() as uow:
            return (await uow.connection.execute(query)).first() is not None

    async def is_revoked(self, serial: int) -> bool:
        """Whether a serial is revoked, now and everywhere."""
        return bool(await self._store.ask(REVOKED, serial=serial_text(serial)))

    async def published(self) -> Published:
        """Return the lists in force.

        Raises:
            Misconfigured: there is no CA.
        """
        async with self._store.read() as uow:
            return await published_in(uow)

    async def number(self) -> tuple[int, float]:
        """Return the list's number and when it changed: what a member that has it needs to know."""
        found = await self._store.ask(NUMBER, authority=AUTHORITY)
        if not found:
            raise Misconfigured("The store holds no Puppet CA; muster ca init or muster ca import makes one")
        return found[0]["number"], found[0]["updated_at"]

    async def replace_ancestors(self, pem: str, *, expected: str, actor: str) -> None:
        """Replace the ancestors' lists.

        Raises:
            Conflict: somebody else did meanwhile.
        """
        async with self._store.write("ancestors") as uow:
            before = await locked(uow)
            if before.ancestors_pem != expected:
                raise Conflict("Somebody replaced the ancestors' lists meanwhile")
            values = {"ancestors_pem": pem, "updated_at": await later(uow, before)}
            await uow.connection.execute(update(crls).where(crls.c.authority == AUTHORITY).values(**values))
            await self.record(uow, "ancestors' lists replaced", actor=actor)

    async def history(self, certname: str | None = None, *, most: int) -> list[dict[str, Any]]:
        """Return what was done, the newest first; to one name, or to all."""
        if certname is not None:
            refuse_unwritable(certname)
        async with self._store.read() as uow:
            return await history_in(uow, certname, most=most)

    async def record(
        self, uow: Unit, event: str, certname: str | None = None, *, serial: int | None = None, actor: str = ""
    ) -> None:
        """Write down what was done, in the transaction that does it."""
        told = self._told(event, certname, serial, actor)
        await uow.connection.execute(insert(audit).values(**told, at=store_now()))

    def _told(self, event: str, certname: str | None, serial: int | None, actor: str) -> dict[str, Any]:
        text = serial_text(serial) if serial is not None else None
        return {"event": event, "certname": certname, "actor": actor, "member": self._member, "serial": text}

    async def _revoked(self, uow: Unit, serials: Mapping[str, str], actor: str) -> int:
        """Write revocations down; return how many are new. The list's row is locked, so nobody else does it now."""
        fresh: list[str] = []
        for some in _chunks(sorted(serials)):
            query = select(revocations.c.serial).where(revocations.c.serial.in_(some))
            already = set((await uow.connection.execute(query)).scalars())
            fresh += [s for s in some if s not in already]
        if not fresh:
            return 0
        at = await uow.now()
        rows = [{"serial": s, "certname": serials[s], "revoked_at": at} for s in fresh]
        await uow.connection.execute(insert(revocations), rows)
        await self._record_all(uow, "revoked", [(serials[s], s) for s in fresh], actor, at)
        return len(fresh)

    async def _removed(self, uow: Unit, names: Sequence[str], actor: str) -> int:
        """Hide certificates and remove requests; return how many there were."""
        there = and_(certificates.c.certname.in_(names), certificates.c.state == "live")
        gone = (await uow.connection.execute(update(certificates).where(there).values(state="deleted"))).rowcount
        gone += (await uow.connection.execute(delete(requests).where(requests.c.certname.in_(names)))).rowcount
        if gone:
            await self._record_all(uow, "removed", [(n, None) for n in names], actor, await uow.now())
        return gone

    async def _record_all(
        self, uow: Unit, event: str, about: Sequence[tuple[str, str | None]], actor: str, at: float
    ) -> None:
        rows = [
            {"event": event, "certname": n, "serial": s, "actor": actor, "member": self._member, "at": at}
            for n, s in about
        ]
        await uow.connection.execute(insert(audit), rows)


def _chunks(names: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the names some at a time: a statement has room for so many parameters only."""
    for start in range(0, len(names), _CHUNK):
        yield names[start : start + _CHUNK]


def _live(certname: str) -> Any:
    return and_(certificates.c.certname == certname, certificates.c.state == "live")


async def _insert_certificate(uow: Unit, entry: Entry, member: str) -> None:
    row = certificate_row(entry, member)
    await uow.connection.execute(insert(certificates).values(**row, issued_at=store_now()))


async def _insert_request(uow: Unit, pending: Pending) -> None:
    values = {name: getattr(pending, name) for name in Pending.__dataclass_fields__}
    await uow.connection.execute(insert(requests).values(**values, submitted_at=store_now()))


async def _is_revoked(uow: Unit, serial: str) -> bool:
    return bool(await uow.rows(REVOKED, serial=serial))
