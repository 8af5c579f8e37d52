"""Members are killed while dnf fetches, and one is away while something is published: real processes, real Pulps."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import scale
from tests.servers import member, origins, pulp_api
from tests.servers.client import Place, tls_client
from tests.servers.clients import Dnf, Identity, Run
from tests.servers.local import say
from tests.servers.member import CLUSTER_ADDRESS
from tests.servers.packages import Package
from tests.servers.processes import Process, balancing, serving
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Repository
from tests.servers.yum import Broken, Yum

BALANCER = "127.0.0.68"
LAG_S = 3.0
LARGE = [Package(f"large{n}", padding=4_000_000) for n in range(3)]
# A second and a half for each of these.
PACE = "2700k"
_numbers = itertools.count(1)


@dataclass
class Site:
    """Two members behind a balancer without stickiness, in front of a Pulp each."""

    members: list[Process]
    repositories: list[Repository]
    balancer: Place
    port: int
    path: str
    directory: Path

    def place(self, at: int) -> Place:
        """Return where a member answers by itself."""
        return Place(self.members[at].member.https.address, self.port)

    def yum(self, place: Place) -> Yum:
        return Yum(place, self.path, tls_client(self.members[0].member.ca))

    def dnf(self, name: str) -> Dnf:
        url, identity = f"https://{CLUSTER_ADDRESS}:{self.port}{self.path}", Identity(self.members[0].member.ca)
        hosts = {CLUSTER_ADDRESS: BALANCER}
        return Dnf(self.directory / name, {"base": url}, identity, hosts=hosts, pace=PACE)


@pytest.fixture
def site(pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None]) -> Iterator[Site]:
    for need in ("dnf", "namespaces", "haproxy"):
        needs(need)
    path = f"/pulp/content/die{next(_numbers)}/"
    source = origins.yum(tmp_path / "origin" / "1", [Package("one"), *LARGE], revision=1)
    (tmp_path / "now").symlink_to(source)
    made = [pulp_api.repository(one.api, "rpm", path.split("/")[-2], retain_versions=5) for one in pulps]
    made = [one.sync_from((tmp_path / "now").as_uri()) for one in made]
    urls = [p.content_url().partition("/pulp/")[0] for p in pulps]
    contents = [lambda _, url=url: {"pulp_content_url": url, "lag_s": LAG_S} for url in urls]
    members, ports = member.together(tmp_path, contents, "https", "http", balancer=BALANCER, balance="random")
    place = Place(BALANCER, ports["https"])
    with serving(*members) as processes, balancing(members[0], place, f"{path}repodata/repomd.xml"):
        yield Site(processes, made, place, place.port, path, tmp_path)


def _until(holds: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


def _connected(place: Place) -> int:
    """Return how many connections to a place there are."""
    (address,) = struct.unpack("<I", socket.inet_aton(place.address))
    local = f"{address:08X}:{place.port:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[1] == local and fields[3] == "01" for fields in lines)


@pytest.mark.proof
def test_dnf_completes_when_a_member_is_killed_in_the_middle(site: Site) -> None:
    wanted = {p.rpm_name: hashlib.sha256(p.rpm()).hexdigest() for p in LARGE}
    cut = 0
    for run in range(scale.KILLED_RUNS):
        client = site.dnf(f"run{run}")
        if run % 2:
            cut += _killed_within(site, client.refresh, lambda: True, run)
        else:
            assert client.refresh().is_whole

        def fetches(client: Dnf = client, run: int = run) -> Run:
            got = client.download(*(p.name for p in LARGE))
            assert got.fetched == wanted, (run, got)
            return got

        if run % 2:
            fetches()
        else:
            cut += _killed_within(site, fetches, client.has_begun, run)
    say(f"{scale.KILLED_RUNS} runs of dnf, {cut} connections cut")
    assert cut >= scale.KILLED_RUNS // 2


def _killed_within(site: Site, fetches: Callable[[], Run], begun: Callable[[], bool], run: int) -> int:
    """Kill a member that dnf is connected to, once it has begun; return how many connections that cut."""
    found: list[int] = []

    def connected() -> bool:
        found[:] = [_connected(site.place(at)) for at in (0, 1)]
        return begun() and any(found)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(fetches)
        _until(lambda: running.done() or connected(), "dnf came to a member")
        at = max((0, 1), key=lambda n: (found[n], n == run // 2 % 2))
        cut = _connected(site.place(at))
        site.members[at].kill()
        ended = running.result()
        assert ended.is_whole, (run, ended)
    site.members[at].start()
    return cut


def test_a_member_that_was_away_during_a_publication_comes_back_not_ready_and_catches_up(site: Site) -> None:
    back = site.members[1]
    straight, through = [site.yum(site.place(at)) for at in (0, 1)], site.yum(site.balancer)
    assert {one.repomd().revision for one in straight} == {1}
    over = threading.Event()
    got: list[int | Broken] = []

    def asks() -> None:
        while not over.wait(0.1):
            try:
                got.append(through.repomd().revision)
            except Broken as e:
                got.append(e)

    asking = threading.Thread(target=asks)
    asking.start()
    try:
        back.kill()
        newer = [Package("one", release="2"), *LARGE]
        origins.yum(site.directory / "origin" / "2", newer, revision=2)
        (site.directory / "now").unlink()
        (site.directory / "now").symlink_to(site.directory / "origin" / "2")
        site.repositories[0].sync()
        _until(lambda: straight[0].repomd().revision == 2, "the new version is shown by the one that is left")
        back.begin()
        said: list[str] = []

        def left() -> bool:
            readiness = back.readiness()
            said.append("ready" if readiness["ready"] else readiness.get("reason", ""))
            with contextlib.suppress(Broken):
                assert straight[1].repomd().revision == 2, "older after newer"
            return "still carries" in said[-1]

        _until(left, "it says that its Pulp lags")
        # Until its Pulp has lagged for as long as it may, it takes clients, and gives them what the others show.
        site.repositories[1].sync()
        _until(lambda: bool(back.readiness()["ready"]), "it is readmitted")
        bodies = {one.repomd().repomd for one in straight}
        assert bodies == {(site.directory / "origin" / "2" / "repodata" / "repomd.xml").read_bytes()}
        package = newer[0]
        name = f"Packages/o/{package.rpm_name}"
        named = straight[1].packages(straight[1].repomd())
        assert straight[1].fetched(name, named[name]) == package.rpm()
    finally:
        over.set()
        asking.join()
    assert got == sorted(got, key=lambda one: one if isinstance(one, int) else -1), got
    assert not [one for one in got if isinstance(one, Broken)], got
    assert (got[0], got[-1]) == (1, 2)
