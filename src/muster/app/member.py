"""One member from its settings to its last reply.

Rooms are opened in order on one stack and closed in the opposite order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector

from muster import features as rooms
from muster.app import offers, watched
from muster.app.access_log import AccessLog
from muster.app.duties import disks as disks_duty
from muster.app.duties.balancers import BalancersNames
from muster.app.duties.certificates import Certificates, TrustFiles
from muster.app.duties.consumer import ConsumerPackage
from muster.app.duties.disks import Disks
from muster.app.duties.duty import Duties, Duty
from muster.app.duties.foreman import ForemanFollowed
from muster.app.duties.parity import CensusTaken, Likeness, shown_to_members
from muster.app.duties.programs import Program, beside
from muster.app.duties.providers import Providers
from muster.app.duties.roster import Attendance
from muster.app.duties.services import ServicesObserved
from muster.app.duties.traffic import TrafficKept
from muster.app.duties.workers import Workers
from muster.app.listed import Listed
from muster.app.listeners import Listeners, own_address
from muster.app.memory import give_memory_back, keep_memory
from muster.app.resolution import Resolved
from muster.app.settings import cluster_store, loaded
from muster.app.standing import Standing
from muster.balancer.model import Balancing, signs_itself
from muster.cluster.file import ClusterFile, Member
from muster.cluster.roster import Report
from muster.cluster.service import placed
from muster.cluster.timeline import Timeline as SharedTimeline
from muster.content import ports as content_ports
from muster.content.consumer import given as given_to_hosts
from muster.content.consumer.given import Given
from muster.content.joining import Joining, authorities
from muster.content.pub import MOUNT as PUB
from muster.content.pub import Pub
from muster.derived import muster_client
from muster.edge import chains, health, logs, metrics, root, services
from muster.edge import ports as edge_ports
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Callers, Gate, Names, SystemNames
from muster.edge.feature import Features, FeatureSettings, Served, State, Surroundings
from muster.edge.health import Health
from muster.edge.lag_metrics import LagMetrics
from muster.edge.metrics import EdgeMetrics
from muster.edge.server import Server
from muster.edge.server import opened as server_opened
from muster.kernel import log
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.happenings import Tell, untold
from muster.kernel.rings import LogRings
from muster.observed.programs import Asker, believing
from muster.pki.bundles import paths as bundle_paths
from muster.pki.context import Credentials, server_context
from muster.policy.chain_metrics import ChainMetrics
from muster.policy.metered import OperationMetrics
from muster.store.engine import Store
from muster.version import VERSION
from muster.web import api as web
from muster.web.watch import opened as watch_opened

if TYPE_CHECKING:
    from muster.app.duties.authority import PuppetCAKept
    from muster.app.duties.puppet_code import PuppetCodeRead
    from muster.app.netboot import BootFiles
    from muster.app.stories import Stories
    from muster.content.fill import Sibling
    from muster.content.service import Content
    from muster.features.puppet.settings import CodeSettings
    from muster.netboot.tree import Tree
    from muster.pki.bundles import BundlePaths

_log = log.logger("app")


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


@dataclass(frozen=True)
class MemberProcess:
    """One serving member, from outside. Use :func:`member_opened`."""

    cluster: ClusterFile
    member: Member
    store: Store
    features: Features
    health: Health
    metrics: EdgeMetrics
    server: Server
    standing: Standing
    certificates: Certificates
    disks: Disks
    likeness: Likeness
    census: CensusTaken
    workers: Workers | None = None

    def report(self) -> Report:
        """Return what the member says of itself now."""
        return self.standing.report(self.member, self.features, self.certificates.as_json)

    def reload(self) -> None:
        """Read the certificates again, here and in every worker."""
        self.certificates.reload()
        if self.workers is not None:
            self.workers.reload()


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
    name = str(member.name)
    rings = LogRings(cluster.log.buffer, cluster.log.buffer_errors, name)
    log.configure(rings=rings, level=cluster.log.level, form=options.log_form, member=name)
    if options.state is not None:
        # Its file system is looked at from the first beat on. Where it cannot be made, that says so.
        with contextlib.suppress(OSError):
            options.state.mkdir(mode=0o700, exist_ok=True)
    balancing = offers.modelled(cluster)
    bundle = bundle_paths(options.pki, "member", member.name)
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    counted = EdgeMetrics(registry)
    counted.follow(rings)
    counted.traffic.member = name
    served = Features(version=cluster.foreman.told_version)
    own_health = Health(name, frozenset(s.name for s in balancing.services))
    gate = Gate(Callers.of(cluster), cluster.foreman.forward_verify, names or SystemNames())
    authority: PuppetCAKept | None = None
    workers: Workers | None = None

    async def closed_behind_the_server() -> None:
        if workers is not None:
            await workers.close()
        if authority is not None:
            await authority.close()

    # Name and start: a member that starts again must not take its dead predecessor's role for its own.
    holder = f"member {name} {os.getpid()}.{time.time_ns()}"
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(cluster_store(cluster))
        timeline = SharedTimeline(store, name, cluster.log.buffer)
        listed = Listed(options.cluster_file, cluster)
        stories = _stories_of(stack, cluster, served, store, name, holder, registry)
        tell: Tell = stories.telling if stories is not None else untold
        boot = _boot_files_of(stack, cluster, member, options, bundle, balancing, listed, store, registry, tell)
        around = Surroundings(
            name, OperationMetrics(registry), bundle.certificate, bundle.key, bundle.ca, store,
            (lambda: authority.ca if authority else None) if signs_itself(cluster) else None, cluster,
            lambda certificate: gate.lists.revoke(certificate), lambda: served.version,
            boot.tree if boot is not None else None, options.state or options.pki, lambda: application.draining,
            tell,
        )  # fmt: skip
        registry.register(ChainMetrics(around.chains))
        registry.register(LagMetrics(around.lags))
        story = logs.Timeline(rings, timeline)
        mounts = await _features_opened(stack, cluster, served, story, around)
        mounts += [
            Mounted(root.ROOT, served),
            Mounted(root.V2, served),
            Mounted(health.MOUNT, own_health),
            Mounted(metrics.MOUNT, counted),
            Mounted(chains.MOUNT, around.chains),
            Mounted(services.MOUNT, services.Registered(store, lambda: rooms.services(cluster))),
        ]
        mounts += boot.mounts if boot is not None else ()
        looking = watched.sources(name, listed, store, options.pki, bundle, story, counted.traffic)
        watch = await stack.enter_async_context(watch_opened(looking))
        mounts.append(Mounted(web.MOUNT, web.Viewing(watch, counted.traffic, lambda: application.draining)))
        rings.failed_modules.update(served.failed())
        application = Application(
            gate=gate,
            features=served,
            mounts=mounts,
            limits=cluster.edge,
            rings=rings,
            metrics=counted,
            access_log=access_log,
            services={"https" if port.shows else "http": port.service for port in edge_ports.PORTS},
        )
        _refuse_without(bundle)
        balancers = Resolved(b.address for b in cluster.balancers)
        await balancers.refresh()
        # What calls in flight need is closed behind the server, which finishes them; workers finish theirs meanwhile.
        given = Given((options.state or options.pki) / given_to_hosts.FILE)
        # As everything here it follows from features, too, which workers are not told of.
        told = muster_client.served(balancing, cluster)
        joining = Joining(told, authorities(cluster, bundle.ca), given)
        content = await _content_of(stack, cluster, member, bundle, gate, registry, joining)
        pub = content.pub if content is not None else stack.enter_context(contextlib.closing(Pub(None, joining)))
        application.mount([*mounts, Mounted(PUB, pub)])
        stack.push_async_callback(closed_behind_the_server)
        opening = server_opened(application, cluster.edge, counted, balancers.addresses)
        server = await stack.enter_async_context(opening)
        listeners = Listeners(server, application, balancing, gate, bind=options.bind, member=member)
        authority = _authority_of(cluster, options, store, name, registry, listeners)
        if authority is not None:
            gate.revoked = authority.revocations.is_revoked
            gate.hosts_cas = authority.certificates
            await authority.kept()
        workers = _workers_of(cluster, options, rings, gate, told)

        def drain(draining: bool) -> None:
            server.drain(draining)
            if workers is not None:
                workers.drain(draining)

        standing = Standing(own_health, drain)
        following = await _following_of(stack, cluster, options, holder, listed, store, content, workers, registry)
        files = TrustFiles(bundle, options.pki, cluster.foreman.ca_file, cluster.foreman.crl_file)
        certificates = Certificates(
            files,
            gate,
            listeners.present_members,
            counted,
            rings.failed_modules,
            lambda: authority.ends if authority else {},
        )
        providers = Providers(served, rooms.ports(cluster), around.chains, around.lags)
        puppet_code = _puppet_code_of(served, member)

        def likewise() -> dict[str, Any]:
            files = {"boot_files": boot.tree.stands} if boot is not None else {}
            # Flat, as the store tells it to others.
            answer = {f"providers.{feature}": said for feature, said in providers.facts().items()}
            answer |= {f"follows.{feature}": said for feature, said in providers.known().items()}
            code = (fact for read in puppet_code for fact in read.facts().items())
            return {**answer, **files, **dict(code)}

        likeness = Likeness(member, listed, served, lambda: certificates.presented, store, registry, likewise)
        census = CensusTaken(store, holder, listed, options.pki, bundle, registry)
        disks = Disks(disks_duty.watched(cluster, options.state or options.pki))
        process = MemberProcess(
            cluster,
            member,
            store,
            served,
            own_health,
            counted,
            server,
            standing,
            certificates,
            disks,
            likeness,
            census,
            workers,
        )
        foreman = _foreman_followed(cluster, name, bundle, store, served)
        told_to_boot = await _told_to_boot(
            stack, cluster, balancing, store, listed, boot.tree if boot is not None else None, holder, registry,
            tell=tell, fit=lambda: not (own_health.starting or own_health.draining),
        )  # fmt: skip
        asker = Asker(str(cluster.address), believing(bundle.certificate, bundle.key))
        # In this order they say why a service is out, and what else is wrong.
        listing: list[Duty] = [
            *(Program(asker, member.address, s, q) for s, q in beside(balancing, name).items()),
            providers,
            *puppet_code,
            Attendance(
                store, holder, listed, timeline, rings, counted,
                report=process.report, obey=standing.obey, compare=likeness.compare,
            ),
            disks,
            *(boot.duties if boot is not None else ()),
            *told_to_boot,
            *(stories.duties if stories is not None else ()),
            *([authority] if authority else []),
            *_backends_asked(cluster, member, content),
            *([workers] if workers else []),
            *([foreman] if foreman is not None else []),
            *_siblings_known(name, balancing, listed, store, content, workers),
            *_pulp_followed(name, balancing, listed, store, content, workers),
            *following,
            *_keepers_of(cluster, store, content, following),
            *_reports_forwarded(served, registry),
            certificates,
            census,
            ConsumerPackage(cluster, name, joining, given, store),
            ServicesObserved(
                name, served, listed, store, holder, lambda: _shown_to_rubys(listed.cluster, options.pki, bundle), registry
            ),
            BalancersNames(balancers, server),
            TrafficKept(counted.traffic, workers.traffic if workers is not None else None),
        ]  # fmt: skip
        duties = Duties(listing, own_health, counted)
        await certificates.begin()
        if foreman is not None:
            await foreman.begin()
        duties.judge()
        if workers is not None:
            counted.with_workers(workers.counted)
            workers.start(_held_for_workers(listeners, cluster))
            content = None
        _listen(listeners, cluster, served, files, content)
        await stack.enter_async_context(duties.running())
        own_health.starting = ""
        _log.info("Member serves", version=VERSION, features=", ".join(served.running()))
        yield process


def _stories_of(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    served: Features,
    store: Store,
    member: str,
    holder: str,
    registry: CollectorRegistry,
) -> Stories | None:
    from muster.app import stories

    return stories.opened(stack, cluster, served, store, member, holder, registry)


def _boot_files_of(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    member: Member,
    options: MemberOptions,
    bundle: BundlePaths,
    balancing: Balancing,
    listed: Listed,
    store: Store,
    registry: CollectorRegistry,
    tell: Tell,
) -> BootFiles | None:
    if not rooms.have_boot_files(cluster):
        return None
    # Members without it do not pay for an HTTP client.
    from muster.app import netboot

    state = options.state or options.pki
    return netboot.opened(
        stack,
        cluster,
        member,
        bundle,
        balancing,
        listed,
        state,
        store,
        registry,
        own_address(member, options.bind),
        tell,
    )


async def _told_to_boot(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    balancing: Balancing,
    store: Store,
    listed: Listed,
    tree: Tree | None,
    holder: str,
    registry: CollectorRegistry,
    *,
    tell: Tell,
    fit: Callable[[], bool],
) -> list[Duty]:
    if cluster.netboot.proxy_dhcp is None:
        return []
    from muster.app import proxydhcp

    return await proxydhcp.opened(stack, cluster, balancing, store, listed, tree, holder, registry, tell=tell, fit=fit)


def _shown_to_rubys(cluster: ClusterFile, pki: Path, bundle: BundlePaths) -> Credentials:
    shown = shown_to_members(cluster, pki, bundle)
    return Credentials(bundle.ca, shown.certificate, shown.key, cluster.foreman.ca_file)


def _puppet_code_of(served: Features, member: Member) -> list[PuppetCodeRead]:
    puppet = served.served.get("puppet")
    if puppet is None or not puppet.settings.enabled:
        return []
    code: CodeSettings | None = getattr(puppet.settings, "code", None)
    if code is None or (code.members and member.name not in code.members):
        return []
    # Members without it do not pay for it.
    from muster.app.duties.puppet_code import PuppetCodeRead

    return [PuppetCodeRead(code)]


def _reports_forwarded(served: Features, registry: CollectorRegistry) -> list[Duty]:
    openscap = served.served.get("openscap")
    if openscap is None or openscap.service is None:
        return []
    # Members without it do not pay for it.
    from muster.app.duties.openscap import ReportsForwarded

    return [ReportsForwarded(openscap.service, registry)]


def _foreman_followed(
    cluster: ClusterFile, name: str, bundle: BundlePaths, store: Store, served: Features
) -> ForemanFollowed | None:
    if cluster.foreman.version is not None:
        return None

    def tell(version: str) -> None:
        served.version = version

    return ForemanFollowed(cluster, name, bundle.ca, store, tell)


def _authority_of(
    cluster: ClusterFile,
    options: MemberOptions,
    store: Store,
    member: str,
    registry: CollectorRegistry,
    listeners: Listeners,
) -> PuppetCAKept | None:
    if cluster.authority is None or not signs_itself(cluster):
        return None
    # Members that are no Puppet CA do not pay for it.
    from muster.app.duties.authority import PuppetCAKept
    from muster.authority.reserved import Reserved
    from muster.authority.revocations import Revocations

    state = (options.state or options.pki) / "puppet-ca"
    return PuppetCAKept(
        cluster.authority,
        store,
        member,
        [str(n) for n in cluster.names],
        options.pki / "puppet-ca",
        state,
        Revocations(store, member, state, kept_s=cluster.foreman.revocations_kept_s),
        registry,
        listeners=listeners,
        reserved=Reserved.of(cluster),
    )


async def _content_of(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    member: Member,
    bundle: BundlePaths,
    gate: Gate,
    registry: CollectorRegistry,
    joining: Joining,
) -> Content | None:
    if cluster.content is None:
        return None
    # Members without it do not pay for an HTTP client.
    from muster.content import service

    opening = service.opened(cluster, cluster.content, member, bundle, gate, registry, joining)
    return await stack.enter_async_context(opening)


def _workers_of(
    cluster: ClusterFile, options: MemberOptions, rings: LogRings, gate: Gate, told: Mapping[str, str]
) -> Workers | None:
    if cluster.content is None or cluster.content.workers == 1:
        return None
    # As it was read at the start, and no more of it than they need.
    stands = cluster.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude={"store", "features"})
    order = {
        "cluster": {**stands, "store": {"url": "sqlite:///nowhere"}},
        "member": options.member,
        "pki": str(options.pki.absolute()),
        "state": str((options.state or options.pki).absolute()),
        "log_form": options.log_form,
        "joining": dict(told),
    }
    patience_s = cluster.edge.stop_timeout_s + cluster.edge.handshake_timeout_s
    return Workers(cluster.content.workers, order, cluster.content.services, rings, gate.revoked, patience_s=patience_s)


def _held_for_workers(listeners: Listeners, cluster: ClusterFile) -> dict[str, socket.socket]:
    held = {port.listener: listeners.held(port) for port in content_ports.offered(cluster)}
    return {listener: sock for listener, sock in held.items() if sock is not None}


def _siblings_known(
    name: str, balancing: Balancing, listed: Listed, store: Store, content: Content | None, workers: Workers | None
) -> list[Duty]:
    service = balancing.service("https")
    if content is None or content.fill is None or service is None:
        return []
    from muster.app.duties.siblings import Siblings

    def tell(siblings: Sequence[Sibling], members: Sequence[str]) -> None:
        content.know(siblings, members)
        if workers is not None:
            workers.hold("siblings", [siblings, members])

    return [Siblings(name, service.member_port, listed, store, tell)]


def _pulp_followed(
    name: str, balancing: Balancing, listed: Listed, store: Store, content: Content | None, workers: Workers | None
) -> list[Duty]:
    if content is None:
        return []
    from muster.app.duties.moves import PulpFollowed

    def tell(led: Mapping[str, str]) -> None:
        if workers is not None:
            workers.hold("led", dict(led))

    return [PulpFollowed(name, listed, store, balancing, content, tell)]


async def _following_of(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    options: MemberOptions,
    holder: str,
    listed: Listed,
    store: Store,
    content: Content | None,
    workers: Workers | None,
    registry: CollectorRegistry,
) -> list[Duty]:
    """Return what follows repositories, and mirrors some; ``content`` and ``workers`` answer with what it knows."""
    settings = cluster.content
    ours: list[str] = [s for s in settings.services if s in ("https", "http")] if settings is not None else []
    if settings is None or content is None or not ours or not settings.one_version:
        return []
    from muster.app import mirror
    from muster.app.duties.mirror import JobsDone, MirrorKept
    from muster.app.duties.repositories import RepositoriesFollowed
    from muster.app.duties.steered import PulpsTurned
    from muster.content import known
    from muster.content.following import Following
    from muster.content.given import Clients, Remembered
    from muster.content.images import Images
    from muster.content.kept import Kept
    from muster.content.metrics import AnswerMetrics, FollowingMetrics
    from muster.content.mirror.jobs import Jobs
    from muster.content.mirror.keeping import Keeping
    from muster.content.mirror.ledger import Ledger
    from muster.content.mirror.work import Means, Work
    from muster.content.repositories import Repositories
    from muster.content.staging import Staging
    from muster.content.views import Views
    from muster.store.leases import Leases

    if "docker" in settings.services and settings.mirror is not None and Images.of(settings.mirror) is not None:
        # Who lacks what others show gives no images either.
        ours.append("docker")
    state = options.state or options.pki
    home = state / "content"
    kept = stack.enter_context(contextlib.closing(Kept(home, limit_bytes=settings.kept_bytes)))
    views, staging, ledger = Views(store), Staging(content.call_as, kept), Ledger(store)
    mirroring = keeping = means = None
    if settings.mirror is not None:
        mirroring = await mirror.opened(stack, settings.mirror, state, kept, content, wait_s=settings.hold_s)

        async def carried() -> None:
            # Also for the next start, when the store may be away.
            await asyncio.to_thread(mirroring.carried.known.write, mirroring.file)
            if workers is not None:
                workers.hold("mirror", None)

        keeping = Keeping(
            settings.mirror, ledger, views, staging, kept, mirroring.packages, mirroring.carried,
            want=lambda path, manifest: following.want(path, manifest), told=carried,
        )  # fmt: skip
        means = Means(settings.mirror, mirroring.packages, mirroring.origins, keeping)

    async def told() -> None:
        if workers is None:
            return
        try:
            await asyncio.to_thread(following.known.write, home / known.FILE)
        except MusterError:
            workers.hold("known", "as it was")
            raise
        workers.hold("known", None)

    following = Following(
        views, staging, kept,
        member=str(content.member),
        members=lambda: [str(m.name) for m in listed.latest.members if m.kind == "muster"],
        services=ours, lag_s=settings.lag_s, retention_s=settings.retention_days * 86_400, wait_s=settings.hold_s,
        told=told, mirrored=keeping, counted=FollowingMetrics(registry),
    )  # fmt: skip
    given = Remembered()
    answers = AnswerMetrics(registry) if workers is None else None
    content.repositories = Repositories(
        kept, following.known, following.current, Clients(given.note, given.noted), hold_s=settings.hold_s,
        mirror=mirroring.answers if mirroring is not None else None, counted=answers,
    )  # fmt: skip
    stack.callback(content.repositories.close)
    if workers is not None:
        workers.answer("current", following.asked)
        workers.answer("given", given.asked)
        if mirroring is not None:
            workers.answer("package", mirroring.fetched)
    runs, steering = Work(ledger, views, staging, kept, means).runs, None
    if settings.steered is not None:
        from muster.content.steered.ledger import Steerings
        from muster.content.steered.reached import Reach
        from muster.content.steered.steering import Steering

        bundle = bundle_paths(options.pki, "member", options.member)
        reach = Reach(cluster, settings.steered, store, bundle, options.pki)
        steering = Steering(settings.steered, Steerings(store), ledger, reach)
        runs = steering.runs_beside(runs)
    jobs = Jobs(
        ledger, Leases(store), holder=holder, member=str(content.member), runs=runs, settings=settings.mirror,
        steered=settings.steered,
    )  # fmt: skip
    kept_too = [MirrorKept(keeping)] if keeping is not None else []
    steered_too = [PulpsTurned(steering, jobs)] if steering is not None else []
    return [RepositoriesFollowed(following, ours), *kept_too, JobsDone(jobs), *steered_too]


def _keepers_of(cluster: ClusterFile, store: Store, content: Content | None, following: Sequence[Duty]) -> list[Duty]:
    if cluster.content is None or content is None or "api" not in content.backends:
        return []
    from muster.app.duties.keepers import KeepersTurned
    from muster.app.duties.repositories import RepositoriesFollowed

    followed = next((d.following for d in following if isinstance(d, RepositoriesFollowed)), None)
    return [KeepersTurned.of(cluster, cluster.content, content.backends["api"], followed, store)]


def _refuse_without(bundle: BundlePaths) -> None:
    try:
        is_absent = not bundle.directory.exists()
    except OSError:
        # Not ours to see; who opens its files says why.
        is_absent = False
    if is_absent:
        raise Misconfigured(
            f"There is no bundle {bundle.directory}, whose certificate this member shows; on the host with the CA "
            f"muster certs issue {bundle.name} makes it, then it is copied here (docs/admin/first-cluster.md)"
        )


def _backends_asked(cluster: ClusterFile, member: Member, content: Content | None) -> list[Duty]:
    settings = cluster.content
    if settings is None or content is None:
        return []
    from muster.app.duties.content import BackendAsked, PubLooked
    from muster.content.places import PROGRAMS, Backend

    ours = settings.services
    asked: list[tuple[Backend, str | None, int | None]] = [
        ("content", settings.pulp_content_url, None),
        ("registry", settings.registry_url, 404),
    ]
    found: list[Duty] = [
        BackendAsked(content.backends[name], PROGRAMS[name].asked, services, placed(url, member), absent=absent)
        for name, url, absent in asked
        if url is not None and (services := [s for s in ours if s in PROGRAMS[name].needed_by])
    ]
    if "https" in ours and settings.pulp_api_url is not None:
        # No service leaves for it: a sentence is enough.
        at = placed(settings.pulp_api_url, member)
        found.append(BackendAsked(content.backends["api"], PROGRAMS["api"].asked, (), at))
    if settings.pub is not None:
        found.append(PubLooked(settings.pub))
    return found


async def _features_opened(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    served: Features,
    timeline: logs.Timeline,
    around: Surroundings,
) -> list[Mounted]:
    """Open every feature; one that cannot be opened is listed as failed with its reason and stops nothing else."""
    mounts: list[Mounted] = []
    for name, feature in rooms.manifests(logs.feature(timeline)).items():
        given = cluster.features.get(name)
        # Ruby's default: logs is on until it is switched off, everything else is off until it is named.
        if given is None and feature.is_plugin:
            continue
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


def _listen(
    listeners: Listeners, cluster: ClusterFile, served: Features, files: TrustFiles, content: Content | None = None
) -> None:
    """Open every port but those that wait for their room's certificate."""
    contents = content_ports.offered(cluster)
    ours = {port: served.served[name] for name, ports in rooms.ports(cluster).items() for port in ports}
    for port in offers.offered(cluster):
        if port.shows == "room":
            continue
        context = server_context(files.bundle.certificate, files.bundle.key, files.ca_files) if port.shows else None
        if port in contents:
            # Where there is none, workers answer it.
            if content is not None:
                listeners.open(port, context, content)
        elif (of := ours.get(port)) is None:
            listeners.open(port, context)
        elif of.answers:
            listeners.open(port, context, of.service, of.feature.on_ports.get(port.listener))


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
        if process.cluster.content is not None and sys.platform == "linux":
            keep_memory()
        signals = [signal.SIGTERM, signal.SIGINT]
        for number in signals:
            loop.add_signal_handler(number, stop.set)
        log.follow_loop(loop)
        loop.add_signal_handler(signal.SIGHUP, process.reload)
        if hung_up.is_set():
            process.reload()
        _notify("READY=1")
        await stop.wait()
        _notify("STOPPING=1")
        stop.clear()
        process.standing.stopping = True
        process.standing.drain("the member is stopping")
        if process.cluster.balancers:
            # New connections still arrive until every balancer has asked for readiness once more. A second signal
            # ends the wait.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(process.cluster.edge.drain_s):
                    await stop.wait()
        if process.workers is not None:
            # They finish theirs while this process does.
            process.workers.leave()
    access_log.flush()


def _notify(state: str) -> None:
    """Tell systemd, if it asked to be told (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def run_member(options: MemberOptions) -> None:
    """Run :func:`serve` on the fastest loop this machine has."""
    factory = None
    if sys.platform == "linux":
        import uvloop

        give_memory_back()
        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(options))
