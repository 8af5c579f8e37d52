"""The certificate this member shows, whom it trusts, and when what clients depend on ends."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from muster.app.duties.duty import Duty, Found
from muster.edge.authorise import Gate
from muster.edge.metrics import EdgeMetrics
from muster.kernel import log
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.files import fingerprint
from muster.pki import pem as pems
from muster.pki.bundles import BundlePaths, certificate_facts
from muster.pki.bundles import paths as bundle_paths
from muster.pki.complaints import ALARM_DAYS, alarms
from muster.pki.context import server_context
from muster.pki.facts import CertificateFacts
from muster.pki.trust import RevocationLists, Trust

_log = log.logger("app")

_BEATS_PER_LOOK_AT_ENDS = 60
_EXPIRY_NOTICE_S = 30 * 86400
# Under these names /logs lists what was refused.
_CERTIFICATE, _LIST = "certificate", "revocation list"


@dataclass(frozen=True)
class TrustFiles:
    """Where it stands who a member is and whom it trusts.

    Attributes:
        pki: the cluster's PKI directory on this host.
        site_ca: Foreman's CA, where it is not the cluster's.
        site_crl: the revocation list of that CA.
    """

    bundle: BundlePaths
    pki: Path
    site_ca: Path | None = None
    site_crl: Path | None = None

    @property
    def ca_files(self) -> list[Path]:
        return [self.bundle.ca, *([self.site_ca] if self.site_ca else [])]

    @property
    def fingerprint(self) -> tuple[object, ...]:
        return fingerprint(self.bundle.certificate, self.bundle.key, *self.ca_files)


class Certificates(Duty):
    """Presents what lies on the disk; garbage is refused, and the old one keeps serving.

    Args:
        present: shows new clients another context wherever they are shown the member's certificate.
        refused: where ``/logs`` lists what is wrong; this duty's two entries are kept there.
        further_ends: returns when other things end that this member serves with, by what they are.

    Attributes:
        presented: what the certificate says that clients are shown now; None before :meth:`begin`.
    """

    name = "certificates"

    def __init__(
        self,
        files: TrustFiles,
        gate: Gate,
        present: Callable[[ssl.SSLContext], None],
        metrics: EdgeMetrics,
        refused: dict[str, str],
        further_ends: Callable[[], Mapping[str, datetime]],
    ) -> None:
        self.presented: CertificateFacts | None = None
        self._files = files
        self._gate = gate
        self._present = present
        self._metrics = metrics
        self._refused = refused
        self._further_ends = further_ends
        self._beats = 0
        self._on_disk: tuple[object, ...] = ()
        self._ends: dict[str, datetime] = {}
        self._lists_seen: tuple[object, ...] = ()

    async def begin(self) -> None:
        """Trust whom the files name, before anybody can ask: until the list is read, it would revoke nobody.

        Raises:
            Misconfigured: a file cannot be used.
        """
        # Before they are read: what changes meanwhile is read again with the first beat.
        self._on_disk = self._files.fingerprint
        self._trust()
        await self._follow_lists()
        if refused := self._refused.get(_LIST):
            raise Misconfigured(refused)
        self._note()

    async def beat(self) -> None:
        self.reload(only_if_changed=True)
        await self._follow_lists()
        if self._beats % _BEATS_PER_LOOK_AT_ENDS == 0:
            self.look_at_ends()
        self._beats += 1
        self.sound_alarms()

    def reload(self, *, only_if_changed: bool = False) -> None:
        """Build a new TLS context from the files and present it; garbage is refused and the old one keeps serving."""
        found = self._files.fingerprint
        if only_if_changed and found == self._on_disk:
            return
        # Remembered also when it is refused: the same garbage is not tried, and logged, every second.
        self._on_disk = found
        bundle = self._files.bundle
        try:
            context = server_context(bundle.certificate, bundle.key, self._files.ca_files)
            self._trust()
            facts = certificate_facts(bundle)
        except MusterError as e:
            _log.error("New certificate refused; the old one keeps serving", why=str(e))
            self._refused[_CERTIFICATE] = str(e)
            return
        self._present(context)
        self._note()
        self._refused.pop(_CERTIFICATE, None)
        _log.info("Certificate presented", names=", ".join(facts.names), expires=facts.not_after.isoformat())

    def as_json(self) -> dict[str, object]:
        """Return what the presented certificate is, as other members read it in the store; empty when there is none."""
        facts = self.presented
        if facts is None:
            return {}
        return {
            "common_name": facts.subject_cn,
            "names": list(facts.names),
            "not_after": facts.not_after.timestamp(),
            "fingerprint_sha256": facts.fingerprint_sha256,
        }

    def found(self) -> Found:
        return Found(out=self._out(), notes=self._notes())

    def look_at_ends(self) -> None:
        """Learn from the files of this host when those end on which clients or checks depend."""
        check = bundle_paths(self._files.pki, "balancer", "balancer").certificate
        found = {
            "member": self.presented.not_after if self.presented else None,
            "cluster-ca": _end_of_issuers(self._files.bundle),
            "balancer-check": _end_of(check),
        }
        self._ends = {what: end for what, end in found.items() if end is not None}

    def sound_alarms(self) -> None:
        """Set the gauges that say how near the ends are."""
        now = datetime.now(UTC)
        end = self.presented.not_after if self.presented else datetime.fromtimestamp(0, UTC)
        sounding = alarms(end, now)
        for days in ALARM_DAYS:
            self._metrics.certificate_alarm.labels(str(days)).set(days in sounding)
        self._metrics.show_ends({**self._ends, **self._further_ends()}, now)

    def _trust(self) -> None:
        """Judge clients by the CAs that the files name now.

        Raises:
            Misconfigured: one is absent or no PEM; the CAs from before count on.
        """
        own, *others = self._files.ca_files
        trust = Trust.read(own, others)
        # The same CAs are the same trust, also by identity: nobody who was taken under it is looked at again.
        if trust != self._gate.trust:
            self._gate.trust = trust

    async def _follow_lists(self) -> None:
        """Take a changed revocation list of Foreman's CA; one that cannot be used is refused and the old one counts."""
        path = self._files.site_crl
        trust = self._gate.trust
        if path is None or trust is None:
            return
        found = (*fingerprint(path), trust)
        if found == self._lists_seen:
            return
        self._lists_seen = found
        try:
            # A list of many revocations takes its time to read.
            self._gate.lists = await asyncio.to_thread(RevocationLists.read, path, trust)
        except MusterError as e:
            _log.error("New revocation list refused; the old one counts", why=str(e))
            self._refused[_LIST] = str(e)
            return
        self._refused.pop(_LIST, None)
        _log.info("Revocation list read", file=str(path), revoked=sum(map(len, self._gate.lists.serials.values())))

    def _note(self) -> None:
        self.presented = certificate_facts(self._files.bundle)
        self._metrics.certificate_expiry.set(self.presented.not_after.timestamp())
        self.look_at_ends()
        self.sound_alarms()

    def _out(self) -> Sequence[str]:
        facts, now = self.presented, datetime.now(UTC)
        if facts is not None and now > facts.not_after:
            return (f"the certificate expired on {facts.not_after:%Y-%m-%d %H:%M} UTC",)
        if facts is not None and now < facts.not_before:
            start = f"{facts.not_before:%Y-%m-%d %H:%M} UTC"
            return (f"the certificate is valid only from {start} on: this host's clock is wrong, or its issuer's was",)
        return ()

    def _notes(self) -> Sequence[str]:
        found = []
        left = self.presented.not_after.timestamp() - time.time() if self.presented else 0.0
        if 0 < left < _EXPIRY_NOTICE_S:
            found.append(f"the certificate expires in {int(left // 86400)} days")
        if refused := self._refused.get(_CERTIFICATE):
            found.append(f"a new certificate was refused: {refused}")
        if refused := self._refused.get(_LIST):
            found.append(f"a new revocation list was refused: {refused}")
        ends = self._gate.lists.ends
        if ends is not None and ends <= datetime.now(UTC):
            found.append(f"the revocation list {self._files.site_crl} ended on {ends:%Y-%m-%d %H:%M} UTC")
        return found


def _end_of(certificate: Path) -> datetime | None:
    """Return when the first certificate of a file ends, None when there is none to read."""
    try:
        return pems.certificates(certificate.read_bytes(), str(certificate))[0].not_valid_after_utc
    except (OSError, MusterError):
        return None


def _end_of_issuers(bundle: BundlePaths) -> datetime | None:
    """Return when the first of those ends that issued a bundle's certificate; a CA that is only still trusted did not."""
    try:
        current = pems.certificates(bundle.certificate.read_bytes(), str(bundle.certificate))[0]
        trusted = pems.certificates(bundle.ca.read_bytes(), str(bundle.ca))
    except (OSError, MusterError):
        return None
    ends = []
    while (issuer := next((c for c in trusted if pems.signed_by(current, c)), None)) is not None:
        ends.append(issuer.not_valid_after_utc)
        trusted.remove(issuer)
        current = issuer
    return min(ends, default=None)
