"""How deriving, checking and keeping the cluster's picture grows from 3 members to 50, with the seed's nine services."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import Figure, Findings
from muster.app.offers import modelled
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.cluster.file import ClusterFile
from muster.cluster.roster import Report, Roster
from muster.kernel.names import FQDN
from muster.kernel.secrets import Secret
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from muster.store.engine import opened

_SIZES = (3, 10, 25, 50)
_ADDRESS = "smartproxy.example.net"


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return times for each size; the peer of every row is the smallest cluster, so the ratio is the growth."""
    findings = Findings("Growth: members x 9 services (generation seed), peer: 3 members")
    rounds = 3 if quick else 7
    smallest: dict[str, list[float]] = {}
    for members in _SIZES:
        cluster = _cluster(members)
        binary = await binaries.probed(binaries.found())
        render, check = await _derived(cluster, directory, binary, rounds)
        beat, read = await _in_store(directory / f"{members}.db", members, rounds)
        for name, values in (
            ("render haproxy.cfg", render),
            ("haproxy -c", check),
            ("one member's beat, SQLite", beat),
            ("read the roster, SQLite", read),
        ):
            smallest.setdefault(name, values)
            findings.figures.append(Figure(f"{members:>2} members: {name}", "ms", values, "3 members", smallest[name]))
    return findings


async def _timed(work: Callable[[], Awaitable[Any]]) -> float:
    started = time.perf_counter()
    await work()
    return (time.perf_counter() - started) * 1000


def _cluster(members: int) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "growth",
            "address": _ADDRESS,
            "store": {"url": "sqlite:////nowhere"},
            "generation": "seed",
            "members": [
                {"id": n, "name": f"proxy{n:02d}.example.net", "address": f"192.0.2.{n}"} for n in range(1, members + 1)
            ],
            "balancers": [{"address": "192.0.2.200"}],
        }
    )


async def _derived(
    cluster: ClusterFile, directory: Path, binary: binaries.Binary, rounds: int
) -> tuple[list[float], list[float]]:
    """Return milliseconds of rendering HAProxy's configuration, and of HAProxy checking it."""
    _certificates(directory)
    paths = RuntimePaths(directory / "run", directory / "pki")

    def text() -> str:
        return rendered(modelled(cluster), which=cluster.balancer(None), runtime=paths, version=binary.version)

    async def render() -> None:
        text()

    check = partial(binaries.checked_text, binary, text())
    return [await _timed(render) for _ in range(rounds)], [await _timed(check) for _ in range(rounds)]


def _certificates(directory: Path) -> None:
    if not (directory / "pki").exists():
        now = datetime.now(UTC)
        ca = ClusterCA.create(directory / "made", "growth", now=now)
        write(ca.issue(BundleRequest("balancer", "balancer"), now=now), directory / "made")
        (directory / "pki").symlink_to(directory / "made" / "balancer")
        (directory / "run").mkdir()
        (directory / "run" / "servers.state").write_text("1\n")


def _report(n: int) -> Report:
    name = f"proxy{n:02d}.example.net"
    services = ("http", "anaconda", "https", "rhsm", "amqp", "puppet", "puppetca", "smartproxy", "docker")
    readiness = {s: {"state": "ready", "reason": ""} for s in services}
    certificate = {"common_name": name, "names": [name, str(FQDN(_ADDRESS))], "not_after": 2e9}
    return Report(name, n, "0", "1", "host", n, "ready", "", {"dns": "running"}, readiness, certificate)


async def _in_store(file: Path, members: int, rounds: int) -> tuple[list[float], list[float]]:
    """Return milliseconds of one member's beat, and of reading the whole roster, with so many members in the store."""
    async with opened(Secret(f"sqlite:///{file}")) as store:
        roster = Roster(store)
        for n in range(1, members + 1):
            await roster.beat(_report(n), first=True)
        beats = [await _timed(partial(roster.beat, _report(1), first=False)) for _ in range(rounds)]
        return beats, [await _timed(roster.seen) for _ in range(rounds)]
