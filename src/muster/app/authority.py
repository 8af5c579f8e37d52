"""The Puppet CA inside a member: opened when the store first answers, on a port of its own, kept up to date."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge

from muster.authority import api, own
from muster.authority.authority import PuppetCA
from muster.authority.authority import opened as authority_opened
from muster.authority.checks import MANY
from muster.authority.ledger.lookup import Published
from muster.authority.own import OwnFiles
from muster.authority.reserved import Reserved
from muster.authority.revocations import Revocations
from muster.authority.x509.profile import Issuer, common_name, crls_in
from muster.cluster.file import Authority
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Gate
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.pki.context import server_context

if TYPE_CHECKING:
    from muster.app.member import MemberProcess

_log = log.logger("app")

LISTENER = "puppetca"
_BEATS_PER_PROOF = 5


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


class AuthorityProcess:
    """One member's Puppet CA.

    Attributes:
        ca: None until it could be opened.
        trouble: why it could not, or could not be kept up to date; empty when all is well.
        revocations: which of its certificates are revoked; answers also while the CA is not open.
    """

    def __init__(
        self,
        settings: Authority,
        home: Path,
        state: Path,
        revocations: Revocations,
        reserved: Reserved | None = None,
    ) -> None:
        """``home`` is where its key is by default; ``state`` is where it keeps what it writes itself.

        ``reserved`` are the cluster's names; without them those that the settings alone name.
        """
        self.revocations = revocations
        self.ca: PuppetCA | None = None
        self.trouble = "it is not open yet"
        self._settings = settings
        self._home = home
        self._state = state
        self._reserved = reserved
        self._beats = itertools.count()
        self._stack = contextlib.AsyncExitStack()
        self._listens = False
        self._metrics: _Metrics | None = None
        self._shown: Published | None = None

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

    async def kept(self, process: MemberProcess, *, thoroughly: bool = True) -> None:
        """Open what is not open, follow the list, now and then try the key, and, thoroughly, renew what ends soon.

        Never raises: the member serves without it.
        """
        try:
            ca = await self._kept(process, thoroughly=thoroughly or bool(self.trouble) or not self._listens)
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

    async def _kept(self, process: MemberProcess, *, thoroughly: bool) -> PuppetCA:
        if self.ca is None:
            name = str(process.member.name)
            self.ca = await self._stack.enter_async_context(
                authority_opened(
                    process.store,
                    self._settings,
                    member=name,
                    home=self._home,
                    state=self._state,
                    reserved=self._reserved,
                )
            )
        ca, before = self.ca, self.ca.list_now
        if thoroughly:
            await self._certified(process, ca)
            await ca.keep_up()
        else:
            await ca.follow()
            if ca.list_now is not before:
                # It may name the certificate that is shown here.
                await self._certified(process, ca)
        if thoroughly or next(self._beats) % _BEATS_PER_PROOF == 0:
            await ca.prove()
        self._measured(process, ca)
        return ca

    def _in_trouble(self, why: str, *, defect: Exception | None = None) -> None:
        if self.trouble != why:
            _log.warning("The Puppet CA is not in order", why=why, exc_info=defect)
        self.trouble = why

    def _measured(self, process: MemberProcess, ca: PuppetCA) -> None:
        if self._metrics is None:
            self._metrics = _Metrics(process.metrics.registry)
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

    async def _certified(self, process: MemberProcess, ca: PuppetCA) -> None:
        member = str(process.member.name)
        files = OwnFiles(self._state / "members" / member.lower())
        names = [str(n) for n in process.cluster.names]
        renewed = await own.ensured(ca, files, member=member, names=names)
        if self._listens and not renewed:
            return
        context = server_context(files.certificate, files.key, [files.ca])
        if self._listens:
            process.server.present(context, name=LISTENER)
            return
        service = process.balancing.service("puppetca")
        if service is None:
            return
        application = Application(
            # Whoever is verified here shows a certificate of this very CA, which is asked for its revocation below.
            gate=Gate(process.gate.callers),
            features=process.features,
            mounts=[Mounted(api.MOUNT, ca)],
            limits=process.cluster.edge,
            rings=process.rings,
            metrics=process.metrics,
            access_log=process.access_log,
            foreman=False,
            budget=process.application.budget,
        )
        process.server.listen(LISTENER, process.listens_on, service.member_port, context, application)
        application.draining = bool(process.health.draining)
        self._listens = True
