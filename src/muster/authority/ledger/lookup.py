"""What stands in the ledger, to read: within any unit of the store, a command's glance among them."""

from __future__ import annotations

from dataclasses import dataclass

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import shown
from muster.store.reading import Query, Reading

AUTHORITY = 1
"""The row of the Puppet CA; there is one."""


def refuse_unwritable(*certnames: str) -> None:
    """Refuse names that no database could hold, so that nothing can be known under them.

    Raises:
        Rejected: one has a character that is half of one (JSON and command lines can bring it), or a NUL.
    """
    for name in certnames:
        # Not UTF-8's own check: its exception would show nobody what was wrong.
        if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in name):
            raise Rejected(f"{shown(name)} is no certname")


@dataclass(frozen=True)
class Known:
    """What there is under a name.

    Attributes:
        state: ``signed``, ``revoked`` or ``requested``.
        status: JSON, less its state.
    """

    state: str
    pem: str
    status: str
    flaw: str | None = None

    @property
    def as_json(self) -> str:
        return f'{{"state":"{self.state}",{self.status[1:]}'


@dataclass(frozen=True)
class Published:
    """The revocation lists in force. ``updated_at`` is in store time."""

    number: int
    own_pem: str
    infra_pem: str
    ancestors_pem: str
    updated_at: float
    next_update: float


_CHAIN = Query("SELECT chain_pem FROM authorities WHERE id = :authority")
_PUBLISHED = Query(
    "SELECT number, own_pem, infra_pem, ancestors_pem, updated_at, next_update FROM crls WHERE authority = :authority"
)
_WAITING = Query("SELECT count(*) AS waiting FROM requests")
_CERTIFICATE = Query(
    "SELECT pem, status, EXISTS (SELECT 1 FROM revocations WHERE revocations.serial = certificates.serial) AS revoked"
    " FROM certificates WHERE certname = :certname AND state = 'live'"
)
_REQUEST = Query("SELECT pem, status, flaw FROM requests WHERE certname = :certname")

NUMBER = Query("SELECT number, updated_at FROM crls WHERE authority = :authority")
LIVE_PEM = Query("SELECT pem FROM certificates WHERE certname = :certname AND state = 'live'")
REVOKED = Query("SELECT serial FROM revocations WHERE serial = :serial")


async def chain_in(uow: Reading) -> str | None:
    """Return the CA's bundle, None when there is no CA yet."""
    found = await uow.rows(_CHAIN, authority=AUTHORITY)
    return str(found[0]["chain_pem"]) if found else None


async def published_in(uow: Reading) -> Published:
    """Return the lists in force.

    Raises:
        Misconfigured: there is no CA.
    """
    found = await uow.rows(_PUBLISHED, authority=AUTHORITY)
    if not found:
        raise Misconfigured("The store holds no Puppet CA; muster ca init or muster ca import makes one")
    return Published(**found[0])


async def waiting_in(uow: Reading) -> int:
    """Return how many requests wait."""
    return int((await uow.rows(_WAITING))[0]["waiting"])


async def known_in(uow: Reading, certname: str) -> Known | None:
    """Return what there is under a name, the certificate before a request; None when there is nothing."""
    refuse_unwritable(certname)
    return await certificate_in(uow, certname) or await request_in(uow, certname)


async def certificate_in(uow: Reading, certname: str) -> Known | None:
    """Return the live certificate of a name."""
    found = await uow.rows(_CERTIFICATE, certname=certname)
    return Known("revoked" if found[0]["revoked"] else "signed", found[0]["pem"], found[0]["status"]) if found else None


async def request_in(uow: Reading, certname: str) -> Known | None:
    """Return the request of a name that waits."""
    found = await uow.rows(_REQUEST, certname=certname)
    return Known("requested", **found[0]) if found else None
