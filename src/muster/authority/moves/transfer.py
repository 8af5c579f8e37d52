"""A puppetserver's CA directory, taken into the ledger, and written from it.

Read first (:func:`~muster.authority.moves.directory.read_directory`), decided second, written last: each in one
transaction. Source: docs/facts/puppet-ca.md §2.5, §7.8.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import insert, select

from muster.authority.ledger.entries import Entry, certificate_row, pending_of, serial_text
from muster.authority.ledger.ledger import Ledger, refuse_unless_empty
from muster.authority.ledger.lookup import AUTHORITY
from muster.authority.moves.directory import BATCH, LARGEST_COUNTER, Found, Progress
from muster.authority.x509 import profile
from muster.authority.x509.profile import CAKey, Issuer
from muster.kernel.errors import Conflict, Misconfigured
from muster.kernel.files import give_to_owner, make_directory, write_atomically
from muster.store.engine import Store
from muster.store.tables import authorities, certificates, crls, requests, revocations, store_now

# A hundred thousand certificates take three seconds; a slow disk must not make an import impossible.
_IMPORT_LIMIT_S = 600.0


async def take_over(
    store: Store,
    found: Found,
    *,
    member: str,
    key: CAKey,
    crl_ttl_days: int,
    infra_hosts: Collection[str] = (),
    progress: Progress = lambda *_: None,
) -> None:
    """Write a CA directory into an empty ledger, all of it or nothing.

    ``infra_hosts`` are the settings': the short list that agents get then must be there before the first revocation.

    Raises:
        Conflict: there is a CA already; nothing was changed.
    """
    ledger = Ledger(store, member)
    # The list as it was imported goes on: its number and its entries, whoever they belonged to.
    own = found.own
    now = datetime.now(UTC)
    names = {**{e.serial: e.certname for e in found.live.values()}, **{i.serial: i.name for i in found.gone.values()}}
    entries = sorted(found.revoked.items(), key=lambda r: (r[1], r[0]))

    def made(some: list[tuple[int, datetime]]) -> x509.CertificateRevocationList:
        return profile.signed_list(
            found.issuer, key, some, number=found.number, now=now, ttl=timedelta(days=crl_ttl_days)
        )

    if own is None or own.next_update_utc is None or own.next_update_utc <= now:
        found.number += 1
        own = made(entries)
    assert own.next_update_utc is not None  # noqa: S101 - one without was made anew
    short = profile.pem_of(made([e for e in entries if names.get(e[0]) in infra_hosts])) if infra_hosts else ""
    async with store.write("import", limit_s=_IMPORT_LIMIT_S) as uow:
        await refuse_unless_empty(uow)
        await uow.connection.execute(
            insert(authorities).values(
                id=AUTHORITY, chain_pem=found.issuer.chain_pem, next_serial=found.counter, created_at=store_now()
            )
        )
        rows = [*_live_rows(found, member), *_gone_rows(found, member)]
        for start in range(0, len(rows), BATCH):
            await uow.connection.execute(insert(certificates), rows[start : start + BATCH])
            progress("certificates written", min(start + BATCH, len(rows)), len(rows))
        if found.revoked:
            await uow.connection.execute(
                insert(revocations),
                [
                    {"serial": serial_text(s), "certname": names.get(s), "revoked_at": at.timestamp()}
                    for s, at in found.revoked.items()
                ],
            )
        waiting = [pending_of(request, flaw=flaw) for request, flaw in found.pending]
        if waiting:
            columns = [{f: getattr(p, f) for f in type(p).__dataclass_fields__} for p in waiting]
            await uow.connection.execute(insert(requests), [{**c, "submitted_at": now.timestamp()} for c in columns])
        await uow.connection.execute(
            insert(crls).values(
                authority=AUTHORITY,
                number=found.number,
                own_pem=profile.pem_of(own),
                infra_pem=short,
                ancestors_pem=found.ancestors_pem,
                updated_at=store_now(),
                next_update=own.next_update_utc.timestamp(),
            )
        )
        await ledger.record(uow, "imported")


def _live_rows(found: Found, member: str) -> Iterator[dict[str, object]]:
    # A name may have several files' worth of certificates in a damaged directory; the newest is the live one.
    newest: dict[str, Entry] = {}
    for entry in found.live.values():
        other = newest.get(entry.certname)
        if other is None or entry.not_before >= other.not_before:
            newest[entry.certname] = entry
    for entry in found.live.values():
        state = "live" if newest[entry.certname] is entry else "superseded"
        yield {**certificate_row(entry, member, state), "issued_at": entry.not_before.timestamp()}


def _gone_rows(found: Found, member: str) -> Iterator[dict[str, object]]:
    for issued in found.gone.values():
        yield {
            "serial": serial_text(issued.serial),
            "certname": issued.name,
            "pem": "",
            "not_before": issued.not_before.timestamp(),
            "not_after": issued.not_after.timestamp(),
            "state": "deleted",
            "status": "{}",
            "issued_at": issued.not_before.timestamp(),
            "issued_by": member,
        }


def refuse_unless_free(directory: Path) -> None:
    """Refuse to write where something is.

    Raises:
        Conflict: the directory holds something, or is none; nothing was written.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Conflict(f"{directory} is {'not empty' if directory.is_dir() else 'no directory'}; nothing was written")


async def write_directory(
    store: Store,
    directory: Path,
    *,
    key_pem: bytes | None,
    infra_hosts: Collection[str] = (),
    progress: Progress = lambda *_: None,
) -> dict[str, int]:
    """Write the ledger as a CA directory from which a puppetserver starts; the directory must be empty or absent.

    ``infra_hosts`` are the settings'; a puppetserver hands out their short list with ``enable-infra-crl``.

    Returns:
        How many certificates, requests and revocations were written.

    Raises:
        Conflict: the directory holds something.
        Misconfigured: there is no CA.
    """
    refuse_unless_free(directory)
    async with store.read() as uow:
        query = select(authorities.c.chain_pem, authorities.c.next_serial).where(authorities.c.id == AUTHORITY)
        authority = (await uow.connection.execute(query)).first()
        if authority is None:
            raise Misconfigured("The store holds no Puppet CA; there is nothing to export")
        published = (await uow.connection.execute(select(crls).where(crls.c.authority == AUTHORITY))).mappings().one()
        columns = (certificates.c.serial, certificates.c.certname, certificates.c.pem, certificates.c.state)
        times = (certificates.c.not_before, certificates.c.not_after)
        issued = (await uow.connection.execute(select(*columns, *times).order_by(certificates.c.issued_at))).all()
        waiting = (await uow.connection.execute(select(requests.c.certname, requests.c.pem))).all()
        count = len((await uow.connection.execute(select(revocations.c.serial))).all())
    for place in (directory, directory / "signed", directory / "requests"):
        make_directory(place, mode=0o750)
    issuer = Issuer.read(authority.chain_pem)
    counter = max([authority.next_serial, *_small(int(r.serial, 16) for r in issued)])
    public = issuer.certificate.public_key()
    files: dict[str, tuple[bytes, int]] = {
        "ca_crt.pem": (authority.chain_pem.encode(), 0o640),
        "ca_pub.pem": (public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), 0o640),
        "ca_crl.pem": (f"{published['own_pem']}{published['ancestors_pem']}".encode(), 0o644),
        "infra_crl.pem": (
            f"{published['infra_pem'] or published['own_pem']}{published['ancestors_pem']}".encode(),
            0o640,
        ),
        # A serial in decimal per line; neither has an empty line that puppetserver would take for a number.
        "infra_inventory.txt": (_lines(infra_hosts), 0o640),
        "infra_serials": (
            _lines(str(int(r.serial, 16)) for r in issued if r.certname in infra_hosts and r.state == "live"),
            0o640,
        ),
        "serial": (f"{min(counter, LARGEST_COUNTER):04X}".encode(), 0o644),
        "inventory.txt": ("".join(_inventory_line(r) for r in issued).encode(), 0o640),
    }
    if key_pem is not None:
        # Whatever account writes this, its group has no business with the key; puppetserver's own need not share it.
        files["ca_key.pem"] = (key_pem, 0o600)
    for name, (content, mode) in files.items():
        write_atomically(directory / name, content, mode=mode)
    live = [r for r in issued if r.state == "live" and r.pem]
    for done, row in enumerate(live, 1):
        # Not synced one by one: the directory is new, and whoever loses power writes it again.
        file = directory / "signed" / f"{row.certname}.pem"
        file.write_text(row.pem)
        give_to_owner(file)
        if done % BATCH == 0 or done == len(live):
            progress("certificates written", done, len(live))
    for one in waiting:
        file = directory / "requests" / f"{one.certname}.pem"
        file.write_text(one.pem)
        give_to_owner(file)
    return {"certificates": len(live), "requests": len(waiting), "revocations": count}


def _small(serials: Iterable[int]) -> Iterator[int]:
    """Yield the next number after each serial a counter gave; random ones are no counter's."""
    return (s + 1 for s in serials if s < LARGEST_COUNTER)


def _lines(words: Iterable[str]) -> bytes:
    return "".join(f"{w}\n" for w in words).encode() or b"\n"


def _inventory_line(row: object) -> str:
    serial = int(row.serial, 16)  # type: ignore[attr-defined]
    before, after = (
        datetime.fromtimestamp(t, UTC).strftime("%Y-%m-%dT%H:%M:%SUTC")
        for t in (row.not_before, row.not_after)  # type: ignore[attr-defined]
    )
    return f"0x{serial:04X} {before} {after} /CN={row.certname}\n"  # type: ignore[attr-defined]
