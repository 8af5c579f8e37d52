"""What every member is made of, asked over the wire as Foreman asks it, and where members differ.

Members are asked side by side, each by its own address under the cluster's name. Ruby members are asked the same questions;
what only members of kind muster know of themselves is read from the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile, Member
from muster.cluster.sections import ExpectedDifference
from muster.foreman import questions
from muster.foreman.questions import Questions
from muster.kernel.errors import Denied, Misconfigured, MusterError, NotFound, Unavailable
from muster.kernel.names import in_url, shown
from muster.observed.parity import (
    PRESENTED,
    Drift,
    compared,
    fields_of,
    of_another_file,
    of_certificate,
    of_wire,
    openly,
    unneeded,
)
from muster.observed.recorded import differed, records_in
from muster.observed.statements import told_in
from muster.pki.context import Credentials
from muster.pki.facts import CertificateFacts
from muster.pki.verify import verify_port
from muster.store.reading import Readable, Reading
from muster.version import VERSION

_CLOSE_S = 1.0
_MUSTER = "muster"


@dataclass(frozen=True)
class Parity:
    """How alike the members of a cluster are.

    Attributes:
        facts: what each member told, nested; of one that could not be asked only the certificates it shows.
        unasked: why, by member that could not be asked.
        notes: what was not compared, and why.
        unneeded: declared differences that no member shows.
    """

    facts: Mapping[str, Mapping[str, Any]]
    drifts: tuple[Drift, ...] = ()
    unasked: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    unneeded: tuple[ExpectedDifference, ...] = ()

    @property
    def alike(self) -> bool:
        """Whether every difference is a declared one."""
        return not any(d.differing for d in self.drifts)

    @property
    def fields(self) -> int:
        return fields_of(self.facts)

    def as_json(self, cluster: ClusterFile) -> dict[str, Any]:
        """Return everything that ``muster parity --json`` prints."""
        return {
            "cluster": cluster.cluster,
            "address": cluster.address,
            "members": [{"name": str(m.name), "kind": m.kind} for m in cluster.members],
            "alike": self.alike,
            "fields": self.fields,
            "drifts": [d.as_json() for d in self.drifts],
            "unasked": dict(self.unasked),
            "notes": list(self.notes),
            "unneeded": [e.model_dump(mode="json") for e in self.unneeded],
            "facts": self.facts,
        }

    def of(self, member: str) -> tuple[str, ...]:
        """Return the fields in which a member differs."""
        return tuple(d.field for d in self.drifts if member in d.differing)


@dataclass(frozen=True)
class _Told:
    """What one member told.

    Attributes:
        why: why it could not be asked for all of it; empty when it could.
        openly: whether it told only what it tells anybody.
    """

    facts: dict[str, Any]
    why: str = ""
    openly: bool = False


@dataclass(frozen=True)
class Census:
    """Asks the members of one cluster.

    Attributes:
        certificate: of a host that the members trust, because ``/v2/features`` is protected; ``key`` None: in the same file.
        openly: whether members that do not trust it may be compared by what they tell anybody. As soon as one is, all are:
            otherwise what that one kept to itself would be a drift.
        also: reads out of the store in what else members differ.
    """

    cluster: ClusterFile
    balancing: Balancing
    ca_file: Path
    certificate: Path | None
    key: Path | None
    now: datetime
    timeout_s: float = 5.0
    openly: bool = False
    also: Callable[[Reading], Awaitable[Sequence[Drift]]] | None = None

    async def parity(self, store: Readable) -> Parity:
        """Ask every member and the store and compare what they say; never raises for one that does not answer.

        Raises:
            Misconfigured: one of our own files cannot be used, or the cluster has no service smartproxy.
        """
        shown = Credentials(self.ca_file, self.certificate, self.key, self.cluster.foreman.ca_file)
        contexts = {"muster": shown.ours(), "foreman": shown.rubys()}
        members = self.cluster.members
        asked, (told, also, notes, before) = await asyncio.gather(
            asyncio.gather(*(self._of_member(m, contexts[m.kind]) for m in members)), self._statements(store)
        )
        silent = [str(m.name) for m, said in zip(members, asked, strict=True) if said.openly]
        if silent:
            notes.append(
                f"Settings and capabilities of features were not compared: {', '.join(silent)} tell trusted hosts only"
            )
        facts: dict[str, dict[str, Any]] = {}
        unasked: dict[str, str] = {}
        for member, said in zip(members, asked, strict=True):
            name = str(member.name)
            facts[name] = openly(said.facts) if silent else said.facts
            if said.why:
                unasked[name] = said.why
            else:
                facts[name] = {**facts[name], **_of_statements(told.get(name, {}))}
        behind = of_another_file(self.cluster, told, VERSION)
        if behind:
            notes.append(
                f"{', '.join(behind)}: another cluster file than the one read here; restart them when it is copied"
            )
        expected = self.cluster.expected_differences
        drifts = [_lasting(d, before) for d in (*compared(facts, expected), *also)]
        # A member that was not asked might have shown the difference.
        idle = () if unasked else tuple(unneeded(drifts, expected))
        return Parity(facts, tuple(drifts), unasked, tuple(notes), idle)

    async def _of_member(self, member: Member, context: ssl.SSLContext) -> _Told:
        certificates = await self._certificates(member)
        try:
            wire, said_openly = await self._wire(member, context)
        except MusterError as e:
            # A port that is closed because the member is down is no drift: that it could not be asked says so.
            return _Told({"certificate": {s: c for s, c in certificates.items() if c["state"] == PRESENTED}}, str(e))
        return _Told({**wire, "certificate": certificates}, openly=said_openly)

    async def _wire(self, member: Member, context: ssl.SSLContext) -> tuple[dict[str, Any], bool]:
        """Return what the member says to Foreman's questions, and whether it kept back what trusted hosts are told."""
        service = self.balancing.service("smartproxy")
        if service is None:
            raise Misconfigured("Service smartproxy is disabled, so there is nothing that members could be asked")
        url = f"https://{in_url(member.address)}:{service.port_on(str(member.name))}"
        async with questions.opened(
            url, context=context, server_name=self.balancing.address, timeout_s=self.timeout_s
        ) as proxy:
            version = _mapping(proxy, "/version", (await proxy.call("/version")).json())
            listed = (await proxy.call("/features")).json()
            if not isinstance(listed, list):
                raise Unavailable(f"{url} answers /features with no list: {shown(listed)}")
            names = [str(name) for name in listed]
            try:
                return of_wire(version, await _features(proxy), names), False
            except Denied:
                if not self.openly:
                    raise
                return of_wire(version, {}, names), True

    async def _certificates(self, member: Member) -> dict[str, Any]:
        services = [s for s in self.balancing.services if s.traffic != "plain" and s.leads_to(str(member.name))]
        found = await asyncio.gather(*(self._certificate(member, s.port_on(str(member.name))) for s in services))
        return {s.name: f for s, f in zip(services, found, strict=True)}

    async def _certificate(self, member: Member, port: int) -> dict[str, Any]:
        site = self.cluster.foreman.ca_file
        complaints = await verify_port(
            member.address,
            port,
            server_name=self.balancing.address,
            ca_file=self.ca_file,
            certificate=self.certificate,
            key=self.key,
            now=self.now,
            timeout_s=self.timeout_s,
            also=(site,) if member.kind == "foreman" and site is not None else (),
        )
        codes = sorted({c.code for c in complaints if c.severity == "error"})
        leaf = await self._presented(member.address, port)
        if leaf is None:
            return {"state": ", ".join(codes) or "none presented"}
        facts = of_certificate(leaf, (str(member.name), member.address), self.now)
        return {**facts, "chain": ", ".join(codes) or "verified"}

    async def _presented(self, host: str, port: int) -> CertificateFacts | None:
        """Return what stands in the certificate the port shows under the cluster's name; None when it shows none."""
        # It believes everything: what is wrong with the certificate is verify_port's word, here it is only read.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key or self.certificate)
        try:
            async with asyncio.timeout(self.timeout_s):
                _, writer = await asyncio.open_connection(
                    host, port, ssl=context, server_hostname=self.balancing.address
                )
        except (OSError, TimeoutError):
            return None
        try:
            der = writer.get_extra_info("ssl_object").getpeercert(True)
            return CertificateFacts.from_der(der) if der else None
        except Misconfigured:
            return None
        finally:
            writer.close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSE_S):
                    await writer.wait_closed()

    async def _statements(
        self, store: Readable
    ) -> tuple[Mapping[str, Mapping[str, Any]], Sequence[Drift], list[str], Mapping[str, float]]:
        """Return what members stated, in what else they differ, what is to be said of it, and since when they differed."""
        try:
            async with store.read() as uow:
                told = await told_in(uow)
                also = await self.also(uow) if self.also is not None else []
                before = differed(await records_in(uow))
        except Unavailable as e:
            return {}, [], [f"Muster's version and the cluster file were not compared: {e}"], {}
        quiet = [str(m.name) for m in self.cluster.members if m.kind == "muster" and str(m.name) not in told]
        if not quiet:
            return told, also, [], before
        sentence = f"Muster's version and the cluster file were not compared on {', '.join(quiet)}"
        return told, also, [f"{sentence}: nothing fresh stands in the store"], before


def _lasting(drift: Drift, before: Mapping[str, float]) -> Drift:
    return replace(drift, lasted_s=before.get(drift.field, 0.0)) if drift.differing else drift


async def _features(proxy: Questions) -> dict[str, Any]:
    """Return the answer to ``/v2/features``; empty when the proxy is older than that."""
    path = "/v2/features"
    try:
        answer = _mapping(proxy, path, (await proxy.call(path)).json())
    except NotFound:
        return {}
    except Denied as e:
        raise Denied(f"{e}; show the certificate of a trusted host (--client or --certificate)") from e
    for entry in answer.values():
        _mapping(proxy, path, entry)
    return answer


def _mapping(proxy: Questions, path: str, said: Any) -> dict[str, Any]:
    if not isinstance(said, dict):
        raise Unavailable(f"{proxy.url} answers {path} with no mapping: {shown(said)}")
    return said


def _of_statements(told: Mapping[str, Any]) -> dict[str, Any]:
    own = {f.partition(".")[2]: v for f, v in told.items() if f.startswith(f"{_MUSTER}.")}
    return {_MUSTER: own} if own else {}
