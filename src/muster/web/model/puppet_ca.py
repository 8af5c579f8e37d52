"""The Puppet CA."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from muster.web.model.moment import Moment
from muster.web.model.page import Page


@dataclass(frozen=True)
class PuppetCA:
    """The section; where members are no CA, None stands for it.

    Attributes:
        signer: ``any``, or the member that signs.
        name: empty: there is no CA yet.
    """

    signer: str
    name: str
    ends: Moment | None
    list_number: str
    list_ends: Moment | None
    live: int
    revoked: int
    waiting: int


def puppet_ca(page: Page) -> PuppetCA | None:
    """Return how the CA stands."""
    found = page.puppet_ca
    if found is None:
        return None
    ca, crl = found["ca"], found["list"]
    return PuppetCA(
        signer=str(found["signer"]),
        name=str(ca["name"]) if ca else "",
        ends=Moment.of(datetime.fromisoformat(ca["not_after"]), to="day") if ca else None,
        list_number=str(crl["number"]) if crl else "",
        list_ends=Moment.of(datetime.fromisoformat(crl["not_after"]), to="day") if crl else None,
        live=int(found["live"]),
        revoked=int(found["revoked"]),
        waiting=int(found["waiting"]),
    )
