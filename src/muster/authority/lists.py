"""Revocation lists: made, renewed, served, kept for times without the store, and pushed to a puppetserver beside."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.authority.copies import Copies
from muster.authority.hand import Hand
from muster.authority.ledger.entries import Revoked
from muster.authority.ledger.lookup import Published
from muster.authority.x509 import profile
from muster.authority.x509.profile import crls_in
from muster.kernel import failpoints
from muster.kernel.errors import MusterError, Rejected, Unavailable
from muster.kernel.files import replace_for_readers
from muster.kernel.log import logger

_log = logger("authority")


@dataclass(frozen=True)
class Served:
    """The revocation lists as they are served.

    Attributes:
        pem: own list first, then the ancestors'.
        updated_at: when they changed, in store time.
    """

    number: int
    pem: str
    updated_at: float


class RevocationLists:
    """The CA's own list and its ancestors'.

    Attributes:
        last: as this member saw them last; None when it never did.
    """

    def __init__(self, hand: Hand, copies: Copies | None = None) -> None:
        self.last: Published | None = None
        self._hand = hand
        self._copies = copies
        self._copied: Published | None = None
        self._copying = asyncio.Lock()
        # Another member's infra hosts may be other ones until it starts anew: asked once, or the two would take turns.
        self._infra_is_ours = not hand.settings.infra_hosts
        self._pushed: dict[Path, tuple[int, float]] = {}
        self._unpushed: dict[Path, str] = {}
        self._pushing = asyncio.Lock()

    async def served(self, *, whole: bool = False) -> Served:
        """Return the revocation lists; the last ones this member saw while the store does not answer.

        With infra hosts set, agents get the short list unless the ``whole`` one is asked for, or no short one was made yet.

        Raises:
            Unavailable: the store does not answer, and this member has seen none yet.
        """
        try:
            found = await self._seen()
        except Unavailable:
            if self.last is None:
                raise
            found = self.last
        short = found.infra_pem if self._hand.settings.infra_hosts and not whole else ""
        own = short or found.own_pem
        return Served(found.number, own + found.ancestors_pem, found.updated_at)

    async def _seen(self) -> Published:
        number, updated_at = await self._hand.ledger.number()
        found = self.last
        if found is None or (found.number, found.updated_at) != (number, updated_at):
            found = self.last = await self._hand.ledger.published()
        return found

    async def expirations(self) -> dict[str, dict[str, str]]:
        """Return when the CA's certificates and lists end, by common name."""
        lists = await self.served(whole=True)
        crls = {}
        for one in crls_in(lists.pem):
            if one.next_update_utc is not None:
                crls[profile.common_name(one.issuer)] = profile.stamp(one.next_update_utc)
        certificates = {
            profile.common_name(c.subject): profile.stamp(c.not_valid_after_utc) for c in self._hand.issuer.chain
        }
        return {"ca-certs": certificates, "crls": crls}

    async def take(self, body: bytes, *, actor: str) -> None:
        """Take newer lists of the ancestors; our own list is never replaced (docs/facts/puppet-ca.md §1.2).

        Raises:
            Rejected: no list, a delta list, one without key identifier, a bad one, or one that revokes our own CA.
        """
        submitted = _submitted(body)
        published = await self._hand.ledger.published()
        current = {_issuer_key(c): c for c in crls_in(published.ancestors_pem)}
        ancestors = {profile.key_identifier(c): c for c in self._hand.issuer.chain[1:]}
        changed = False
        for one in submitted:
            key = _issuer_key(one)
            ancestor = ancestors.get(key)
            number = profile.list_number(one)
            if ancestor is None or number is None:
                continue
            before = current.get(key)
            old = profile.list_number(before) if before is not None else None
            if before is not None and _same(one, before):
                continue
            if old is not None and number == old:
                raise Rejected("Could not determine newest CRL.")
            if old is not None and number < old:
                continue
            self._refuse_bad(one, ancestor)
            current[key], changed = one, True
        if changed:
            pem = "".join(profile.pem_of(current[k]) for k in ancestors if k in current)
            await self._hand.ledger.replace_ancestors(pem, expected=published.ancestors_pem, actor=actor)
            await self.push()

    async def keep_up(self) -> None:
        """Renew a list that ends soon or was made for other infra hosts, and see the one in force; called now and then.

        Raises:
            Unavailable: the store did not answer.
        """
        soon = self._hand.now() + profile.ahead(timedelta(days=self._hand.settings.crl_ttl_days))
        outdated = None if self._infra_is_ours else self._is_outdated
        if await self._hand.ledger.republish(build=self.build, before=soon.timestamp(), outdated=outdated):
            _log.info("The revocation list was renewed")
        self._infra_is_ours = True
        await self.follow()

    def _is_outdated(self, revoked: Sequence[Revoked], published: Published) -> bool:
        if not published.infra_pem:
            return True
        listed = {r.serial_number for r in x509.load_pem_x509_crl(published.infra_pem.encode())}
        infra = set(self._hand.settings.infra_hosts)
        return listed != {r.serial for r in revoked if r.certname in infra}

    async def follow(self) -> None:
        """See the lists in force; keep and push changed ones; called each beat, and one short question when nothing changed.

        Without it, a member that nobody asks for a list would have none to serve when the store goes away, and the
        puppetserver beside it would not hear of what another member revoked.

        Raises:
            Unavailable: the store did not answer.
        """
        await self._seen()
        await self.copy()
        await self.push()

    async def copy(self) -> None:
        """Keep the lists on this member's disk, if they changed; a failure is logged, once."""
        # One after another: an older list must not replace a newer one.
        async with self._copying:
            found = self.last
            if self._copies is None or found is None or found is self._copied:
                return
            if await asyncio.to_thread(self._copies.keep_lists, found):
                self._copied = found

    def recall(self) -> None:
        """Take the lists from this member's disk for those in force; for a start without the store."""
        if self._copies is not None and self.last is None:
            self.last = self._copied = self._copies.lists(self._hand.issuer)

    async def push(self) -> None:
        """Write the lists where co-located puppetservers read them, if they changed; a failure is logged, once."""
        if not self._hand.settings.push_crl:
            return
        # One after another: an older list must not replace a newer one.
        async with self._pushing:
            lists = await self.served(whole=True)
            now = (lists.number, lists.updated_at)
            for path in self._hand.settings.push_crl:
                if self._pushed.get(path) == now:
                    continue
                try:
                    failpoints.before_commit("list-pushed")
                    await asyncio.to_thread(replace_for_readers, path, lists.pem)
                    failpoints.after_commit("list-pushed")
                except MusterError as e:
                    if self._unpushed.get(path) != str(e):
                        _log.error("A puppetserver's revocation list is stale", file=str(path), why=str(e))
                    self._unpushed[path] = str(e)
                else:
                    self._pushed[path] = now
                    self._unpushed.pop(path, None)

    def build(self, revoked: Sequence[Revoked], number: int) -> tuple[str, str, float]:
        """Make the lists; a :data:`~muster.authority.ledger.entries.Builder`."""
        now = self._hand.now()
        ttl = timedelta(days=self._hand.settings.crl_ttl_days)

        def made(entries: Sequence[Revoked]) -> str:
            pairs = [(r.serial, r.at) for r in entries]
            return profile.pem_of(
                profile.signed_list(self._hand.issuer, self._hand.key, pairs, number=number, now=now, ttl=ttl)
            )

        infra = set(self._hand.settings.infra_hosts)
        short = made([r for r in revoked if r.certname in infra]) if infra else ""
        return made(revoked), short, (now + ttl).timestamp()

    def _refuse_bad(self, one: x509.CertificateRevocationList, ancestor: x509.Certificate) -> None:
        now = self._hand.now()
        ended = one.next_update_utc is not None and one.next_update_utc <= now
        if ended or one.last_update_utc > now or not one.is_signature_valid(ancestor.public_key()):  # type: ignore[arg-type]
            raise Rejected("Invalid certs and/or CRLs: Could not determine revocation status")
        ours = [c for c in self._hand.issuer.chain if c.issuer == ancestor.subject and c != ancestor]
        for certificate in ours:
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                raise Rejected(
                    "Invalid certs and/or CRLs: Certificate has been revoked, "
                    f"{profile.common_name(certificate.subject)}, on {entry.revocation_date_utc:%Y-%m-%d}"
                )


def _submitted(body: bytes) -> list[x509.CertificateRevocationList]:
    try:
        found = crls_in(body.decode("ascii", "replace"))
    except ValueError as e:
        raise Rejected("No valid CRLs submitted.") from e
    if not found:
        raise Rejected("No valid CRLs submitted.")
    for one in found:
        try:
            one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        except x509.ExtensionNotFound as e:
            raise Rejected("One or more submitted CRLs do not have an authority key identifier.") from e
        with contextlib.suppress(x509.ExtensionNotFound):
            one.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
            raise Rejected("Cannot support delta CRL.")
    return found


def _issuer_key(one: x509.CertificateRevocationList) -> bytes:
    return one.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""


def _same(one: x509.CertificateRevocationList, other: x509.CertificateRevocationList) -> bool:
    return one.public_bytes(Encoding.DER) == other.public_bytes(Encoding.DER)
