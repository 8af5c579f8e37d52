"""All checks of a cluster, beside the matrix: those the rooms offer, and those that compare members with each other."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast

from muster import features as rooms
from muster.balancer import checks as balancer
from muster.balancer.model import Balancing, signs_itself
from muster.cluster import checks as cluster_room
from muster.cluster.checks import Resolve
from muster.cluster.file import ClusterFile, Member
from muster.cluster.life import Life, in_maintenance
from muster.content import checks as content
from muster.content.mirror import checks as mirror
from muster.content.retention import checks as retention
from muster.content.steered import checks as steered
from muster.doctor import clocks, signer, urls
from muster.kernel.clock import Clock
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.findings import Check, Finding
from muster.kernel.settings import Problem
from muster.observed import checks as observed_room
from muster.observed.features import Running, running_on
from muster.pki import checks as pki_room
from muster.pki.bundles import paths as bundle_paths
from muster.pki.context import Credentials
from muster.store import checks as store_room
from muster.store.checks import Space
from muster.store.reading import Readable

if TYPE_CHECKING:
    from muster.edge.feature import FeatureSettings
    from muster.features.bmc.settings import BMCSettings
    from muster.features.dhcp.settings import DHCPSettings
    from muster.features.dns.settings import DNSSettings
    from muster.features.externalipam.settings import ExternalIPAMSettings
    from muster.features.openscap.settings import OpenscapSettings
    from muster.features.puppet.settings import PuppetSettings
    from muster.features.realm.settings import RealmSettings

T = TypeVar("T")

FOREMANS: Mapping[str, str] = {
    "templates": "hosts get no templates",
    "registration": "hosts cannot register",
    "openscap": "compliance reports wait",
    "discovery": "machines cannot be discovered",
    "container_gateway": "nobody logs in for images",
}
"""Features that do nothing without Foreman, and what there is not while it is away."""


def of_settings(path: Path, warnings: Sequence[Problem]) -> list[Finding]:
    """Return what ``muster config check`` warns of."""
    return [
        Finding(
            "SETTINGS-WARNING",
            f"{path} line {w.line}",
            f"{w.where}: {w.sentence}",
            "The cluster file is valid, but this setting does probably not what was meant.",
            "Correct it, on every host; muster config check says the same.",
            "warning",
        )
        for w in warnings
    ]


@dataclass(frozen=True)
class Patient:
    """A cluster and what is needed to examine it.

    Attributes:
        modelled: says what the balancers of a cluster file have to do.
        pki: directory of CA and bundles.
        run: directory of HAProxy's configuration and sockets, on a balancer's host.
        writes_to: further directories of this host whose disk must not be full.
        store: opens the store; fails when its settings cannot be used.
        credentials: what members are asked with.
        resolve: finds the addresses of a name.
        left: says how much a disk has left.
        limit: says how many descriptors a process may open.
        lives: where members stand; None: the store does not say. Those in maintenance are not looked at.
        trusted: what members are asked with for what trusted hosts alone may know; None: with ``credentials``.
    """

    cluster: ClusterFile
    modelled: Callable[[ClusterFile], Balancing]
    pki: Path
    run: Path
    store: Callable[[], AbstractAsyncContextManager[Readable]]
    credentials: Credentials
    clock: Clock
    writes_to: tuple[Path, ...] = ()
    resolve: Resolve = cluster_room.resolved
    left: Callable[[Path], Space] = store_room.space
    limit: Callable[[int | None], int] = balancer.limit_of
    lives: Mapping[str, Life] | None = None
    trusted: Credentials | None = None

    @cached_property
    def balancing(self) -> Balancing:
        """What the balancers have to do."""
        return self.modelled(self.cluster)

    def checks(self) -> list[Check]:
        """Return all checks, each independent of the others."""
        return [
            Check("own files", self._own_files),
            Check("maintenance", self._resting),
            *cluster_room.checks(self._cluster, self.store, self.resolve),
            *cluster_room.of_foreman(self._cluster, self._ca, self.store),
            *pki_room.checks(
                self.pki, self._names(), self.clock.now(), (ca,) if (ca := self.cluster.foreman.ca_file) else ()
            ),
            *store_room.checks(
                self.store,
                directories=(self.run, self.pki, *self.writes_to),
                clock=self.clock,
                left=self.left,
                url=self.cluster.store.url,
            ),
            *observed_room.checks(
                self._cluster, self._balancing, self._usable, self.store, lives=self.lives, whole=self.cluster
            ),
            *self._of_balancer(),
            *content.checks(self._cluster, self._balancing, self._context),
            *content.repositories(self._cluster, self.store),
            *retention.checks(self._cluster, self._balancing, self._trusted, self.store),
            *mirror.checks(self._cluster, self.store),
            *steered.checks(self._cluster, self.store),
            *self._of_features(),
            Check("features", self._features),
            Check("clocks", self._clocks),
            *self._of_signing(),
        ]

    @property
    def _cluster(self) -> ClusterFile:
        """The cluster less the members in maintenance: those may be off, upgraded or half installed."""
        out = in_maintenance(self.lives or {})
        left = tuple(m for m in self.cluster.members if str(m.name).lower() not in out)
        return self.cluster.model_copy(update={"members": left})

    @property
    def _balancing(self) -> Balancing:
        """As :attr:`_cluster`; not modelled anew, because a signer in maintenance still is the signer."""
        out = in_maintenance(self.lives or {})
        services = (
            replace(s, servers=tuple(v for v in s.servers if v.name not in out)) for s in self.balancing.services
        )
        return replace(self.balancing, services=tuple(services))

    async def _resting(self) -> Sequence[Finding]:
        return cluster_room.resting(self.cluster, self.lives or {})

    def _of_balancer(self) -> list[Check]:
        gone = [name for name, life in (self.lives or {}).items() if life.state == "removed"]
        # Balancers forget who is removed before the cluster file does.
        left = self.cluster.without(gone)
        balancing = self.balancing
        if len(left.members) < len(self.cluster.members):
            with contextlib.suppress(Misconfigured):
                balancing = self.modelled(left)
        return balancer.Here(left, balancing, self.run, self.pki, self.clock.now(), self.limit, self.lives).checks()

    def _of_signing(self) -> list[Check]:
        if self.cluster.authority is None or not signs_itself(self.cluster):
            return signer.checks(self._cluster, self._balancing)
        from muster.authority import checks as authority_room

        # Members that sign out of one ledger cannot have different CAs; what they can lack, the matrix shows.
        return [
            *authority_room.checks(self.cluster.authority, self.pki / "puppet-ca", self.store, self.clock),
            *signer.beside(self._cluster, self._balancing),
        ]

    def _names(self) -> dict[str, list[str]]:
        own = [str(n) for n in self.cluster.names]
        return {str(m.name): [str(m.name), *own] for m in self._cluster.members if m.kind == "muster"}

    def _of_features(self) -> list[Check]:
        return [
            *self._of_dns(),
            *self._of_dhcp(),
            *self._of_bmc(),
            *self._of_realm(),
            *self._of_ipam(),
            *self._of_boot_files(),
            *self._of_what_is_handed_on(),
            *self._of_discovery(),
            *self._of_reports(),
            *self._of_puppet(),
        ]

    def _enabled(self, name: str) -> FeatureSettings | None:
        """Return the settings of a feature that is on; None: it is not, and nothing of it needs to be imported."""
        settings = rooms.settings_of(self.cluster, name)
        return settings if settings is not None and settings.enabled else None

    def _of_discovery(self) -> list[Check]:
        if not rooms.enabled(self.cluster, "discovery"):
            return []
        from muster.features.discovery import checks as discovery

        return discovery.checks()

    def _of_reports(self) -> list[Check]:
        settings = cast("OpenscapSettings | None", self._enabled("openscap"))
        if settings is None:
            return []
        from muster.features.openscap import checks as openscap

        is_member = any(bundle_paths(self.pki, "member", m.name).certificate.exists() for m in self._cluster.members)
        return openscap.checks(settings, self.store, is_member=is_member)

    def _of_puppet(self) -> list[Check]:
        settings = cast("PuppetSettings | None", self._enabled("puppet"))
        if settings is None or settings.code is None:
            return []
        from muster.features.puppet import checks as puppet

        return puppet.checks(settings.code, self.store)

    def _of_what_is_handed_on(self) -> list[Check]:
        handed_on = [name for name in FOREMANS if rooms.enabled(self.cluster, name)]
        if not handed_on or all(m.kind != "muster" for m in self.cluster.members):
            return []
        from muster.features.templates import checks as templates

        return templates.checks(self.cluster, self._ca, [FOREMANS[name] for name in handed_on])

    def _of_dns(self) -> list[Check]:
        settings = cast("DNSSettings | None", self._enabled("dns"))
        every = settings.every().items() if settings is not None else ()
        asked = {name: own for name, own in every if own.provider != "memory"}
        if not asked:
            return []
        # Imported where there is something to ask: a DNS library takes its time.
        from muster.features.dns import checks as dns

        names = (self.cluster.address, *(m.name for m in self.cluster.members))
        return [c for name, own in asked.items() for c in _of_group(name, dns.checks(own, names, self._context))]

    def _of_dhcp(self) -> list[Check]:
        settings = cast("DHCPSettings | None", self._enabled("dhcp"))
        if settings is None:
            return []
        from muster.features.dhcp import checks as dhcp

        every = settings.every()
        found = (_of_group(name, dhcp.checks(own, self._context, self.cluster)) for name, own in every.items())
        follows = any(own.provider == "isc" for own in every.values())
        return [*(check for checks in found for check in checks), *(dhcp.of_members(self.store) if follows else ())]

    def _of_ipam(self) -> list[Check]:
        settings = cast("ExternalIPAMSettings | None", self._enabled("externalipam"))
        if settings is None:
            return []
        from muster.features.externalipam import checks as ipam

        return ipam.checks(settings, self._context, self.store)

    def _of_realm(self) -> list[Check]:
        settings = cast("RealmSettings | None", self._enabled("realm"))
        if settings is None:
            return []
        from muster.features.realm import checks as realm

        return realm.checks(settings, self._context)

    def _of_bmc(self) -> list[Check]:
        settings = cast("BMCSettings | None", self._enabled("bmc"))
        if settings is None:
            return []
        from muster.features.bmc import checks as bmc

        return bmc.checks(settings, self.cluster)

    def _of_boot_files(self) -> list[Check]:
        tftp, httpboot = (self.cluster.features.get(name) for name in ("tftp", "httpboot"))
        found: list[Check] = []
        root = None
        if tftp is not None:
            from muster.features.tftp import checks as of_tftp
            from muster.features.tftp.settings import TFTPSettings

            settings = TFTPSettings.model_validate(tftp)
            root = settings.tftproot
            found += of_tftp.checks(self.cluster, settings) if settings.enabled else []
        if httpboot is not None:
            from muster.features.httpboot import checks as of_httpboot
            from muster.features.httpboot.settings import HTTPBootSettings

            served = HTTPBootSettings.model_validate(httpboot)
            found += of_httpboot.checks(served, root) if served.enabled else []
        if self.cluster.netboot.proxy_dhcp is not None:
            from muster.netboot.proxydhcp import checks as of_proxy_dhcp

            found += of_proxy_dhcp.checks(self.cluster, self.store, has_tree=bool(found))
        return found

    def _usable(self) -> Credentials | None:
        """Return what members are asked with; None when our own files are no use, which one check says for all."""
        return self.credentials if self._unusable() is None else None

    def _unusable(self) -> Misconfigured | None:
        try:
            self.credentials.ours()
            self.credentials.rubys()
        except Misconfigured as e:
            return e
        return None

    def _ca(self) -> Path | None:
        return usable.ca_file if (usable := self._usable()) is not None else None

    def _context(self) -> ssl.SSLContext | None:
        usable = self._usable()
        return usable.ours() if usable is not None else None

    def _trusted(self) -> ssl.SSLContext | None:
        """As :meth:`_context`, with what a trusted host shows where that is here and of use."""
        with contextlib.suppress(Misconfigured):
            if self.trusted is not None and self._usable() is not None:
                return self.trusted.ours()
        return self._context()

    async def _own_files(self) -> Sequence[Finding]:
        why = self._unusable()
        return [unusable(self.pki, why)] if why is not None else []

    async def _features(self) -> Sequence[Finding]:
        """Compare what members tell Foreman of their features: clients see one proxy, so they must be the same."""
        known = await self._asked(self._running_on, self.trusted)
        return [*lacking(known), *urls.misled(self._cluster, self._balancing, known)]

    async def _running_on(self, member: Member, _port: int, context: ssl.SSLContext) -> Running | None:
        return await running_on(member, self._balancing, context)

    async def _clocks(self) -> Sequence[Finding]:
        return clocks.compared(await self._asked(self._clock_of))

    async def _clock_of(self, member: Member, port: int, context: ssl.SSLContext) -> float | None:
        return await clocks.ahead_s(member.address, port, self.balancing.address, context, self.clock)

    async def _asked(
        self, ask: Callable[[Member, int, ssl.SSLContext], Awaitable[T | None]], shown: Credentials | None = None
    ) -> dict[str, T]:
        """Ask every member on its Smart Proxy port and return the answers there were, by member.

        ``shown`` is what to ask with instead of ``credentials``, where it can be used.
        """
        service, usable = self.balancing.service("smartproxy"), self._usable()
        if service is None or usable is None:
            return {}
        contexts = {"muster": usable.ours(), "foreman": usable.rubys()}
        if shown is not None:
            with contextlib.suppress(Misconfigured):
                contexts = {"muster": shown.ours(), "foreman": shown.rubys()}
        members = self._cluster.members
        answers = await asyncio.gather(*(ask(m, service.port_on(str(m.name)), contexts[m.kind]) for m in members))
        return {str(m.name): a for m, a in zip(members, answers, strict=True) if a is not None}


def lacking(known: Mapping[str, Running]) -> list[Finding]:
    """Return which features run on some members and not on others."""
    everything = frozenset[str]().union(*(r.features for r in known.values()))
    missing = {name: everything - r.features - r.unknown for name, r in known.items()}
    return [
        Finding(
            "FEATURE-MISSING",
            name,
            f"{name} lacks {', '.join(sorted(features))}, which other members have",
            "The feature failed there, or that member runs with another cluster file.",
            "muster status says why a feature failed; give every member the same cluster file.",
        )
        for name, features in missing.items()
        if features
    ]


def unusable(pki: Path, error: MusterError) -> Finding:
    """Return what it means that our own TLS files cannot be used."""
    return Finding(
        "PKI-UNUSABLE",
        str(pki),
        f"Members cannot be asked: {error}",
        "This host has no CA file or client bundle, a damaged one, or one you may not read.",
        "Run muster doctor where the PKI directory is, as root or Muster's account, or name it with --pki.",
    )


def _of_group(name: str, checks: Sequence[Check]) -> list[Check]:
    """Return the checks of one provider of a group, whose findings name it; of a provider alone as they are."""

    def named(check: Check) -> Check:
        async def run() -> Sequence[Finding]:
            return [replace(f, place=f"{f.place}, provider {name}") for f in await check.run()]

        return Check(f"{check.name}, provider {name}", run)

    return [named(c) for c in checks] if name else list(checks)
