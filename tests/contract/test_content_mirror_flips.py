"""Origins change under members that mirror them, and environments go forward and back, behind a balancer without stickiness.

The origin has its newest version alone: what that drops, and what it signs anew, is nowhere else any more. It is
synchronised without pause, so that it often changes in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.content.mirror.ledger import Ledger, Move
from muster.content.mirror.publications import Job
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests import scale
from tests.contract import test_content_flips_deb as flips_deb
from tests.contract.test_content_flips import Counted, Versions, Way, leads, runs_dnf, runs_quickly
from tests.contract.test_content_flips_deb import runs_apt
from tests.servers import member, origins, signing
from tests.servers.client import Place, tls_client
from tests.servers.clients import Apt, Dnf, Identity
from tests.servers.local import say
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.processes import Process, balancing, serving
from tests.servers.signing import Signer
from tests.servers.yum import Broken, Yum

BALANCER = "127.0.0.66"
ROOT = "/pulp/content/muster"
SEED = 23
REMEMBERED = 10
POLICIES = ("immediate", "on_demand")
ENVIRONMENTS = ("library", "test")
_SYNC_S = 180.0


class EitherWay(Versions):
    """What clients of an environment that goes back meet: what is newer than their metadata, and what is older."""

    def became(self, file: str, revision: int) -> str:
        found = super().became(file, revision)
        at = next(p for p in self.packages[revision].values() if p.rpm_name == file)
        earlier = [packages.get(at.name) for r, packages in sorted(self.packages.items()) if r < revision]
        is_other = any(p is not None and p.rpm_name == file and p != at for p in earlier)
        return "signed anew" if is_other else found


@dataclass
class Promoted(Way):
    """Clients of an environment that goes forward and back.

    Attributes:
        given: the revisions that it was to have, in order.
        newest: the number of the one that a client got last, at the earliest.
    """

    given: list[int] = field(default_factory=list)

    @property
    def backward(self) -> int:
        return sum(a > b for a, b in itertools.pairwise(self.given))

    def got(self, counted: Counted, revision: int, newest: int) -> None:
        with self._lock:
            at = next((n for n in range(newest, len(self.given)) if self.given[n] == revision), None)
            if at is None:
                counted.older += 1
                counted.said.append(f"revision {revision} after number {newest} of {self.given}")
            else:
                self.newest = max(self.newest, at)

    def __str__(self) -> str:
        each = "".join(f"\n    {client}: {counted}" for client, counted in sorted(self.counted.items()))
        return f"{self.name}, {len(self.given)} promotions, {self.backward} of them back:{each}"


@dataclass
class Cluster:
    """Members that mirror, as processes, and what was published of each repository, by revision."""

    members: list[Member]
    processes: list[Process]
    publications: dict[str, dict[int, str]] = field(default_factory=lambda: {policy: {} for policy in POLICIES})
    failed: list[str] = field(default_factory=list)
    kills: int = 0

    @property
    def store(self) -> Secret:
        return Secret(f"sqlite:///{self.members[0].directory.parent / 'store.db'}")

    async def synchronised(self, ledger: Ledger, name: str) -> Job:
        """Ask for it as a command does; return when it is over."""
        job = await ledger.ask("sync", name, "", "a test")
        deadline = time.monotonic() + _SYNC_S
        while not job.is_over:
            assert time.monotonic() < deadline, job
            await asyncio.sleep(0.1)
            job = await ledger.job(job.id)
        return job


async def _synchronises(cluster: Cluster, library: Mapping[str, Yum], over: threading.Event) -> None:
    """Fetch all repositories again and again; note which revision each publication is."""
    async with opened(cluster.store, migrate=False) as store:
        while not over.is_set():
            for name in (*POLICIES, "debian"):
                try:
                    job = await cluster.synchronised(Ledger(store), name)
                except Unavailable as e:
                    cluster.failed.append(f"{name}: {e}")
                    continue
                if job.state != "done":
                    cluster.failed.append(f"{name}: {job.sentence}")
                elif name in POLICIES and job.result["shown_s"] is not None:
                    # Nobody else changes what this environment has.
                    with contextlib.suppress(Broken):
                        metadata = await asyncio.to_thread(library[name].repomd)
                        cluster.publications[name][metadata.revision] = job.result["publication"]


async def _promotes(cluster: Cluster, ways: Mapping[str, Promoted], over: threading.Event) -> None:
    """Give an environment what is newest, and every other time something older."""
    moments = random.Random(SEED)
    numbers = {policy: itertools.count() for policy in POLICIES}
    async with opened(cluster.store, migrate=False) as store:
        while not over.is_set():
            await asyncio.sleep(moments.uniform(0, 2))
            policy = moments.choice(POLICIES)
            known = sorted(cluster.publications[policy].items())
            # Of older ones those that are remembered whatever happens meanwhile.
            is_back = next(numbers[policy]) % 2 == 1
            revision, publication = moments.choice(known[-4:-1] or known) if is_back else known[-1]
            ways[policy].given.append(revision)
            try:
                await Ledger(store).promote([Move(policy, "yum", publication)], to="test", by="a test")
            except Unavailable as e:
                cluster.failed.append(f"promote {policy}: {e}")


async def _begins(cluster: Cluster) -> None:
    async with opened(cluster.store, migrate=False) as store:
        ledger = Ledger(store)
        for name in (*POLICIES, "debian"):
            job = await cluster.synchronised(ledger, name)
            assert job.state == "done", job
            if name in POLICIES:
                publication = cluster.publications[name][1] = job.result["publication"]
                await ledger.promote([Move(name, "yum", publication)], to="test", by="a test")


def _kills(cluster: Cluster, over: threading.Event, ended: threading.Event) -> None:
    """Kill one member after the other, and start it again."""
    moments = random.Random(SEED)
    for _ in range(scale.MIRROR_KILLS):
        if over.wait(moments.uniform(15, 25)):
            break
        one = moments.choice(cluster.processes)
        one.kill()
        cluster.kills += 1
        over.wait(moments.uniform(0, 5))
        one.start()
    # What a thread has started ends with it.
    ended.wait()


def _asks_for_all(versions: Versions, client: Yum, revision: int, wrong: list[str]) -> Counter[str]:
    """Fetch every package of a revision as somebody would who has had its metadata for long; return what became of them."""
    found: Counter[str] = Counter()
    for package in versions.packages[revision].values():
        data = package.rpm()
        name = f"Packages/{package.name[0]}/{package.rpm_name}"
        became = versions.became(package.rpm_name, revision)
        try:
            client.fetched(name, (len(data), hashlib.sha256(data).hexdigest()))
        except Broken as e:
            found[became or "missing"] += 1
            if not became:
                wrong.append(f"revision {revision}: {e}")
        else:
            found["came"] += 1
    client.wrong.clear()
    return found


@pytest.fixture
def signer(needs: Callable[[str], None]) -> Iterator[Signer]:
    needs("gpg")
    with signing.made() as made:
        yield made


@pytest.mark.proof
def test_no_client_is_given_what_is_not_whole_while_origins_change_and_environments_go_back(
    signer: Signer, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    for need in ("pulp", "dnf", "apt", "namespaces", "haproxy"):
        needs(need)
    versions = Versions(tmp_path / "versions", signer)
    debs = flips_deb.Versions(tmp_path / "debs")
    site = tmp_path / "site"
    site.mkdir()

    def publish() -> None:
        versions.publish()
        debs.publish()
        leads(site / "yum", versions.directory / str(versions.newest))
        leads(site / "deb", debs.directory / str(len(debs.packages)))

    publish()
    either_way = EitherWay(versions.directory, signer, versions.packages)
    of = {"library": versions, "test": either_way}
    over, done = threading.Event(), threading.Event()
    stays = {policy: Way(f"library, {policy}") for policy in POLICIES}
    goes_back = {policy: Promoted(f"test, {policy}") for policy in POLICIES}
    ways: dict[tuple[str, str], Way] = {
        **{("library", policy): way for policy, way in stays.items()},
        **{("test", policy): way for policy, way in goes_back.items()},
    }
    apt_counted = flips_deb.Counted()
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(origins.served(site))
        repositories: dict[str, Any] = {
            **{policy: {"kind": "yum", "url": origin.url("yum"), "policy": policy} for policy in POLICIES},
            "debian": {"kind": "deb", "url": origin.url("deb"), "suites": ["stable"], "policy": "immediate"},
        }
        mirror = {"repositories": repositories, "environments": list(ENVIRONMENTS), "publications": REMEMBERED}

        def content(_: str) -> dict[str, Any]:
            return {"pulp_content_url": None, "pulp_api_url": None, "mirror": mirror}

        members, ports = member.together(tmp_path, [content] * 3, "https", "http", balancer=BALANCER, balance="random")
        path = {f"{e}/{p}": f"{ROOT}/{e}/yum/{p}/" for e in ENVIRONMENTS for p in POLICIES}
        place = Place(BALANCER, ports["https"])
        tls = tls_client(members[0].ca)
        cluster = Cluster(members, stack.enter_context(serving(*members)))
        library = {p: Yum(place, path[f"library/{p}"], tls) for p in POLICIES}
        asyncio.run(_begins(cluster))
        for promoted in goes_back.values():
            promoted.given.append(1)
        stack.enter_context(balancing(members[0], place, f"{path['library/immediate']}repodata/repomd.xml"))
        for where in path.values():
            _until_answered(Yum(place, where, tls))
        hosts, address = {CLUSTER_ADDRESS: BALANCER}, f"https://{CLUSTER_ADDRESS}:{place.port}"

        def dnf(where: str, key: Path | None) -> Callable[[int], Dnf]:
            def made(run: int) -> Dnf:
                directory = tmp_path / f"dnf-{where.replace('/', '-')}-{run}"
                url = f"{address}{path[where]}"
                return Dnf(directory, {"base": url}, Identity(members[0].ca), checks_signatures=key, hosts=hosts)

            return made

        def apt(run: int) -> Apt:
            sources = [f"{address}{ROOT}/library/deb/debian stable main"]
            return Apt(tmp_path / f"apt{run}", sources, Identity(members[0].ca), hosts=hosts)

        clients = [
            *(
                threading.Thread(
                    target=runs_quickly, args=(of[e], Yum(place, path[f"{e}/{p}"], tls), way, over, SEED + n)
                )
                for n, ((e, p), way) in enumerate(ways.items())
            ),
            threading.Thread(
                target=runs_dnf,
                args=(versions, dnf("library/immediate", signer.key), stays["immediate"], over, SEED + 10),
            ),
            threading.Thread(
                target=runs_dnf, args=(either_way, dnf("test/immediate", None), goes_back["immediate"], over, SEED + 11)
            ),
            threading.Thread(target=runs_apt, args=(debs, apt, apt_counted, over, SEED + 12)),
        ]
        changing = [
            threading.Thread(target=asyncio.run, args=(_synchronises(cluster, library, done),)),
            threading.Thread(target=asyncio.run, args=(_promotes(cluster, goes_back, done),)),
        ]
        ended = threading.Event()
        stack.callback(ended.set)
        threading.Thread(target=_kills, args=(cluster, over, ended), name="kills").start()
        for thread in (*clients, *changing):
            thread.start()
        began = time.monotonic()

        def is_enough() -> bool:
            changed = [len(found) > 2 for found in cluster.publications.values()]
            return all([*changed, *(way.backward for way in goes_back.values())])

        try:
            # A machine that has much to do needs longer.
            while (age_s := time.monotonic() - began) < scale.MIRROR_FLIPS_S or (age_s < 90 and not is_enough()):
                publish()
                time.sleep(4)
        finally:
            over.set()
            for thread in clients:
                thread.join()
            done.set()
            for thread in changing:
                thread.join()
        for process in cluster.processes:
            _until_ready(process)
        all_of_them: dict[str, Counter[str]] = {}
        for policy in POLICIES:
            remembered = sorted(cluster.publications[policy])[-REMEMBERED:]
            places = [Yum(Place(m.https.address, ports["https"]), path[f"library/{policy}"], tls) for m in members]
            with ThreadPoolExecutor(len(places)) as pool:
                asked = [
                    pool.submit(_asks_for_all, versions, one, revision, wrong)
                    for one in places
                    for revision in remembered
                ]
                all_of_them[policy] = sum((one.result() for one in asked), Counter())
    say(f"{versions.newest} versions, seed {SEED}; killed: {cluster.kills}; failed: {cluster.failed}")
    for way in ways.values():
        say(f"  {way}")
    say(f"  apt, library, immediate: {apt_counted}")
    for policy, found in all_of_them.items():
        say(f"  {policy}, every package of what is remembered, of each member: {dict(sorted(found.items()))}")
    for (environment, policy), way in ways.items():
        for client, counted in way.counted.items():
            who = environment, policy, client, counted.said
            assert (counted.left_out, counted.missing, counted.older) == (0, 0, 0), who
            assert counted.wrong == [], who
            assert policy == "on_demand" or counted.dropped == 0, who
    assert (apt_counted.left_out, apt_counted.missing, apt_counted.older) == (0, 0, 0), apt_counted.said
    assert wrong == []
    assert all_of_them["immediate"]["dropped"] == 0
    assert is_enough()


def _until_ready(process: Process) -> None:
    deadline = time.monotonic() + 60
    while not process.readiness()["ready"]:
        assert time.monotonic() < deadline, process.readiness()
        time.sleep(0.1)


def _until_answered(client: Yum) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            client.repomd()
        except Broken:
            assert time.monotonic() < deadline, f"{client.path} is not answered"
            time.sleep(0.2)
        else:
            return
