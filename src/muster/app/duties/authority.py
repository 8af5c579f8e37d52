"""The Puppet CA inside a member: opened when the store first answers, on a port of its own, kept up to date."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from cryptography import x509
from prometheus_client import CollectorRegistry, Gauge

from muster.app.duties.duty import Duty, Found
from muster.app.listeners import Listeners
from muster.authority import own
from muster.authority.authority import PuppetCA
from muster.authority.authority import opened as authority_opened
from muster.authority.checks import MANY
from muster.authority.ledger.lookup import Published
from muster.authority.own import OwnFiles
from muster.authority.ports import PUPPETCA
from muster.authority.reserved import Reserved
from muster.authority.revocations import Revocations
from muster.authority.x509.profile import Issuer, common_name, crls_in
from muster.cluster.file import Authority
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.pki.context import server_context
from muster.store.engine import Store

_log = log.logger("app")

_BEATS_PER_PROOF = 5
_BEATS_PER_THOROUGH_LOOK = 60


class _Metrics:
    """What ends, and the list this member serves: members whose numbers stay apart do not see the same store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.ends = Gauge("muster_puppet_ca_expiry_timestamp_seconds", "When the Puppet CA ends", registry=registry)
        self.list_ends = Gauge(
            "muster_puppet_ca_crl_expiry_timestamp_seconds", "When the revocation list ends", registry=registry
        )
        self.list_number = Gauge(
            "muster_puppet_ca_crl_number", "Number of the revocation list this member serves", registry=registry
        )
        self.ancestors_end = Gauge(
            "muster_puppet_ca_ancestor_expiry_timestamp_seconds",
            "When the certificate or the revocation list of a CA above the Puppet CA ends",
            ("what", "ca"),
            registry=registry,
        )
        self.waiting = Gauge(
            "muster_puppet_ca_requests_waiting",
            "Certificate requests that wait for an administrator",
            registry=registry,
        )
        self.waiting_limit = Gauge(
            "muster_puppet_ca_requests_waiting_limit", "How many certificate requests may wait", registry=registry
        )

    def show_ancestors(self, issuer: Issuer, lists_pem: str) -> None:
        """Set when each ancestor's certificate and list end; those that are gone are forgotten."""
        self.ancestors_end.clear()
        for certificate in issuer.chain[1:]:
            name = common_name(certificate.subject)
            self.ancestors_end.labels("certificate", name).set(certificate.not_valid_after_utc.timestamp())
        for one in crls_in(lists_pem):
            if one.next_update_utc is not None:
                self.ancestors_end.labels("list", common_name(one.issuer)).set(one.next_update_utc.timestamp())


class PuppetCAKept(Duty):
    """One member's Puppet CA: opened as soon as it can be, then its list and its port's certificate are kept up to date.

    Args:
        names: of the cluster; its port's certificate carries them.
        home: where its key is by default.
        state: where it keeps what it writes itself.
        reserved: the cluster's names; without them those that the settings alone name.

    Attributes:
        ca: None until it could be opened.
        trouble: why it could not, or could not be kept up to date; empty when all is well.
        revocations: which of its certificates are revoked; answers also while the CA is not open.
    """

    name = "puppet ca"
    # It was tried before the first listener opened.
    begins_at_once = False

    def __init__(
        self,
        settings: Authority,
        store: Store,
        member: str,
        names: Sequence[str],
        home: Path,
        state: Path,
        revocations: Revocations,
        registry: CollectorRegistry,
        *,
        listeners: Listeners,
        reserved: Reserved | None = None,
    ) -> None:
        self.revocations = revocations
        self.ca: PuppetCA | None = None
        self.trouble = "it is not open yet"
        self._settings = settings
        self._store = store
        self._member = member
        self._names = names
        self._home = home
        self._state = state
        self._reserved = reserved
        self._registry = registry
        self._listeners = listeners
        self._beats = itertools.count()
        self._proofs = itertools.count()
        self._stack = contextlib.AsyncExitStack()
        self._listens = False
        self._metrics: _Metrics | None = None
        self._shown: Published | None = None

    def certificates(self) -> Sequence[x509.Certificate] | None:
        """Return the CA's certificate and those above it; None as long as it could not be opened."""
        return None if self.ca is None else self.ca.issuer.chain

    @property
    def is_open(self) -> bool:
        return self._listens

    @property
    def notes(self) -> tuple[str, ...]:
        """What is wrong but keeps nobody from being signed."""
        limit = self._settings.pending_limit
        if self.ca is None or self.ca.waiting < MANY * limit:
            return ()
        return (f"{self.ca.waiting} certificate requests wait for an administrator, and {limit} may",)

    @property
    def ends(self) -> dict[str, datetime]:
        """When the CA ends, by the name under which metrics say so; empty while it is not open."""
        return {} if self.ca is None else {"puppet-ca": self.ca.issuer.certificate.not_valid_after_utc}

    def found(self) -> Found:
        why = self.trouble or self._store.trouble
        notes = (*self.notes, *((self.revocations.note,) if self.revocations.note else ()))
        return Found({"puppetca": f"the Puppet CA: {why}"} if why else {}, notes=notes)

    async def beat(self) -> None:
        await self.kept(thoroughly=next(self._beats) % _BEATS_PER_THOROUGH_LOOK == 0)

    async def kept(self, *, thoroughly: bool = True) -> None:
        """Open what is not open, follow the list, now and then try the key, and, thoroughly, renew what ends soon.

        Never raises: the member serves without it.
        """
        try:
            ca = await self._kept(thoroughly=thoroughly or bool(self.trouble) or not self._listens)
            self.revocations.heard()
        except MusterError as e:
            self._in_trouble(str(e))
        except OSError as e:
            where = f" {e.filename}" if e.filename else ""
            self._in_trouble(f"Using{where or ' a file'} failed: {e.strerror or e}")
        except Exception as e:  # noqa: BLE001 - boundary: whatever is wrong with the CA, the member serves the rest
            self._in_trouble(f"A defect of Muster: {type(e).__name__}: {e}", defect=e)
        else:
            if self.trouble:
                _log.info("The Puppet CA signs", ca=ca.issuer.common_name)
            self.trouble = ""

    async def _kept(self, *, thoroughly: bool) -> PuppetCA:
        if self.ca is None:
            self.ca = await self._stack.enter_async_context(
                authority_opened(
                    self._store,
                    self._settings,
                    member=self._member,
                    home=self._home,
                    state=self._state,
                    reserved=self._reserved,
                )
            )
        ca, before = self.ca, self.ca.list_now
        if thoroughly:
            await self._certified(ca)
            await ca.keep_up()
        else:
            await ca.follow()
            if ca.list_now is not before:
                # It may name the certificate that is shown here.
                await self._certified(ca)
        if thoroughly or next(self._proofs) % _BEATS_PER_PROOF == 0:
            await ca.prove()
        self._measured(ca)
        return ca

    def _in_trouble(self, why: str, *, defect: Exception | None = None) -> None:
        if self.trouble != why:
            _log.warning("The Puppet CA is not in order", why=why, exc_info=defect)
        self.trouble = why

    def _measured(self, ca: PuppetCA) -> None:
        if self._metrics is None:
            self._metrics = _Metrics(self._registry)
        self._metrics.ends.set(ca.issuer.certificate.not_valid_after_utc.timestamp())
        if ca.list_now is not None:
            self._metrics.list_ends.set(ca.list_now.next_update)
            self._metrics.list_number.set(ca.list_now.number)
            if ca.list_now is not self._shown:
                self._metrics.show_ancestors(ca.issuer, ca.list_now.ancestors_pem)
                self._shown = ca.list_now
        self._metrics.waiting.set(ca.waiting)
        self._metrics.waiting_limit.set(ca.settings.pending_limit)

    async def close(self) -> None:
        await self._stack.aclose()

    async def _certified(self, ca: PuppetCA) -> None:
        files = OwnFiles(self._state / "members" / self._member.lower())
        renewed = await own.ensured(ca, files, member=self._member, names=list(self._names))
        if self._listens and not renewed:
            return
        context = server_context(files.certificate, files.key, [files.ca])
        if self._listens:
            self._listeners.present(PUPPETCA, context)
        else:
            self._listens = self._listeners.open(PUPPETCA, context, ca)
