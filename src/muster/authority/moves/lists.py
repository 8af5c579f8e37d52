"""Revocation lists that others still have, of a CA whose ledger is older than they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from sqlalchemy import insert, select, update

from muster.authority.ledger.entries import serial_text
from muster.authority.ledger.lookup import AUTHORITY
from muster.authority.moves.directory import CRL_LIMIT_BYTES, UNREADABLE
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer, crls_in
from muster.kernel.errors import Misconfigured
from muster.kernel.files import read_bounded
from muster.store.engine import Unit
from muster.store.tables import audit, certificates, crls, revocations, store_now

_CHUNK = 500


def own_list(path: Path, issuer: Issuer) -> x509.CertificateRevocationList:
    """Return the CA's own list among those in a file: any member's or agent's ``crl.pem``.

    Raises:
        Misconfigured: there is none that this CA has signed.
    """
    text = read_bounded(path, what="revocation list", limit_bytes=CRL_LIMIT_BYTES).decode("utf-8", "replace")
    try:
        for one in crls_in(text):
            if one.issuer == issuer.certificate.subject and one.is_signature_valid(issuer.certificate.public_key()):  # type: ignore[arg-type]
                _ = profile.list_number(one)
                return one
    except UNREADABLE:
        pass
    raise Misconfigured(f"{path} holds no revocation list of {issuer.common_name}; nothing was changed")


async def taken(uow: Unit, lists: Sequence[x509.CertificateRevocationList], *, member: str, actor: str) -> int:
    """Write down what these lists revoke and the ledger does not; return how much. The next list is above all of them.

    Who calls this has the list made anew.
    """
    known = set((await uow.connection.scalars(select(revocations.c.serial))).all())
    found = {serial_text(entry.serial_number): entry.revocation_date_utc.timestamp() for one in lists for entry in one}
    fresh = sorted(found.keys() - known)
    for start in range(0, len(fresh), _CHUNK):
        some = fresh[start : start + _CHUNK]
        query = select(certificates.c.serial, certificates.c.certname).where(certificates.c.serial.in_(some))
        names = {row.serial: row.certname for row in await uow.connection.execute(query)}
        rows = [{"serial": s, "certname": names.get(s), "revoked_at": found[s]} for s in some]
        await uow.connection.execute(insert(revocations), rows)
        told = [
            {"event": "revoked", "certname": names.get(s), "serial": s, "actor": actor, "member": member} for s in some
        ]
        await uow.connection.execute(insert(audit).values(at=store_now()), told)
    highest = max((profile.list_number(one) or 0 for one in lists), default=0)
    above = update(crls).where(crls.c.authority == AUTHORITY, crls.c.number < highest).values(number=highest)
    await uow.connection.execute(above)
    return len(fresh)
