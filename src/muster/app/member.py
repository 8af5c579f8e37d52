"""One member from its settings to its last reply.

Rooms are opened in order on one stack and closed in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import CollectorRegistry, Gauge, GCCollector, PlatformCollector, ProcessCollector

from muster import features as rooms
from muster.app.resolution import Resolved
from muster.app.settings import cluster_store, loaded
from muster.balancer.model import Balancing, Question, modelled, signs_itself
from muster.cluster.file import SCHEMA_VERSION, ClusterFile, Member
from muster.cluster.roster import Report, Roster, Told
from muster.cluster.sections import Disk
from muster.cluster.steward import Steward
from muster.cluster.timeline import Timeline as SharedTimeline
from muster.edge import health, logs, metrics, root
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Callers, Gate, Names, SystemNames
from muster.edge.feature import Feature, Features, FeatureSettings, ProvidedFeatureSettings, Served, State, Surroundings
from muster.edge.health import Health
from muster.edge.metrics import EdgeMetrics
from muster.edge.server import Server
from muster.edge.server import opened as server_opened
from muster.kernel import log
from muster.kernel.clock import SystemClock, system_chance
from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import fingerprint
from muster.kernel.rings import LogRings
from muster.observed.parity import compared, of_certificate, of_muster, of_wire
from muster.observed.programs import Asker, believing
from muster.observed.rounds import DriftMetrics, Rounds
from muster.observed.statements import Statements
from muster.pki import pem as pems
from muster.pki.bundles import BundlePaths, certificate_facts
from muster.pki.bundles import paths as bundle_paths
from muster.pki.complaints import ALARM_DAYS, alarms
from muster.pki.context import server_context
from muster.pki.facts import CertificateFacts
from muster.pki.trust import RevocationLists, Trust
from muster.policy.metered import OperationMetrics
from muster.store.engine import Store
from muster.store.place import Place
from muster.version import VERSION

if TYPE_CHECKING:
    from muster.app.authority import AuthorityProcess
    from muster.observed.census import Census

_log = log.logger("app")

# What mallopt calls them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8

_BEAT_S = 1.0
_LAST_BEAT_S = 2.0
_PROBE_TIMEOUT_S = 1.0
_BEATS_PER_RESOLUTION = 30
_BEATS_PER_PROVIDER_PROBE = 5
_PROVIDER_TIMEOUT_S = 8.0
_BEATS_PER_COMPARISON = 10
_BEATS_PER_AUTHORITY = 60
_BEATS_PER_LOOK_AT_ENDS = 60
_EXPIRY_NOTICE_S = 30 * 86400
# Below it SQLite's next write-ahead log, or the next certificate, may not fit.
_LEAST_ROOM_BYTES = 32 << 20


@dataclass(frozen=True)
class MemberOptions:
    """The settings only this host knows; everything else is in the cluster file.

    Attributes:
        bind: address to listen on; None: the member's own when it is a loopback address, else every address.
        state: where the member keeps what it writes itself; None: among its certificates.
    """

    cluster_file: Path
    member: str
    pki: Path
    bind: str | None = None
    log_form: Literal["json", "text"] = "text"
    state: Path | None = None


@dataclass
class MemberProcess:
    """One serving member. Use :func:`member_opened`."""

    options: MemberOptions
    cluster: ClusterFile
    member: Member
    bundle: BundlePaths
    store: Store
    features: Features
    health: Health
    rings: LogRings
    metrics: EdgeMetrics
    application: Application
    server: Server
    balancing: Balancing
    timeline: SharedTimeline
    drift: Gauge
    gate: Gate
    balancers: Resolved
    access_log: Callable[[str], None] | None = None
    stopping: bool = False
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    unreached: dict[str, str] = field(default_factory=dict)
    _presented: tuple[object, ...] = ()
    _certificate: dict[str, object] = field(default_factory=dict)
    _presented_facts: CertificateFacts | None = None
    _expires_at: float = 0.0
    authority: AuthorityProcess | None = None
    _drifted: tuple[str, ...] = ()
    _cluster_file: tuple[object, ...] = ()
    _disk_notes: list[str] = field(default_factory=list)
    _short: dict[str, str] = field(default_factory=dict)
    _looks: dict[Path, asyncio.Task[str]] = field(default_factory=dict)
    _ends: dict[str, datetime] = field(default_factory=dict)
    _lists_seen: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        self.listed = self.cluster
        self.disks = _watched(self.cluster, self.options)
        # Nobody gets clients of a program that has not answered yet.
        self._programs = {s: f"the program on port {q.port} was not asked yet" for s, q in self.beside.items()}
        self.health.down = dict(self._programs)
        # Name and start: a member that starts again must not take its dead predecessor's role for its own.
        self.holder = f"member {self.member.name} {os.getpid()}.{time.time_ns()}"
        self.rounds = Rounds(self.store, self.holder, self.census, clock=SystemClock(), chance=system_chance())
        self.census_metrics = DriftMetrics(self.metrics.registry)

    @property
    def beside(self) -> dict[str, Question]:
        """What the programs on this host that serve ports of their own are asked, by service."""
        name = str(self.member.name).lower()
        servers = ((s.name, v) for s in self.balancing.services for v in s.servers if v.name == name)
        return {service: server.beside for service, server in servers if server.beside is not None}

    @property
    def listens_on(self) -> str:
        """The address of this member's listeners; ``*`` for every one."""
        return self.options.bind or _own_address(self.member.address)

    @property
    def ca_files(self) -> list[Path]:
        extra = self.cluster.foreman.ca_file
        return [self.bundle.ca, *([extra] if extra else [])]

    def reload_certificates(self, *, only_if_changed: bool = False) -> None:
        """Build a new TLS context from the files and present it; garbage is refused and the old one keeps serving."""
        fingerprint = self._files_on_disk()
        if only_if_changed and fingerprint == self._presented:
            return
        # Remembered also when it is refused: the same garbage is not tried, and logged, every second.
        self._presented = fingerprint
        try:
            context = server_context(self.bundle.certificate, self.bundle.key, self.ca_files)
            self.trust_files()
            facts = certificate_facts(self.bundle)
        except MusterError as e:
            _log.error("New certificate refused; the old one keeps serving", why=str(e))
            self.rings.failed_modules["certificate"] = str(e)
            return
        self.server.present(context, self.gate.trust)
        self._note_certificate()
        self.rings.failed_modules.pop("certificate", None)
        _log.info("Certificate presented", names=", ".join(facts.names), expires=facts.not_after.isoformat())

    def trust_files(self) -> None:
        """Judge clients by the CAs that the files name now.

        Raises:
            Misconfigured: one is absent or no PEM; the CAs from before count on.
        """
        own, *others = self.ca_files
        trust = Trust.read(own, others)
        # The same CAs are the same trust, also by identity: nobody who was taken under it is looked at again.
        if trust != self.gate.trust:
            self.gate.trust = trust

    async def follow_lists(self) -> None:
        """Take a changed revocation list of Foreman's CA; one that cannot be used is refused and the old one counts."""
        path = self.cluster.foreman.crl_file
        trust = self.gate.trust
        if path is None or trust is None:
            return
        found = (*fingerprint(path), trust)
        if found == self._lists_seen:
            return
        self._lists_seen = found
        try:
            # A list of many revocations takes its time to read.
            self.gate.lists = await asyncio.to_thread(RevocationLists.read, path, trust)
        except MusterError as e:
            _log.error("New revocation list refused; the old one counts", why=str(e))
            self.rings.failed_modules["revocation list"] = str(e)
            return
        self.rings.failed_modules.pop("revocation list", None)
        _log.info("Revocation list read", file=str(path), revoked=sum(map(len, self.gate.lists.serials.values())))

    def _note_certificate(self) -> None:
        facts = self._presented_facts = certificate_facts(self.bundle)
        self._expires_at = facts.not_after.timestamp()
        self._certificate = {
            "common_name": facts.subject_cn,
            "names": list(facts.names),
            "not_after": self._expires_at,
            "fingerprint_sha256": facts.fingerprint_sha256,
        }
        self.metrics.certificate_expiry.set(self._expires_at)
        self.look_at_ends()
        self.sound_alarms()

    def look_at_ends(self) -> None:
        """Learn from the files of this host when those end on which clients or checks depend."""
        check = bundle_paths(self.options.pki, "balancer", "balancer").certificate
        found = {
            "member": self._presented_facts.not_after if self._presented_facts else None,
            "cluster-ca": _end_of_issuers(self.bundle),
            "balancer-check": _end_of(check),
        }
        self._ends = {what: end for what, end in found.items() if end is not None}

    def sound_alarms(self) -> None:
        """Set the gauges that say how near the ends are."""
        now = datetime.now(UTC)
        sounding = alarms(datetime.fromtimestamp(self._expires_at, UTC), now)
        for days in ALARM_DAYS:
            self.metrics.certificate_alarm.labels(str(days)).set(days in sounding)
        ca = self.authority.ca if self.authority is not None else None
        puppet = {"puppet-ca": ca.issuer.certificate.not_valid_after_utc} if ca is not None else {}
        self.metrics.show_ends({**self._ends, **puppet}, now)

    def _files_on_disk(self) -> tuple[object, ...]:
        return fingerprint(self.bundle.certificate, self.bundle.key, *self.ca_files)

    def certificate_reasons(self) -> Sequence[str]:
        facts, now = self._presented_facts, datetime.now(UTC)
        if facts is not None and now > facts.not_after:
            return (f"the certificate expired on {facts.not_after:%Y-%m-%d %H:%M} UTC",)
        if facts is not None and now < facts.not_before:
            start = f"{facts.not_before:%Y-%m-%d %H:%M} UTC"
            return (f"the certificate is valid only from {start} on: this host's clock is wrong, or its issuer's was",)
        return ()

    def notes(self) -> Sequence[str]:
        """Return what is wrong but takes no service out."""
        found = [f"feature {name}: {why}" for name, why in self.unreached.items() if not self._is_essential(name)]
        if self.store.trouble:
            found.append(self.store.trouble)
        found += self._disk_notes
        if self.authority is not None:
            found += self.authority.notes
        left = self._expires_at - time.time()
        if self._expires_at and 0 < left < _EXPIRY_NOTICE_S:
            found.append(f"the certificate expires in {int(left // 86400)} days")
        refused = self.rings.failed_modules.get("certificate")
        if refused:
            found.append(f"a new certificate was refused: {refused}")
        if listed := self.rings.failed_modules.get("revocation list"):
            found.append(f"a new revocation list was refused: {listed}")
        ends = self.gate.lists.ends
        if ends is not None and ends <= datetime.now(UTC):
            found.append(f"the revocation list {self.cluster.foreman.crl_file} ended on {ends:%Y-%m-%d %H:%M} UTC")
        if self.authority is not None and self.authority.revocations.note:
            found.append(self.authority.revocations.note)
        return found

    def drain(self, reason: str) -> None:
        """Ask for no new clients: readiness says draining and every reply closes its connection."""
        if not self.health.draining:
            _log.info("Draining", why=reason)
        self.health.draining = reason
        self.server.drain(True)

    def readmit(self) -> None:
        if self.health.draining and not self.stopping:
            _log.info("Taking clients again")
            self.health.draining = ""
            self.server.drain(False)

    def obey(self, told: Told) -> None:
        """Take clients or send them away as was decided about this member; a stopping member only stops."""
        if self.stopping:
            return
        if told.leaving:
            self.drain(told.leaving)
        else:
            self.readmit()

    def look_at_cluster_file(self) -> None:
        """Learn of members that came or went; every other setting holds until the next start."""
        now = fingerprint(self.options.cluster_file)
        if now == self._cluster_file:
            return
        self._cluster_file = now
        try:
            self.listed = loaded(self.options.cluster_file)
        except MusterError as e:
            _log.warning("The changed cluster file cannot be used; the members of the old one count", why=str(e))

    def report(self) -> Report:
        verdicts = {s: self.health.verdict(s) for s in sorted(self.health.services)}
        state = "stopping" if self.stopping else "draining" if self.health.draining else "ready"
        return Report(
            name=str(self.member.name),
            member_id=self.member.id,
            version=VERSION,
            schema_version=str(SCHEMA_VERSION),
            host=socket.gethostname(),
            pid=os.getpid(),
            state="starting" if self.health.starting else state,  # type: ignore[arg-type]
            reason=self.health.draining,
            features={name: s.state.value for name, s in self.features.served.items()},
            readiness={s: {"state": v.state, "reason": v.reason} for s, v in verdicts.items()},
            certificate=self._certificate,
        )

    def facts(self) -> dict[str, Any]:
        """Return what this member is made of, field for field what :mod:`muster.observed.census` hears on the wire."""
        running = self.features.running()
        told = self.features.version
        version = {"version": told, "modules": dict.fromkeys(running, told)}
        features = {name: s.as_json() for name, s in self.features.served.items()}
        own = (str(self.member.name), self.member.address)
        # Not from the disk: what lies there may have been refused.
        presented = self._presented_facts
        return {
            **of_wire(version, features, running),
            "certificate": {"smartproxy": of_certificate(presented, own, datetime.now(UTC)) if presented else {}},
            # Members that came or went are known without a restart; every other setting is the one from the start.
            "muster": of_muster(
                VERSION, SCHEMA_VERSION, self.cluster.model_copy(update={"members": self.listed.members})
            ),
        }

    async def compare(self) -> None:
        """Tell the store what this member is made of, and count the fields in which it differs from most of the others.

        Raises:
            Unavailable: the store did not answer.
        """
        name = str(self.member.name)
        statements = Statements(self.store)
        await statements.give(name, self.facts())
        drifts = compared(await statements.told(), self.cluster.expected_differences)
        mine = tuple(d.field for d in drifts if name in d.differing)
        self.drift.set(len(mine))
        if mine != self._drifted:
            self._drifted = mine
            if mine:
                _log.warning("This member drifted from the others", fields=", ".join(mine))
            else:
                _log.info("This member is like the others again")

    async def watch_parity(self) -> None:
        """Now and then, when no other process does: compare all members, Ruby ones and live ports included."""
        while await self.pause():
            try:
                if await self.rounds.beat():
                    self.census_metrics.show(self.rounds.last, datetime.now(UTC))
            except MusterError as e:
                _log.debug("The members were not compared", why=str(e))
        with contextlib.suppress(MusterError):
            await self.rounds.resign()

    def census(self) -> Census:
        """Return the census as this member can take it: as a trusted host where it has the bundle of one, else as itself."""
        # It brings an HTTP client with it, which only the one member needs that takes the census.
        from muster.observed.census import Census

        clients = (bundle_paths(self.options.pki, "client", name) for name in self.cluster.trusted_names)
        shown = next((c for c in clients if c.certificate.exists()), self.bundle)
        # Members that came or went are known without a restart.
        cluster = self.cluster.model_copy(update={"members": self.listed.members})
        return Census(
            cluster, modelled(cluster), self.bundle.ca, shown.certificate, shown.key, datetime.now(UTC), openly=True
        )

    async def pause(self) -> bool:
        """Wait one beat; false when the member closes and there is no next one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BEAT_S):
                await self.closing.wait()
        return not self.closing.is_set()

    async def watch_balancers(self) -> None:
        """Follow the balancers' names: now and then, and each beat while one does not resolve."""
        for beat in itertools.count(1):
            if not await self.pause():
                return
            if beat % _BEATS_PER_RESOLUTION == 0 or not self.balancers.is_complete:
                await self.balancers.refresh()
                self.server.trust(self.balancers.addresses)

    async def watch_locally(self) -> None:
        """Each beat: certificates on disk, room on disks, readiness as metrics."""
        for beat in itertools.count():
            self.reload_certificates(only_if_changed=True)
            await self.follow_lists()
            if beat % _BEATS_PER_LOOK_AT_ENDS == 0:
                self.look_at_ends()
            self.sound_alarms()
            self._short = await self._short_of_room()
            self.judge()
            if not await self.pause():
                return

    def judge(self) -> None:
        """Say of every service whether it is ready, from what was last seen."""
        self.health.down = _joined(self._programs, self._out_of_order(), self._short, self._not_signing())
        verdicts = {s: self.health.verdict(s) for s in self.health.services}
        self.metrics.judge({s: "" if v.status == 200 else v.reason or v.state for s, v in verdicts.items()})

    async def watch_programs(self) -> None:
        """Each beat: do the programs answer that serve other ports on this host? One that hangs holds no other up."""
        asker = Asker(str(self.cluster.address), believing(self.bundle.certificate, self.bundle.key))
        async with asyncio.TaskGroup() as group:
            for service, question in self.beside.items():
                group.create_task(self._watch_program(asker, service, question))
            await self.closing.wait()

    async def _watch_program(self, asker: Asker, service: str, question: Question) -> None:
        while True:
            why = await asker.unproven(self.member.address, question)
            if why != self._programs.get(service, ""):
                self._programs = {s: w for s, w in {**self._programs, service: why}.items() if w}
                self.judge()
            if not await self.pause():
                return

    def _not_signing(self) -> dict[str, str]:
        if self.authority is None:
            return {}
        why = self.authority.trouble or self.store.trouble
        return {"puppetca": f"the Puppet CA: {why}"} if why else {}

    async def watch_authority(self) -> None:
        """Open the Puppet CA as soon as it can be, then keep its list and its port's certificate up to date."""
        for beat in itertools.count():
            if not await self.pause():
                return
            if self.authority is not None:
                await self.authority.kept(self, thoroughly=beat % _BEATS_PER_AUTHORITY == 0)

    async def watch_store(self) -> None:
        """Each beat: tell the store about this member, do what is wished, share log records. The store may be down."""
        roster = Roster(self.store)
        steward = Steward(self.store, self.holder)
        first = True
        for beat in itertools.count():
            try:
                self.obey(await roster.beat(self.report(), first=first))
                first = False
                self.look_at_cluster_file()
                await steward.beat(self.listed)
                await self.timeline.share(self.rings)
                if beat % _BEATS_PER_COMPARISON == 0:
                    await self.compare()
            except Unavailable as e:
                self.metrics.store_up.set(0)
                _log.debug("Beat without store", why=str(e))
            except MusterError as e:
                _log.error("Beat failed", why=str(e))
            else:
                self.metrics.store_up.set(1)
            if not await self.pause():
                with contextlib.suppress(MusterError):
                    await steward.resign()
                return

    async def watch_providers(self) -> None:
        """Every few beats: does what the features depend on answer?"""
        while True:
            asked = [(n, s) for n, s in self.features.served.items() if s.answers and s.feature.reached is not None]
            answers = await asyncio.gather(*(_unreached(s) for _, s in asked))
            troubles = {n: why for (n, _), why in zip(asked, answers, strict=True) if why}
            for name in troubles.keys() - self.unreached.keys():
                _log.warning("A provider cannot be reached", feature=name, why=troubles[name])
            for name in self.unreached.keys() - troubles.keys():
                _log.info("A provider can be reached again", feature=name)
            self.unreached = troubles
            for _ in range(_BEATS_PER_PROVIDER_PROBE):
                if not await self.pause():
                    return

    def _out_of_order(self) -> dict[str, str]:
        """Features are calls of service smartproxy: a member where one failed would answer 503 to its share of them.

        When it is so on every member, all are unready alike and the balancer fails open: the other features go on.
        """
        found = [f"feature {name} failed: {why}" for name, why in self.features.failed().items()]
        found += [f"feature {name}: {why}" for name, why in self.unreached.items() if self._is_essential(name)]
        return {"smartproxy": "; ".join(found)} if found else {}

    def _is_essential(self, name: str) -> bool:
        settings = self.features.served[name].settings
        return isinstance(settings, ProvidedFeatureSettings) and settings.readiness == "essential"

    async def _short_of_room(self) -> dict[str, str]:
        """Return the services that a full disk takes out; what it only shows goes into the notes."""
        for disk in self.disks:
            # A network file system may hang: the beat must not, nor must looks at it pile up.
            if (pending := self._looks.get(disk.path)) is None or pending.done():
                self._looks[disk.path] = asyncio.create_task(asyncio.to_thread(_room_on, disk), name="disk")
        if self._looks:
            await asyncio.wait(self._looks.values(), timeout=_PROBE_TIMEOUT_S)
        looks = [self._looks[d.path] for d in self.disks]
        answers = [look.result() if look.done() else f"no answer within {_PROBE_TIMEOUT_S:g} s" for look in looks]
        out: dict[str, str] = {}
        shown = []
        for disk, answer in zip(self.disks, answers, strict=True):
            if not answer:
                continue
            sentence = f"disk {disk.path}: {answer}"
            out |= _joined(out, dict.fromkeys(disk.services, sentence))
            if not disk.services:
                shown.append(sentence)
        self._disk_notes = shown
        return out


def _joined(*found: Mapping[str, str]) -> dict[str, str]:
    """Return why services are out, several reasons as one sentence."""
    out: dict[str, str] = {}
    for one in found:
        for service, why in one.items():
            out[service] = f"{out[service]}; {why}" if service in out else why
    return out


def _room_on(disk: Disk) -> str:
    """Return what is wrong with a disk, empty when nothing is."""
    try:
        left = os.statvfs(disk.path)
    except OSError as e:
        return e.strerror or str(e)
    free = left.f_bavail * left.f_frsize
    if free < disk.min_free_bytes:
        return f"{free >> 20} MiB left, {disk.min_free_bytes >> 20} MiB are needed"
    return "no room for another file" if left.f_files and not left.f_favail else ""


async def _unreached(served: Served) -> str | None:
    """Return why a feature's provider cannot be reached, or None when it can."""
    try:
        async with asyncio.timeout(_PROVIDER_TIMEOUT_S):
            await served.feature.reached(served.service)  # type: ignore[misc]
    except TimeoutError:
        return f"its provider did not answer within {_PROVIDER_TIMEOUT_S:g} s"
    except MusterError as e:
        return str(e)
    return None


def _watched(cluster: ClusterFile, options: MemberOptions) -> tuple[Disk, ...]:
    """Return the disks of the cluster file; when it says nothing of disks, those that a member itself writes to."""
    if cluster.disks is not None:
        return cluster.disks
    signing = ("puppetca",) if signs_itself(cluster) else ()
    # Without a store smartproxy answers most calls as ever, and members of one SQLite file would all leave at once; the
    # Puppet CA can do nothing.
    found = [Disk(path=options.state or options.pki, services=signing, min_free_bytes=_LEAST_ROOM_BYTES)]
    file = Place.parsed(cluster.store.url).file
    if file is not None:
        found.insert(0, Disk(path=file.parent, services=signing, min_free_bytes=_LEAST_ROOM_BYTES))
    return tuple(found)


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


class AccessLog:
    """Finished calls, written a few at a time: one system call for many lines."""

    def __init__(self, form: Literal["json", "text"] = "text", member: str = "", stream_fd: int = 2) -> None:
        self._form = form
        self._member = member
        self._fd = stream_fd
        self._lines: list[tuple[float, str]] = []

    def __call__(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(0.05, self.flush)
        self._lines.append((time.time(), line))

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        text = "".join(self._written(at, line) for at, line in lines)
        with contextlib.suppress(OSError):
            os.write(self._fd, text.encode("utf-8", "replace"))

    def _written(self, at: float, line: str) -> str:
        when = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        if self._form == "text":
            return f"{when} [access   ] {line}\n"
        record = {"timestamp": when, "level": "info", "event": line, "room": "access", "member": self._member}
        return json.dumps(record, ensure_ascii=False) + "\n"


@contextlib.asynccontextmanager
async def member_opened(
    options: MemberOptions, *, names: Names | None = None, access_log: Callable[[str], None] | None = None
) -> AsyncIterator[MemberProcess]:
    """Yield a member that listens and answers; on leaving, calls in flight are finished and everything is closed.

    Raises:
        InvalidSettings: the cluster file has problems.
        Misconfigured: the certificate, a port or the store's address cannot be used.
    """
    cluster = loaded(options.cluster_file)
    member = cluster.member(options.member)
    if member.kind != "muster":
        raise Misconfigured(f"{member.name} is of kind {member.kind}; muster serve runs members of kind muster")
    rings = LogRings(cluster.log.buffer, cluster.log.buffer_errors, str(member.name))
    log.configure(rings=rings, level=cluster.log.level, form=options.log_form, member=str(member.name))
    balancing = modelled(cluster)
    bundle = bundle_paths(options.pki, "member", member.name)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    counted = EdgeMetrics(registry)
    counted.follow(rings)
    served = Features(version=cluster.foreman.told_version)
    own_health = Health(str(member.name), frozenset(s.name for s in balancing.services))
    gate = Gate(Callers.of(cluster), cluster.foreman.forward_verify, names or SystemNames())
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(cluster_store(cluster))
        shared = SharedTimeline(store, str(member.name), cluster.log.buffer)
        authority = _authority_of(cluster, options, store, str(member.name))
        if authority is not None:
            gate.revoked = authority.revocations.is_revoked
        around = Surroundings(
            str(member.name), OperationMetrics(registry), bundle.certificate, bundle.key, bundle.ca, store,
            (lambda: authority.ca) if authority else None, cluster,
        )  # fmt: skip
        mounts = await _features_opened(stack, cluster, served, logs.Timeline(rings, shared), around)
        mounts += [
            Mounted(root.ROOT, served),
            Mounted(root.V2, served),
            Mounted(health.MOUNT, own_health),
            Mounted(metrics.MOUNT, counted),
        ]
        rings.failed_modules.update(served.failed())
        application = Application(
            gate=gate,
            features=served,
            mounts=mounts,
            limits=cluster.edge,
            rings=rings,
            metrics=counted,
            access_log=access_log,
        )
        balancers = Resolved(b.address for b in cluster.balancers)
        await balancers.refresh()
        opening = server_opened(application, cluster.edge, counted, balancers.addresses)
        server = await stack.enter_async_context(opening)
        process = MemberProcess(
            options, cluster, member, bundle, store, served, own_health, rings, counted, application, server, balancing,
            shared, Gauge("muster_parity_drift", "Fields in which this member differs from most", registry=registry),
            gate, balancers, access_log,
        )  # fmt: skip
        if authority is not None:
            process.authority = authority
            stack.push_async_callback(authority.close)
            await authority.kept(process)
        own_health.reasons.append(process.certificate_reasons)
        own_health.notes.append(process.notes)
        # Before anybody can ask: until the list is read, it would revoke nobody.
        process.trust_files()
        await process.follow_lists()
        if refused := rings.failed_modules.get("revocation list"):
            raise Misconfigured(refused)
        _listen(process)
        beats = [
            process.watch_locally, process.watch_programs, process.watch_balancers, process.watch_providers,
            process.watch_store, process.watch_parity,
        ]  # fmt: skip
        if process.authority is not None:
            beats.append(process.watch_authority)
        await stack.enter_async_context(_beating(process.closing, *beats))
        own_health.starting = ""
        _log.info("Member serves", version=VERSION, features=", ".join(served.running()))
        yield process


def _authority_of(cluster: ClusterFile, options: MemberOptions, store: Store, member: str) -> AuthorityProcess | None:
    if cluster.authority is None or not signs_itself(cluster):
        return None
    # Members that are no Puppet CA do not pay for it.
    from muster.app.authority import AuthorityProcess
    from muster.authority.reserved import Reserved
    from muster.authority.revocations import Revocations

    state = (options.state or options.pki) / "puppet-ca"
    revocations = Revocations(store, member, state, kept_s=cluster.foreman.revocations_kept_s)
    return AuthorityProcess(cluster.authority, options.pki / "puppet-ca", state, revocations, Reserved.of(cluster))


async def _features_opened(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    served: Features,
    timeline: logs.Timeline,
    around: Surroundings,
) -> list[Mounted]:
    """Open every feature; one that cannot be opened is listed as failed with its reason and stops nothing else."""
    mounts: list[Mounted] = []
    manifests: dict[str, Feature] = {**rooms.manifests(), "logs": logs.feature(timeline)}
    for name, feature in manifests.items():
        given = cluster.features.get(name)
        # Ruby's default: logs is on until it is switched off, everything else is off until it is named.
        if given is None and name != "logs":
            served.served[name] = Served(feature, FeatureSettings(enabled=False))
            continue
        settings = feature.settings.model_validate(given or {})
        entry = served.served[name] = Served(feature, settings)
        if not settings.enabled:
            continue
        entry.state = State.STARTING
        try:
            entry.service = await stack.enter_async_context(feature.opened(settings, around))
            entry.state = State.RUNNING
        except MusterError as e:
            entry.state, entry.reason = State.FAILED, str(e)
            _log.error("Feature failed", feature=name, why=str(e))
        except Exception as e:  # noqa: BLE001 - boundary: one feature's bug must not stop the others
            entry.state, entry.reason = State.FAILED, f"{type(e).__name__}: {e}"
            _log.exception("Feature failed", feature=name)
        mounts += [Mounted(m, entry.service, name) for m in feature.mounts]
    return mounts


def _listen(process: MemberProcess) -> None:
    address = process.listens_on
    context = server_context(process.bundle.certificate, process.bundle.key, process.ca_files)
    smartproxy = process.balancing.service("smartproxy")
    if smartproxy is None:
        raise Misconfigured("Service smartproxy is disabled; a member of kind muster cannot serve without it")
    process.server.listen("https", address, smartproxy.member_port, context, trust=process.gate.trust)
    process._presented = process._files_on_disk()
    process._note_certificate()
    plain = process.balancing.service("anaconda")
    if plain is not None:
        process.server.listen("http", address, plain.member_port)


def _own_address(address: str) -> str:
    try:
        return address if ipaddress.ip_address(address).is_loopback else "*"
    except ValueError:
        return "*"


@contextlib.asynccontextmanager
async def _beating(closing: asyncio.Event, *loops: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """Run the beats beside the block. On leaving, a beat that has begun may end: half a transaction helps nobody."""
    tasks = [asyncio.create_task(_until_closing(closing, one), name=str(one)) for one in loops]
    try:
        yield
    finally:
        closing.set()
        _, late = await asyncio.wait(tasks, timeout=_LAST_BEAT_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _until_closing(closing: asyncio.Event, one: Callable[[], Awaitable[None]]) -> None:
    while not closing.is_set():
        try:
            await one()
        except Exception:  # noqa: BLE001 - boundary: a beat with a bug must not stop the beats after it
            _log.exception("Beat broke", beat=str(one))
            await asyncio.sleep(_BEAT_S)


async def serve(options: MemberOptions) -> None:
    """Serve until a signal: TERM and INT drain and stop, HUP reloads certificates.

    Raises:
        as :func:`member_opened`.
    """
    loop = asyncio.get_running_loop()
    stop, hung_up = asyncio.Event(), asyncio.Event()
    # From the first: a listener answers before the member is open, and an unheeded HUP ends the process.
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    access_log = AccessLog(options.log_form, options.member)
    async with member_opened(options, access_log=access_log) as process:
        signals = [signal.SIGTERM, signal.SIGINT]
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        log.follow_loop(loop)
        loop.add_signal_handler(signal.SIGHUP, process.reload_certificates)
        if hung_up.is_set():
            process.reload_certificates()
        _notify("READY=1")
        await stop.wait()
        _notify("STOPPING=1")
        stop.clear()
        process.stopping = True
        process.drain("the member is stopping")
        if process.cluster.balancers:
            # New connections still arrive until every balancer has asked for readiness once more. A second signal
            # ends the wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(process.cluster.edge.drain_s):
                    await stop.wait()
    access_log.flush()


def _notify(state: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def _give_memory_back() -> None:
    """Have glibc return what large buffers took, so that connections that are gone cost nothing.

    By default its threshold for that grows with the first large buffer that is freed, such as a TLS connection's.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_ARENA_MAX, 2), (_M_MMAP_THRESHOLD, 64 << 10), (_M_TRIM_THRESHOLD, 128 << 10)):
            mallopt(parameter, value)


def run_member(options: MemberOptions) -> None:
    """Run :func:`serve` on the fastest loop this machine has."""
    factory = None
    if sys.platform == "linux":
        import uvloop

        _give_memory_back()
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options))
