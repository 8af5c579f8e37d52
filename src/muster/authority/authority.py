"""The Puppet CA: what its HTTP API, its command line and Foreman's side ask of it.

Any member answers anything: the ledger is in the store, the key is at every member, and nothing is remembered between calls
but what never changes and what is looked at anew.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from muster.authority.autosign import Autosign, Leave
from muster.authority.copies import Copies
from muster.authority.keys import custody
from muster.authority.ledger.ledger import Entry, Ledger, Pending, Revoked
from muster.authority.ledger.lookup import Known, Published, refuse_unwritable
from muster.authority.reserved import Reserved
from muster.authority.sources import Rates
from muster.authority.x509 import csr, profile
from muster.authority.x509.certnames import PP_CLI_AUTH
from muster.authority.x509.csr import CertificateRequest
from muster.authority.x509.profile import CAKey, Issuer, crls_in
from muster.cluster.file import Authority as Settings
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Conflict, Denied, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.files import replace_for_readers
from muster.kernel.log import logger
from muster.kernel.names import source_of
from muster.store.engine import Store

_log = logger("authority")

_PROOF_LIMIT_S = 5.0
_LONGEST_TTL_S = 100 * 366 * 86400
# Exactly this: a UTF8String that says true (docs/facts/puppet-ca.md §7.6).
_CLI_AUTH = b"\x0c\x04true"


@dataclass(frozen=True)
class Signed:
    """What came of signing several names."""

    signed: tuple[str, ...]
    without_request: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Lists:
    """The revocation lists as they are served.

    Attributes:
        pem: own list first, then the ancestors'.
        updated_at: when they changed, in store time.
    """

    number: int
    pem: str
    updated_at: float


class PuppetCA:
    """One member's hand on the cluster's CA. Use :func:`opened`.

    Attributes:
        waiting: how many requests waited for an administrator when :meth:`keep_up` looked last.

    Concurrency: any number of calls at once, of any number of members. Signing runs in threads.
    """

    def __init__(
        self,
        ledger: Ledger,
        settings: Settings,
        issuer: Issuer,
        key: CAKey,
        autosign: Autosign,
        clock: Clock,
        copies: Copies | None = None,
    ) -> None:
        self.issuer = issuer
        self.settings = settings
        self.autosign = autosign
        self.waiting = 0
        self._ledger = ledger
        self._key = key
        self._clock = clock
        self._copies = copies
        self._rates = Rates(settings.requests_per_minute)
        self._lists: Published | None = None
        self._copied: Published | None = None
        self._copying = asyncio.Lock()
        # Another member's infra hosts may be other ones until it starts anew: asked once, or the two would take turns.
        self._infra_is_ours = not settings.infra_hosts
        self._proof: asyncio.Task[CAKey] | None = None
        self._pushed: dict[Path, tuple[int, float]] = {}
        self._unpushed: dict[Path, str] = {}
        self._pushing = asyncio.Lock()

    @property
    def chain_pem(self) -> str:
        """The CA's bundle: the same bytes on every member, for ever."""
        return self.issuer.chain_pem

    @property
    def list_now(self) -> Published | None:
        """The revocation lists as this member saw them last; None when it never did."""
        return self._lists

    async def reached(self) -> None:
        """Return when the ledger answers.

        Raises:
            Unavailable: the store did not answer.
        """
        await self._ledger.number()

    async def certificate(self, name: str) -> str:
        """Return the certificate of a name in PEM.

        Raises:
            NotFound: it has none.
        """
        found = await self._ledger.certificate(name)
        if found is None:
            raise NotFound(f"Could not find certificate {name}")
        return found

    async def request(self, name: str) -> str:
        """Return the pending request of a name in PEM.

        Raises:
            NotFound: it has none.
        """
        found = await self._ledger.request(name)
        if found is None:
            raise NotFound(f"Could not find certificate_request {name}")
        return found.pem

    async def status(self, name: str) -> Known | None:
        """Return what there is under a name."""
        return await self._ledger.known(name)

    async def statuses(self, state: str | None = None) -> list[str]:
        """Return all statuses as JSON objects; ``state``: only ``requested``, ``signed`` or ``revoked`` ones."""
        return await self._ledger.statuses(state if state in ("requested", "signed", "revoked") else None)

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
            # Its own name comes before that is compared with the one it was sent under (golden cn-taken).
            await self._refuse_known(request.name)
            raise
        leave = await self.autosign.leave_given(request)
        if leave is None and "policy" in self.settings.autosign:
            # Before the program is asked; otherwise whoever writes it down notices, which saves a look at the store.
            await self._refuse_known(request.name)
            leave = await self.autosign.leave_asked(request)
        if leave is None:
            limit, per_source = self.settings.pending_limit, self.settings.pending_per_source
            try:
                pending = pending_of(request, source=origin)
                await self._ledger.submit(pending, limit=limit, per_source=per_source, actor=source)
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
        known = await self._ledger.request(name)
        if known is None:
            if await self._ledger.known(name) is None:
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
            names = [json.loads(s)["name"] for s in await self._ledger.statuses("requested")]
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
                (without if await self._ledger.request(name) is None else refused).append(name)
        return Signed(tuple(signed), tuple(without), tuple(refused))

    async def revoke(self, name: str, *, actor: str) -> None:
        """Revoke every certificate of a name; doing it again changes nothing.

        Raises:
            NotFound: nothing is known under the name.
            Conflict: it has a request only.
        """
        missing = await self._ledger.revoke([name], build=self.build, actor=actor)
        if missing:
            if await self._ledger.request(name) is None:
                raise NotFound("Invalid certificate subject.")
            raise Conflict(f"Cannot revoke certificate for host {name} without a signed certificate")
        await self.push()

    async def clean(self, names: Sequence[str], *, actor: str) -> list[str]:
        """Revoke and remove the certificates of these names with one new list; return the names that have none."""
        missing = await self._ledger.revoke(names, build=self.build, actor=actor, remove=True)
        await self.push()
        return missing

    async def remove(self, name: str, *, actor: str) -> None:
        """Remove a name's certificate and request; nothing is revoked.

        Raises:
            NotFound: it has neither.
        """
        await self._ledger.remove(name, actor=actor)

    async def reject(self, name: str, *, actor: str) -> None:
        """Remove a pending request.

        Raises:
            NotFound: it has none.
        """
        await self._ledger.reject(name, actor=actor)

    async def renew(self, presented: bytes) -> str:
        """Return a new certificate for the holder of this one: same key, names and extensions.

        Repeatable: whoever lost the answer gets the same certificate again.

        Raises:
            NotFound: renewal is switched off.
            Denied: another CA issued it, or it is revoked, or replaced by one for another key.
            Rejected: its key or its names would not be signed today.
        """
        if not self.settings.allow_auto_renewal:
            raise NotFound("Not Found")
        old = x509.load_der_x509_certificate(presented)
        if not self.issued(old):
            raise Denied("Certificate was not issued by this CA")
        ttl = timedelta(days=self.settings.auto_renewal_ttl_days)
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
        text = await self._ledger.successor(old.serial_number)
        if text is None:
            return None
        made = x509.load_pem_x509_certificate(text.encode())
        if not profile.same_key(old, made):
            return None
        if made.not_valid_after_utc > self._now():
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
        old = x509.load_pem_x509_certificate((await self.certificate(name)).encode())
        ttl = timedelta(seconds=ttl_s) if ttl_s is not None else timedelta(days=self.settings.cert_ttl_days)
        await self._renewed(old, ttl, actor=actor)

    async def _renewed(self, old: x509.Certificate, ttl: timedelta, *, actor: str) -> str:
        try:
            self.judge_renewal(old)
        except Rejected:
            await self._ledger.refused(profile.common_name(old.subject), old.serial_number, actor=actor)
            raise
        serial = profile.random_serial()
        now = self._now()
        new = await asyncio.to_thread(
            profile.renewed_leaf, old, self.issuer, self._key, serial=serial, now=now, ttl=ttl
        )
        await self._ledger.renew(entry_of(new), old.serial_number, actor=actor)
        return profile.pem_of(new)

    async def issue_own(self, request: CertificateRequest) -> str:
        """Sign a request of a member's own, whatever names it asks for, in place of an earlier one; return it in PEM.

        Raises:
            Unavailable: the store did not answer; nothing was issued.
        """
        ttl = timedelta(days=self.settings.cert_ttl_days)
        serial = profile.random_serial()
        made = await asyncio.to_thread(
            profile.signed_leaf, request, self.issuer, self._key, serial=serial, now=self._now(), ttl=ttl
        )
        await self._ledger.replace(entry_of(made), actor="its own member")
        return profile.pem_of(made)

    async def lists(self, *, whole: bool = False) -> Lists:
        """Return the revocation lists; the last ones this member saw while the store does not answer.

        With infra hosts set, agents get the short list unless the ``whole`` one is asked for, or no short one was made yet.

        Raises:
            Unavailable: the store does not answer, and this member has seen none yet.
        """
        try:
            found = await self._seen()
        except Unavailable:
            if self._lists is None:
                raise
            found = self._lists
        short = found.infra_pem if self.settings.infra_hosts and not whole else ""
        own = short or found.own_pem
        return Lists(found.number, own + found.ancestors_pem, found.updated_at)

    async def _seen(self) -> Published:
        number, updated_at = await self._ledger.number()
        found = self._lists
        if found is None or (found.number, found.updated_at) != (number, updated_at):
            found = self._lists = await self._ledger.published()
        return found

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
            return await self._ledger.is_revoked(serial)
        except Unavailable:
            if not leniently or self._lists is None:
                raise
            own = x509.load_pem_x509_crl(self._lists.own_pem.encode())
            return own.get_revoked_certificate_by_serial_number(serial) is not None

    async def expirations(self) -> dict[str, dict[str, str]]:
        """Return when the CA's certificates and lists end, by common name."""
        lists = await self.lists(whole=True)
        crls = {}
        for one in crls_in(lists.pem):
            if one.next_update_utc is not None:
                crls[profile.common_name(one.issuer)] = profile.stamp(one.next_update_utc)
        certificates = {profile.common_name(c.subject): profile.stamp(c.not_valid_after_utc) for c in self.issuer.chain}
        return {"ca-certs": certificates, "crls": crls}

    async def take_lists(self, body: bytes, *, actor: str) -> None:
        """Take newer lists of the ancestors; our own list is never replaced (docs/facts/puppet-ca.md §1.2).

        Raises:
            Rejected: no list, a delta list, one without key identifier, a bad one, or one that revokes our own CA.
        """
        submitted = _submitted(body)
        published = await self._ledger.published()
        current = {_issuer_key(c): c for c in crls_in(published.ancestors_pem)}
        ancestors = {profile.key_identifier(c): c for c in self.issuer.chain[1:]}
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
            await self._ledger.replace_ancestors(pem, expected=published.ancestors_pem, actor=actor)
            await self.push()

    async def keep_up(self) -> None:
        """Renew a list that ends soon or was made for other infra hosts, and see the one in force; called now and then.

        Requests that have waited for too long are thrown away, and the others counted.

        Raises:
            Unavailable: the store did not answer.
        """
        soon = self._now() + profile.ahead(timedelta(days=self.settings.crl_ttl_days))
        outdated = None if self._infra_is_ours else self._is_outdated
        if expired := await self._ledger.expire(older_s=self.settings.pending_days * 86_400):
            _log.info("Certificate requests that nobody looked at were thrown away", count=expired)
        self.waiting = await self._ledger.waiting()
        if await self._ledger.republish(build=self.build, before=soon.timestamp(), outdated=outdated):
            _log.info("The revocation list was renewed")
        self._infra_is_ours = True
        await self.follow()

    def _is_outdated(self, revoked: Sequence[Revoked], published: Published) -> bool:
        if not published.infra_pem:
            return True
        listed = {r.serial_number for r in x509.load_pem_x509_crl(published.infra_pem.encode())}
        infra = set(self.settings.infra_hosts)
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
            found = self._lists
            if self._copies is None or found is None or found is self._copied:
                return
            if await asyncio.to_thread(self._copies.keep_lists, found):
                self._copied = found

    def recall(self) -> None:
        """Take the lists from this member's disk for those in force; for a start without the store."""
        if self._copies is not None and self._lists is None:
            self._lists = self._copied = self._copies.lists(self.issuer)

    async def prove(self) -> None:
        """Have a key that is held elsewhere sign something small: an absent one is noticed here, not by an agent.

        Raises:
            Unavailable: its holder has not signed in time.
            Misconfigured: its holder does not answer, or signs with another key.
        """
        kind = self.settings.key.kind
        if kind == "file":
            return
        if self._proof is None:
            proving = asyncio.to_thread(custody.proven, self._key, self.issuer, f"({kind})")
            self._proof = asyncio.create_task(proving, name="key proved")
        # One that hangs keeps its thread: who calls must not wait for it, nor may threads pile up.
        await asyncio.wait([self._proof], timeout=_PROOF_LIMIT_S)
        if not self._proof.done():
            raise Unavailable(f"The CA's key ({kind}) has not signed within {_PROOF_LIMIT_S:g} s")
        proof, self._proof = self._proof, None
        proof.result()

    async def close(self) -> None:
        """Give up what still waits for the key."""
        if self._proof is not None:
            self._proof.cancel()
            await asyncio.gather(self._proof, return_exceptions=True)

    async def push(self) -> None:
        """Write the lists where co-located puppetservers read them, if they changed; a failure is logged, once."""
        if not self.settings.push_crl:
            return
        # One after another: an older list must not replace a newer one.
        async with self._pushing:
            lists = await self.lists(whole=True)
            now = (lists.number, lists.updated_at)
            for path in self.settings.push_crl:
                if self._pushed.get(path) == now:
                    continue
                try:
                    await asyncio.to_thread(replace_for_readers, path, lists.pem)
                except MusterError as e:
                    if self._unpushed.get(path) != str(e):
                        _log.error("A puppetserver's revocation list is stale", file=str(path), why=str(e))
                    self._unpushed[path] = str(e)
                else:
                    self._pushed[path] = now
                    self._unpushed.pop(path, None)

    def build(self, revoked: Sequence[Revoked], number: int) -> tuple[str, str, float]:
        """Make the lists; a :data:`~muster.authority.ledger.ledger.Builder`."""
        now = self._now()
        ttl = timedelta(days=self.settings.crl_ttl_days)

        def made(entries: Sequence[Revoked]) -> str:
            pairs = [(r.serial, r.at) for r in entries]
            return profile.pem_of(profile.signed_list(self.issuer, self._key, pairs, number=number, now=now, ttl=ttl))

        infra = set(self.settings.infra_hosts)
        short = made([r for r in revoked if r.certname in infra]) if infra else ""
        return made(revoked), short, (now + ttl).timestamp()

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
        if name in self.settings.administrators and await self._ledger.knows(name, certificate.serial_number):
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

    def judge(self, request: CertificateRequest) -> None:
        """Refuse a request for what the settings do not allow.

        Raises:
            Rejected: as :func:`csr.refuse_content`.
        """
        csr.refuse_content(
            request,
            allow_alternatives=self.settings.allow_subject_alt_names,
            allow_authorisations=self.settings.allow_authorization_extensions,
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
            self.issuer,
            self._key,
            serial=profile.random_serial(),
            now=self._now(),
            ttl=ttl,
        )
        try:
            await self._ledger.issue(
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
            known = await self._ledger.known(name)
        except Rejected:
            # Nothing is known under a name that can be none; what else is wrong with it is said by whoever asked.
            return
        if known is not None and known.flaw is None:
            raise Rejected(_already(name, known.state))

    async def _raise_already(self, name: str, conflict: Conflict) -> NoReturn:
        """Say what is known under the name by now; it was lost to another one that came first."""
        known = await self._ledger.known(name)
        if known is None:
            raise Rejected(str(conflict)) from conflict
        raise Rejected(_already(name, known.state)) from conflict

    def _ttl(self, request: CertificateRequest) -> timedelta:
        renews = self.settings.allow_auto_renewal and request.wants_renewal
        return timedelta(days=self.settings.auto_renewal_ttl_days if renews else self.settings.cert_ttl_days)

    def issued(self, certificate: x509.Certificate) -> bool:
        """Whether this CA signed a certificate."""
        try:
            certificate.verify_directly_issued_by(self.issuer.certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True

    def _refuse_bad(self, one: x509.CertificateRevocationList, ancestor: x509.Certificate) -> None:
        now = self._now()
        ended = one.next_update_utc is not None and one.next_update_utc <= now
        if ended or one.last_update_utc > now or not one.is_signature_valid(ancestor.public_key()):  # type: ignore[arg-type]
            raise Rejected("Invalid certs and/or CRLs: Could not determine revocation status")
        ours = [c for c in self.issuer.chain if c.issuer == ancestor.subject and c != ancestor]
        for certificate in ours:
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                raise Rejected(
                    "Invalid certs and/or CRLs: Certificate has been revoked, "
                    f"{profile.common_name(certificate.subject)}, on {entry.revocation_date_utc:%Y-%m-%d}"
                )

    def _now(self) -> datetime:
        return self._clock.now().astimezone(UTC)


@contextlib.asynccontextmanager
async def opened(
    store: Store,
    settings: Settings,
    *,
    member: str,
    home: Path,
    state: Path | None = None,
    clock: Clock | None = None,
    reserved: Reserved | None = None,
) -> AsyncIterator[PuppetCA]:
    """Hold the CA open.

    ``home`` is where its key is by default; ``state`` is where its bundle and last lists are kept for times without the
    store, without it also ``home``. ``reserved`` are the cluster's names, which autosigning does not give away.

    Raises:
        Misconfigured: there is no CA yet, or its key is missing or another one's.
        Unavailable: the store does not answer, and this member has never seen the bundle.
    """
    ledger = Ledger(store, member)
    copies = Copies(state or home)
    try:
        chain = await ledger.chain()
        if chain is None:
            raise Misconfigured("The store holds no Puppet CA; muster ca init or muster ca import makes one")
        copies.keep_bundle(chain)
    except Unavailable:
        chain = copies.bundle()
        if chain is None:
            raise
    issuer = Issuer.read(chain)
    with contextlib.ExitStack() as stack:
        held = custody.opened(settings.key, issuer, home / "ca_key.pem")
        # In a thread: a signer process or a token may take long to answer.
        key = await asyncio.to_thread(stack.enter_context, held)
        ca = PuppetCA(
            ledger, settings, issuer, key, Autosign(store, settings, reserved), clock or SystemClock(), copies
        )
        try:
            await ca.lists()
        except Unavailable:
            ca.recall()
        try:
            yield ca
        finally:
            await ca.close()


def ttl_of(seconds: int) -> int:
    """Return a time to live that a certificate can have.

    Raises:
        Rejected: it is longer than a century.
    """
    if abs(seconds) > _LONGEST_TTL_S:
        raise Rejected(f"A certificate cannot be valid for {seconds} seconds")
    return seconds


def entry_of(certificate: x509.Certificate, name: str | None = None) -> Entry:
    """Return a certificate as the ledger keeps it."""
    return Entry(
        serial=certificate.serial_number,
        certname=name or profile.common_name(certificate.subject),
        pem=profile.pem_of(certificate),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        status=_json(profile.status_of(certificate)),
    )


def pending_of(request: CertificateRequest, *, source: str = "", flaw: str | None = None) -> Pending:
    """Return a request as the ledger keeps it."""
    status = _json(profile.status_of_request(request))
    return Pending(request.name, request.pem, request.sha256, status, source, flaw)


def _json(content: dict[str, object]) -> str:
    prints = content["fingerprints"]
    assert isinstance(prints, dict)  # noqa: S101 - made by profile
    return json.dumps({**content, "fingerprint": prints["SHA256"]}, ensure_ascii=False, separators=(",", ":"))


def _already(name: str, state: str) -> str:
    return f"{name} already has a {state} certificate; ignoring certificate request"


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
