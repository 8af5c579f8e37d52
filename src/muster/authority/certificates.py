"""Certificates that were issued: looked up, revoked, cleaned, renewed; and what a client's own lets it do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from muster.authority.hand import Hand
from muster.authority.ledger.entries import entry_of
from muster.authority.ledger.lookup import Known
from muster.authority.lists import RevocationLists
from muster.authority.x509 import csr, profile
from muster.authority.x509.certnames import PP_CLI_AUTH
from muster.authority.x509.csr import CertificateRequest
from muster.kernel.errors import Conflict, Denied, NotFound, Rejected, Unavailable

# Exactly this: a UTF8String that says true (docs/facts/puppet-ca.md §7.6).
_CLI_AUTH = b"\x0c\x04true"


class Certificates:
    """What stands under names, requests that wait included; each revocation is published with the ``lists``."""

    def __init__(self, hand: Hand, lists: RevocationLists) -> None:
        self._hand = hand
        self._lists = lists

    async def pem(self, name: str) -> str:
        """Return the certificate of a name in PEM.

        Raises:
            NotFound: it has none.
        """
        found = await self._hand.ledger.certificate(name)
        if found is None:
            raise NotFound(f"Could not find certificate {name}")
        return found

    async def status(self, name: str) -> Known | None:
        """Return what there is under a name."""
        return await self._hand.ledger.known(name)

    async def statuses(self, state: str | None = None) -> list[str]:
        """Return all statuses as JSON objects; ``state``: only ``requested``, ``signed`` or ``revoked`` ones."""
        return await self._hand.ledger.statuses(state if state in ("requested", "signed", "revoked") else None)

    async def revoke(self, name: str, *, actor: str) -> None:
        """Revoke every certificate of a name; doing it again changes nothing.

        Raises:
            NotFound: nothing is known under the name.
            Conflict: it has a request only.
        """
        missing = await self._hand.ledger.revoke([name], build=self._lists.build, actor=actor)
        if missing:
            if await self._hand.ledger.request(name) is None:
                raise NotFound("Invalid certificate subject.")
            raise Conflict(f"Cannot revoke certificate for host {name} without a signed certificate")
        await self._lists.push()

    async def clean(self, names: Sequence[str], *, actor: str) -> list[str]:
        """Revoke and remove the certificates of these names with one new list; return the names that have none."""
        missing = await self._hand.ledger.revoke(names, build=self._lists.build, actor=actor, remove=True)
        await self._lists.push()
        return missing

    async def remove(self, name: str, *, actor: str) -> None:
        """Remove a name's certificate and request; nothing is revoked.

        Raises:
            NotFound: it has neither.
        """
        await self._hand.ledger.remove(name, actor=actor)

    async def renew(self, presented: bytes) -> str:
        """Return a new certificate for the holder of this one: same key, names and extensions.

        Repeatable: whoever lost the answer gets the same certificate again.

        Raises:
            NotFound: renewal is switched off.
            Denied: another CA issued it, or it is revoked, or replaced by one for another key.
            Rejected: its key or its names would not be signed today.
        """
        if not self._hand.settings.allow_auto_renewal:
            raise NotFound("Not Found")
        old = x509.load_der_x509_certificate(presented)
        if not self.issued(old):
            raise Denied("Certificate was not issued by this CA")
        ttl = timedelta(days=self._hand.settings.auto_renewal_ttl_days)
        actor = profile.common_name(old.subject)
        try:
            return await self._renewed(old, ttl, actor=actor)
        except Conflict as e:
            again = await self._given_again(old, ttl, actor=actor)
            if again is None:
                raise Denied(str(e)) from e
            return again

    async def _given_again(self, old: x509.Certificate, ttl: timedelta, *, actor: str) -> str | None:
        """Return what an earlier renewal of this certificate made, None when nothing did; the agent never saw the answer."""
        text = await self._hand.ledger.successor(old.serial_number)
        if text is None:
            return None
        made = x509.load_pem_x509_certificate(text.encode())
        if not profile.same_key(old, made):
            return None
        if made.not_valid_after_utc > self._hand.now():
            return text
        # It ended before it was ever fetched; the old one, valid for longer, is still shown.
        with contextlib.suppress(Conflict):
            return await self._renewed(made, ttl, actor=actor)
        return None

    async def renew_name(self, name: str, *, actor: str, ttl_s: int | None = None) -> None:
        """Issue a name's certificate anew: same key, names and extensions; the old one stays valid until it ends.

        Raises:
            NotFound: it has no certificate.
            Conflict: that is revoked, or was replaced meanwhile; nothing was changed.
            Rejected: its key or its names would not be signed today.
        """
        old = x509.load_pem_x509_certificate((await self.pem(name)).encode())
        ttl = timedelta(seconds=ttl_s) if ttl_s is not None else timedelta(days=self._hand.settings.cert_ttl_days)
        await self._renewed(old, ttl, actor=actor)

    async def _renewed(self, old: x509.Certificate, ttl: timedelta, *, actor: str) -> str:
        try:
            self.judge_renewal(old)
        except Rejected:
            await self._hand.ledger.refused(profile.common_name(old.subject), old.serial_number, actor=actor)
            raise
        serial = profile.random_serial()
        now = self._hand.now()
        new = await asyncio.to_thread(
            profile.renewed_leaf, old, self._hand.issuer, self._hand.key, serial=serial, now=now, ttl=ttl
        )
        await self._hand.ledger.renew(entry_of(new), old.serial_number, actor=actor)
        return profile.pem_of(new)

    async def issue_own(self, request: CertificateRequest) -> str:
        """Sign a request of a member's own, whatever names it asks for, in place of an earlier one; return it in PEM.

        Raises:
            Unavailable: the store did not answer; nothing was issued.
        """
        ttl = timedelta(days=self._hand.settings.cert_ttl_days)
        serial = profile.random_serial()
        made = await asyncio.to_thread(
            profile.signed_leaf,
            request,
            self._hand.issuer,
            self._hand.key,
            serial=serial,
            now=self._hand.now(),
            ttl=ttl,
        )
        await self._hand.ledger.replace(entry_of(made), actor="its own member")
        return profile.pem_of(made)

    async def refuse_revoked(self, presented: bytes, *, leniently: bool) -> None:
        """Refuse a certificate that is revoked, on whichever member that was done.

        Args:
            presented: verified by TLS already.
            leniently: when the store does not answer, believe the last list this member saw.

        Raises:
            Denied: it is.
            Unavailable: the store did not answer, and nothing else may be believed.
        """
        serial = x509.load_der_x509_certificate(presented).serial_number
        if await self.is_revoked(serial, leniently=leniently):
            raise Denied("The client's certificate is revoked")

    async def is_revoked(self, serial: int, *, leniently: bool) -> bool:
        """Whether a serial is revoked, on whichever member that was done; ``leniently`` as in :meth:`refuse_revoked`.

        Raises:
            Unavailable: the store did not answer, and nothing else may be believed.
        """
        try:
            return await self._hand.ledger.is_revoked(serial)
        except Unavailable:
            if not leniently or self._lists.last is None:
                raise
            own = x509.load_pem_x509_crl(self._lists.last.own_pem.encode())
            return own.get_revoked_certificate_by_serial_number(serial) is not None

    async def holds_authority(self, presented: bytes) -> bool:
        """Whether a certificate may sign and revoke: one we issued, with an administrator's name or ``pp_cli_auth``.

        A bare name counts only with a certificate that the ledger knows: whoever has a signer sign unasked, signs one that
        stands nowhere, and could not be revoked by name.

        Raises:
            Unavailable: the store did not answer.
        """
        certificate = x509.load_der_x509_certificate(presented)
        # TLS also takes what another CA below the same root issued, and that one gives out names as it likes.
        if not self.issued(certificate):
            return False
        name = profile.common_name(certificate.subject)
        if name in self._hand.settings.administrators and await self._hand.ledger.knows(
            name, certificate.serial_number
        ):
            return True
        return any(e.oid == PP_CLI_AUTH and e.value.public_bytes() == _CLI_AUTH for e in certificate.extensions)

    def judge_renewal(self, certificate: x509.Certificate) -> None:
        """Refuse to issue a certificate anew that would not be signed today.

        Raises:
            Rejected: its key or its names.
        """
        try:
            csr.refuse_renewal(certificate)
        except Rejected as e:
            name = profile.common_name(certificate.subject)
            raise Rejected(
                f"The certificate of {name} is not issued anew: {e}. Clean it, and let the host ask anew"
            ) from e

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this CA signed a certificate."""
        try:
            certificate.verify_directly_issued_by(self._hand.issuer.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True
