"""The Puppet CA under load beside a real puppetserver and its own key: signing, bootstraps, memory, lists, growth."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from bench import bootstraps, processes
from bench.bootstraps import Place, Requests
from bench.figures import Figure, Findings
from muster.app.settings import loaded
from muster.authority.authority import PuppetCA
from muster.authority.autosign import Autosign
from muster.authority.hand import Hand
from muster.authority.ledger.entries import certificate_row, entry_of
from muster.authority.ledger.ledger import Ledger
from muster.authority.lists import RevocationLists
from muster.authority.moves.founding import Founding, founded
from muster.authority.x509 import profile
from muster.authority.x509.profile import Issuer
from muster.cli.local.cluster import running
from muster.cli.local.files import prepare
from muster.cli.local.plan import ADDRESS, Plan, planned
from muster.cluster.file import Authority
from muster.kernel.clock import SystemClock
from muster.kernel.files import write_atomically
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from muster.store.tables import certificates

_PEER = "puppetserver 7.9"
_SIGNS_GOAL = "≥ 300 /s, ≥ 6 times"
_BOOTSTRAPS_GOAL = "≥ 100 /s"
_SHARE_GOAL = "≥ 0.5 of it"


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return rates, latencies and memory with an RSA-4096 CA; rounds of ours and the real server alternate."""
    count, rounds = (150, 1) if quick else (300, 3)
    findings = Findings("Puppet CA, RSA-4096: PUT certificate_request with autosigning on kept TLS connections")
    async with contextlib.AsyncExitStack() as stack:
        plan = _prepared(directory / "cluster", f"sqlite:///{directory}/ca.db")
        await _founded(plan)
        cluster = await stack.enter_async_context(running(plan))
        ca = plan.pki / "puppet-ca" / "ca_crt.pem"
        one = Place(plan.member_address(0), _PORT, ADDRESS, ca)
        three = Place("127.0.0.1", _PORT, ADDRESS, ca)
        for place in (one, three):
            await _answers(place)
        peer = _peer(directory, stack, findings)
        requests = Requests("bench")
        bare = Bare(plan.pki / "puppet-ca" / "ca_key.pem")
        seconds: dict[str, list[list[float]]] = {}
        rates: dict[str, list[float]] = {}

        async def signed(way: str, place: Place, clients: int, how_many: int) -> None:
            asked = requests.take(how_many)
            begun = time.perf_counter()
            taken = await bootstraps.signs(place, asked, clients)
            rates.setdefault(way, []).append(how_many / (time.perf_counter() - begun))
            seconds.setdefault(way, []).append(taken)

        ways = {
            "one member, 1 client": (one, 1),
            "one member, 8 clients": (one, 8),
            "three members, 8 clients": (three, 8),
        }
        for _ in range(rounds):
            await bare.measure(_BARE_S)
            for way, (place, clients) in ways.items():
                await signed(way, place, clients, count)
            if peer is not None:
                await signed("peer 1", peer, 1, max(40, count // 4))
                await signed("peer 8", peer, 8, max(80, count // 2))
        for way, (_, clients) in ways.items():
            other = f"peer {clients}"
            goal = _SIGNS_GOAL if clients == 8 else ""
            findings.figures += [
                Figure(way, "signs/s", rates[way], _PEER, rates.get(other, ()), goal),
                Figure("", "p50 ms", _quantile(seconds[way], 0.5), _PEER, _quantile(seconds.get(other, ()), 0.5)),
                Figure("", "p99 ms", _quantile(seconds[way], 0.99), _PEER, _quantile(seconds.get(other, ()), 0.99),
                       "< 150 ms" if clients == 8 else ""),
            ]  # fmt: skip
        findings.figures += bare.figures({way: rates[way] for way, (_, clients) in ways.items() if clients == 8})
        await _bootstraps(findings, three, peer, requests, count, rounds)
        child = cluster.members[0].process
        assert child is not None
        findings.figures.append(
            Figure("memory of a member after it", "MB", [processes.rss_mb(child.pid)], goal="< 120 MB")
        )
        await stack.aclose()
        await _on_postgresql(findings, directory, count, rounds, rates.get("peer 8", ()))
    await _grown(findings, directory, quick=quick)
    findings.notes.append(
        f"callers, members, balancer and {_PEER} share {os.cpu_count()} cores; SQLite, synchronous=FULL"
    )
    return findings


_PORT = 18_141
_BARE_S = 1.0


class Bare:
    """What the CA's key signs with nothing around it: no request, no certificate, no ledger, nobody else on the machine.

    The limit is that of the library members sign with (``cryptography``, which brings its own OpenSSL); the ``openssl`` of
    the system may be another version, and slower. No member comes near the one of all cores where callers and balancer
    share them.
    """

    def __init__(self, key_file: Path) -> None:
        key = load_pem_private_key(key_file.read_bytes(), None)
        assert isinstance(key, RSAPrivateKey)
        self._key = key
        self._rates: dict[int, list[float]] = {1: [], os.cpu_count() or 1: []}

    async def measure(self, seconds: float) -> None:
        """Sign for so long on one core, then on all of them."""
        for threads, rates in self._rates.items():
            begun = time.perf_counter()
            counts = await asyncio.gather(*(asyncio.to_thread(self._signed, begun + seconds) for _ in range(threads)))
            rates.append(sum(counts) / (time.perf_counter() - begun))

    def _signed(self, until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            self._key.sign(b"a certificate's digest", PKCS1v15(), SHA256())
            count += 1
        return count

    def figures(self, signs: Mapping[str, Sequence[float]]) -> list[Figure]:
        """Return what it signed, and the members' signs/s of the same rounds as shares of it."""
        most = max(self._rates)
        name = f"the bare key, {most} threads"
        return [
            Figure("RSA-4096 signatures by the bare key, 1 thread", "/s", self._rates[1]),
            *(
                Figure(f"{way}, as a share", "signs/s", r, name, self._rates[most], _SHARE_GOAL)
                for way, r in signs.items()
            ),
        ]


async def _on_postgresql(findings: Findings, directory: Path, count: int, rounds: int, peer: Sequence[float]) -> None:
    """Add the rates of signing with the ledger in PostgreSQL; the peer's are those of the same run."""
    from tests.servers import available, postgresql

    if available.postgresql_binaries() is None:
        findings.notes.append("PostgreSQL not measured: it is not installed")
        return
    with postgresql.running() as database:
        plan = _prepared(directory / "on-postgresql", database.fresh_database())
        await _founded(plan)
        async with running(plan):
            ca = plan.pki / "puppet-ca" / "ca_crt.pem"
            requests = Requests("pg")
            for way, address in (("one member", plan.member_address(0)), ("three members", "127.0.0.1")):
                place = Place(address, _PORT, ADDRESS, ca)
                await _answers(place)
                rates, seconds = [], []
                for _ in range(rounds):
                    asked = requests.take(count)
                    begun = time.perf_counter()
                    seconds.append(await bootstraps.signs(place, asked, 8))
                    rates.append(count / (time.perf_counter() - begun))
                findings.figures += [
                    Figure(f"{way}, 8 clients, PostgreSQL", "signs/s", rates, _PEER, peer, _SIGNS_GOAL),
                    Figure("", "p99 ms", _quantile(seconds, 0.99), goal="< 150 ms"),
                ]


def _prepared(directory: Path, store_url: str) -> Plan:
    plan = planned(directory, members=3, store_url=store_url)
    prepare(plan)
    document = {**plan.document(), "edge": {"drain_s": 0}}
    document["authority"] = {"port": _PORT, "autosign": ["all"], "requests_per_minute": 0, "allow_auto_renewal": True}
    document["services"] = {**document["services"], "puppetca": {"listen_port": _PORT, "balance": "random"}}
    write_atomically(plan.cluster_file, yaml.safe_dump(document, sort_keys=False), mode=0o600)
    return plan


async def _founded(plan: Plan) -> None:
    settings = loaded(plan.cluster_file)
    assert settings.authority is not None
    async with opened(Secret(plan.store_url)) as store:
        founding = Founding("Puppet CA: bench", "rsa-4096", 3650, plan.pki / "puppet-ca" / "ca_key.pem")
        await founded(store, settings.authority, founding, member="bench")


async def _answers(place: Place) -> None:
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError, EOFError):
                connection = await bootstraps.Connection.opened(place, place.context())
                try:
                    if (await connection.ask("GET", "certificate/ca")).status == 200:
                        return
                finally:
                    connection.close()
            await asyncio.sleep(0.1)


def _peer(directory: Path, stack: contextlib.AsyncExitStack, findings: Findings) -> Place | None:
    from tests.servers import puppetserver

    why = puppetserver.missing()
    if why is not None:
        findings.notes.append(f"no peer: {why}")
        return None
    # Its CA is the one it makes itself at its first start: self-signed, RSA-4096, as ours.
    home = directory / "puppetserver"
    found = stack.enter_context(puppetserver.running(home, certname="peer.example.net", autosign=True, heap="1g"))
    findings.notes.append(f"{_PEER} started in {found.started_in_s:.0f} s and has {processes.rss_mb(found.pid):.0f} MB")
    return Place(found.address, found.port, found.certname, found.cadir / "ca_crt.pem")


async def _bootstraps(
    findings: Findings, three: Place, peer: Place | None, requests: Requests, count: int, rounds: int
) -> None:
    ours: dict[int, list[float]] = {4: [], 8: []}
    theirs: list[float] = []
    each = [
        *((three, clients, rates, count) for clients, rates in ours.items()),
        (peer, 4, theirs, max(40, count // 6)),
    ]
    for _ in range(rounds):
        for place, clients, rates, how_many in each:
            if place is None:
                continue
            begun = time.perf_counter()
            made = await bootstraps.bootstrapped(place, requests.take(how_many), clients)
            assert not made.failed, list(made.failed.items())[:3]
            rates.append(how_many / (time.perf_counter() - begun))
    for clients, rates in ours.items():
        way = f"whole bootstraps, three members, {clients} clients"
        findings.figures.append(Figure(way, "/s", rates, f"{_PEER}, 4 clients", theirs, _BOOTSTRAPS_GOAL))


def _quantile(rounds: Sequence[Sequence[float]], share: float) -> list[float]:
    return [sorted(taken)[int(share * (len(taken) - 1))] * 1000 for taken in rounds]


async def _grown(findings: Findings, directory: Path, *, quick: bool) -> None:
    """Add how reading grows with the number of certificates, and what a long revocation list costs."""
    sizes = (1_000, 10_000) if quick else (1_000, 10_000, 100_000)
    smallest: dict[str, list[float]] = {}
    for size in sizes:
        async with _filled(directory / f"{size}.db", size) as ca:
            for name, work, goal in (
                (f"statuses of {size} certificates", ca.certificates.statuses, "< 300 ms" if size == 10_000 else ""),
                (f"one status among {size}", partial(ca.certificates.status, "host000007.example.net"), ""),
            ):
                taken = [await _timed_ms(work) for _ in range(3)]
                base = smallest.setdefault(name.split(" ")[0], taken)
                findings.figures.append(Figure(name, "ms", taken, "1 000 certificates", base, goal))
            if size == 10_000:
                names = [f"host{n:06d}.example.net" for n in range(1000)]
                taken = [await _timed_ms(partial(ca.certificates.clean, names, actor="bench"))]
                findings.figures.append(Figure("clean of 1 000 at once", "ms", taken))
    key, issuer = _quick_ca()
    from muster.authority.ledger.entries import Revoked

    now = datetime.now(UTC)
    entries = [Revoked(profile.random_serial(), now, None) for _ in range(50_000)]
    lists = RevocationLists(Hand(None, Authority(), issuer, key, SystemClock()))  # type: ignore[arg-type]
    begun = time.perf_counter()
    own, _, _ = lists.build(entries, 1)
    findings.figures.append(
        Figure("revocation list of 50 000 entries: build and sign", "ms", [(time.perf_counter() - begun) * 1000])
    )
    findings.notes.append(f"that list has {len(own) / 1e6:.1f} MB")


def _quick_ca() -> tuple[Any, Issuer]:
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    certificate = profile.self_signed("Puppet CA: growth", key, now=datetime.now(UTC), ttl=timedelta(days=3650))
    return key, Issuer.read(profile.pem_of(certificate))


@contextlib.asynccontextmanager
async def _filled(file: Path, size: int) -> AsyncIterator[PuppetCA]:
    """Hold a CA with so many certificates: one is made, and written down under many names and serials."""
    from muster.authority.x509 import csr

    key, issuer = _quick_ca()
    _, pem = Requests("seed").take(1)[0]
    made = profile.signed_leaf(csr.read(pem), issuer, key, serial=1, now=datetime.now(UTC), ttl=timedelta(days=365))
    entry = entry_of(made)
    async with opened(Secret(f"sqlite:///{file}")) as store:
        ledger = Ledger(store, "bench")
        hand = Hand(ledger, Authority(), issuer, key, SystemClock())
        ca = PuppetCA(hand, Autosign(store, Authority()))
        await ledger.create(issuer.chain_pem, build=ca.lists.build)
        row = {**certificate_row(entry, "bench"), "issued_at": 0.0}
        rows = []
        for number in range(size):
            name = f"host{number:06d}.example.net"
            status = json.dumps({**json.loads(entry.status), "name": name}, separators=(",", ":"))
            rows.append({**row, "serial": f"{profile.random_serial():040X}", "certname": name, "status": status})
        async with store.write() as uow:
            for start in range(0, size, 1000):
                await uow.connection.execute(certificates.insert(), rows[start : start + 1000])
        yield ca


async def _timed_ms(work: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    await work()
    return statistics.fmean([(time.perf_counter() - begun) * 1000])
