"""Is a certificate of this CA revoked, whatever port it is shown on? Answered without the CA's key."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from muster.authority.copies import Copies
from muster.authority.ledger.ledger import Ledger
from muster.authority.ledger.lookup import Published
from muster.authority.x509.profile import Issuer
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Unavailable
from muster.pki import pem as pems
from muster.pki.trust import described
from muster.store.engine import Store


class Revocations:
    """Asks the ledger at every call, so that a revocation holds everywhere at once; without the store, the last list.

    Attributes:
        note: a sentence while answers come from the last list; empty while the ledger answers.

    Concurrency: any number of calls.
    """

    def __init__(self, store: Store, member: str, state: Path, *, kept_s: float, clock: Clock | None = None) -> None:
        """``state`` is where the member keeps the bundle and its last lists; ``kept_s``: how long they are believed."""
        self._ledger = Ledger(store, member)
        self._copies = Copies(state)
        self._kept_s = kept_s
        self._clock = clock or SystemClock()
        self._issuer: Issuer | None = None
        self._heard_at = self._clock.monotonic()
        self._kept: tuple[Published, frozenset[int]] | None = None
        self.note = ""

    def heard(self) -> None:
        """Take note that the store answered; called each beat in which it did, so that its silence is counted from there."""
        self._heard_at = self._clock.monotonic()
        self.note = ""

    async def is_revoked(self, certificate: x509.Certificate) -> bool:
        """Whether this CA issued a certificate and revoked it, on whichever member.

        Raises:
            Unavailable: the store does not answer, and has not for longer than the last list is believed, or there is none.
        """
        try:
            issuer = await self._known_issuer()
            if issuer is None or not pems.signed_by(certificate, issuer.certificate):
                return False
            found = await self._ledger.is_revoked(certificate.serial_number)
        except Unavailable as e:
            return self._recalled(certificate, e)
        self.heard()
        return found

    async def _known_issuer(self) -> Issuer | None:
        if self._issuer is None:
            chain = await self._ledger.chain()
            self._issuer = None if chain is None else Issuer.read(chain)
        return self._issuer

    def _recalled(self, certificate: x509.Certificate, cause: Unavailable) -> bool:
        bundle = None if self._issuer is not None else self._copies.bundle()
        issuer = Issuer.read(bundle) if bundle is not None else self._issuer
        if issuer is not None and not pems.signed_by(certificate, issuer.certificate):
            return False
        away_s = self._clock.monotonic() - self._heard_at
        asked = f"Whether the client certificate {described(certificate)} is revoked could not be asked"
        lists = self._copies.lists(issuer) if issuer is not None else None
        if lists is None:
            raise Unavailable(f"{asked}, and this member has no list: {cause}") from cause
        if away_s > self._kept_s:
            raise Unavailable(
                f"{asked} for {away_s:.0f} s, longer than the last list is believed (foreman.revocations_kept_s): {cause}"
            ) from cause
        self.note = f"revocations are those of {away_s:.0f} s ago, because the store does not answer"
        return certificate.serial_number in self._serials(lists)

    def _serials(self, lists: Published) -> frozenset[int]:
        if self._kept is None or self._kept[0] != lists:
            own = x509.load_pem_x509_crl(lists.own_pem.encode())
            self._kept = (lists, frozenset(r.serial_number for r in own))
        return self._kept[1]
