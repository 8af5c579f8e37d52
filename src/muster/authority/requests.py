"""Requests for certificates: taken, signed, rejected, and thrown away when nobody looks at them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NoReturn

from muster.authority.autosign import Autosign, Leave
from muster.authority.hand import Hand
from muster.authority.ledger.entries import entry_of, pending_of
from muster.authority.ledger.lookup import refuse_unwritable
from muster.authority.sources import Rates
from muster.authority.x509 import csr, profile
from muster.authority.x509.csr import CertificateRequest
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.kernel.log import logger
from muster.kernel.names import source_of

_log = logger("authority")

_LONGEST_TTL_S = 100 * 366 * 86400


@dataclass(frozen=True)
class Signed:
    """What came of signing several names."""

    signed: tuple[str, ...]
    without_request: tuple[str, ...]
    refused: tuple[str, ...]


class Requests:
    """What hosts ask for.

    Attributes:
        waiting: how many requests waited for an administrator when :meth:`keep_up` looked last.
    """

    def __init__(self, hand: Hand, autosign: Autosign) -> None:
        self.waiting = 0
        self._hand = hand
        self._autosign = autosign
        self._rates = Rates(hand.settings.requests_per_minute)

    async def pem(self, name: str) -> str:
        """Return the pending request of a name in PEM.

        Raises:
            NotFound: it has none.
        """
        found = await self._hand.ledger.request(name)
        if found is None:
            raise NotFound(f"Could not find certificate_request {name}")
        return found.pem

    async def submit(self, name: str, body: bytes, *, source: str) -> bool:
        """Take a certificate request; sign it when autosigning lets it through. Whether it was signed.

        Raises:
            Rejected: it is no request, has no right to the name, or asks for what is not signed; nothing was kept.
            Unavailable: too many requests of one client, or the store did not answer.
        """
        origin = source_of(source)
        self._rates.count(origin)
        request = csr.read(body)
        try:
            csr.refuse_subject(request, name)
            self.judge(request)
        except Rejected:
            # Its own name comes before that is compared with the one it was sent under (recorded as cn-taken).
            await self._refuse_known(request.name)
            raise
        leave = await self._autosign.leave_given(request)
        if leave is None and "policy" in self._hand.settings.autosign:
            # Before the program is asked; otherwise whoever writes it down notices, which saves a look at the store.
            await self._refuse_known(request.name)
            leave = await self._autosign.leave_asked(request)
        if leave is None:
            limit, per_source = self._hand.settings.pending_limit, self._hand.settings.pending_per_source
            try:
                pending = pending_of(request, source=origin)
                await self._hand.ledger.submit(pending, limit=limit, per_source=per_source, actor=source)
            except Conflict as e:
                await self._raise_already(name, e)
            return False
        await self._signed(request, self._ttl(request), actor=leave.why, leave=leave)
        return True

    async def sign(self, name: str, *, actor: str, ttl_s: int | None = None) -> None:
        """Sign the pending request of a name.

        Raises:
            NotFound: nothing is known under the name.
            Conflict: there is no request, or what it asks for is not signed; in puppetserver's words.
        """
        known = await self._hand.ledger.request(name)
        if known is None:
            if await self._hand.ledger.known(name) is None:
                raise NotFound("Invalid certificate subject.")
            raise Conflict(f"Cannot sign certificate for host {name} without a certificate request")
        request = csr.read(known.pem.encode())
        try:
            csr.refuse_subject(request, name)
            self.judge(request)
        except Rejected as e:
            raise Conflict(str(e)) from e
        ttl = timedelta(seconds=ttl_s) if ttl_s is not None else self._ttl(request)
        try:
            await self._signed(request, ttl, actor=actor, pending=True)
        except Rejected as e:
            # Another member signed or removed the request meanwhile.
            raise Conflict(f"Cannot sign certificate for host {name} without a certificate request") from e

    async def sign_all(self, names: Sequence[str] | None, *, actor: str) -> Signed:
        """Sign the pending requests of these names, or every one, each by itself.

        Raises:
            Rejected: one can be no certname; nothing was signed.
        """
        refuse_unwritable(*names or ())
        if names is None:
            names = [json.loads(s)["name"] for s in await self._hand.ledger.statuses("requested")]
        signed: list[str] = []
        without: list[str] = []
        refused: list[str] = []
        for name in dict.fromkeys(names):
            try:
                await self.sign(name, actor=actor)
                signed.append(name)
            except NotFound:
                without.append(name)
            except (Conflict, Rejected):
                (without if await self._hand.ledger.request(name) is None else refused).append(name)
        return Signed(tuple(signed), tuple(without), tuple(refused))

    async def reject(self, name: str, *, actor: str) -> None:
        """Remove a pending request.

        Raises:
            NotFound: it has none.
        """
        await self._hand.ledger.reject(name, actor=actor)

    async def keep_up(self) -> None:
        """Throw away the requests that have waited for too long, and count the others; called now and then.

        Raises:
            Unavailable: the store did not answer.
        """
        if expired := await self._hand.ledger.expire(older_s=self._hand.settings.pending_days * 86_400):
            _log.info("Certificate requests that nobody looked at were thrown away", count=expired)
        self.waiting = await self._hand.ledger.waiting()

    def judge(self, request: CertificateRequest) -> None:
        """Refuse a request for what the settings do not allow.

        Raises:
            Rejected: as :func:`csr.refuse_content`.
        """
        csr.refuse_content(
            request,
            allow_alternatives=self._hand.settings.allow_subject_alt_names,
            allow_authorisations=self._hand.settings.allow_authorization_extensions,
        )

    async def _signed(
        self,
        request: CertificateRequest,
        ttl: timedelta,
        *,
        actor: str,
        leave: Leave | None = None,
        pending: bool = False,
    ) -> None:
        made = await asyncio.to_thread(
            profile.signed_leaf,
            request,
            self._hand.issuer,
            self._hand.key,
            serial=profile.random_serial(),
            now=self._hand.now(),
            ttl=ttl,
        )
        try:
            await self._hand.ledger.issue(
                entry_of(made, request.name),
                actor=actor,
                token=leave.token if leave else None,
                request_sha256=request.sha256 if pending else None,
                # Whoever asked for the name first must not keep it from the host that it was given to.
                own_request_sha256=request.sha256 if leave is not None and leave.named else None,
            )
        except Conflict as e:
            await self._raise_already(request.name, e)

    async def _refuse_known(self, name: str) -> None:
        try:
            known = await self._hand.ledger.known(name)
        except Rejected:
            # Nothing is known under a name that can be none; what else is wrong with it is said by whoever asked.
            return
        if known is not None and known.flaw is None:
            raise Rejected(_already(name, known.state))

    async def _raise_already(self, name: str, conflict: Conflict) -> NoReturn:
        """Say what is known under the name by now; it was lost to another one that came first."""
        known = await self._hand.ledger.known(name)
        if known is None:
            raise Rejected(str(conflict)) from conflict
        raise Rejected(_already(name, known.state)) from conflict

    def _ttl(self, request: CertificateRequest) -> timedelta:
        renews = self._hand.settings.allow_auto_renewal and request.wants_renewal
        return timedelta(
            days=self._hand.settings.auto_renewal_ttl_days if renews else self._hand.settings.cert_ttl_days
        )


def ttl_of(seconds: int) -> int:
    """Return a time to live that a certificate can have.

    Raises:
        Rejected: it is longer than a century.
    """
    if abs(seconds) > _LONGEST_TTL_S:
        raise Rejected(f"A certificate cannot be valid for {seconds} seconds")
    return seconds


def _already(name: str, state: str) -> str:
    return f"{name} already has a {state} certificate; ignoring certificate request"
