"""How the Puppet CA stands: who signs, until when, and how much waits; what the store has of it, to read."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from muster.authority.ledger.lookup import chain_in, published_in, waiting_in
from muster.authority.x509.profile import common_name
from muster.kernel.errors import Misconfigured
from muster.pki import pem as pems
from muster.store.reading import Query, Reading

_COUNTS = Query(
    "SELECT (SELECT count(*) FROM certificates WHERE state = 'live') AS live,"
    " (SELECT count(*) FROM revocations) AS revoked"
)


async def standing_in(uow: Reading, signer: str) -> dict[str, Any]:
    """Return how the CA stands, as JSON; ``signer`` is ``any`` or the one member that signs.

    ``ca`` and ``list`` are None while there is no CA in the store.
    """
    chain = await chain_in(uow)
    found: dict[str, Any] = {"signer": signer, "ca": None, "list": None, "live": 0, "revoked": 0, "waiting": 0}
    if chain is None:
        return found
    (certificate, *_) = pems.certificates(chain.encode(), "The Puppet CA in the store")
    found["ca"] = {
        "name": common_name(certificate.subject),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
    }
    try:
        published = await published_in(uow)
    except Misconfigured:
        published = None
    if published is not None:
        ends = datetime.fromtimestamp(published.next_update, UTC)
        found["list"] = {"number": published.number, "not_after": ends.isoformat()}
    (counts,) = await uow.rows(_COUNTS)
    return found | {"live": counts["live"], "revoked": counts["revoked"], "waiting": await waiting_in(uow)}
