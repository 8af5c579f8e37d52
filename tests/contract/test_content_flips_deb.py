"""Deb suites change under apt: two Pulps that publish verbatim at their own moments, behind a balancer without stickiness.

Beside it, in the same run, the same balancer straight to the Pulps.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from muster.cli.demo.bind import free_port
from tests import scale
from tests.contract.test_content_flips import plainly
from tests.servers import member, origins, pulp_api
from tests.servers.client import Place
from tests.servers.clients import Apt, Identity
from tests.servers.local import say
from tests.servers.member import CLUSTER_ADDRESS
from tests.servers.origins import Origin
from tests.servers.packages import Package
from tests.servers.processes import balancing
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Repository

NAMES = [f"package{n:02}" for n in range(12)]
KEPT = 20
BALANCER = "127.0.0.69"


@dataclass
class Counted:
    """What became of the runs of one client.

    Attributes:
        left_out: apt went without the archive, or had none of its lists.
        missing: a package that the list in hand names did not come, or not with its bytes.
        older: a run got an older revision than one that had ended before it began.
    """

    runs: int = 0
    left_out: int = 0
    missing: int = 0
    older: int = 0
    newest: int = 0
    said: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        failed = f"{self.left_out} left out, {self.missing} packages missing, {self.older} older after newer"
        return f"{self.runs} runs up to revision {self.newest}, {failed}"


@dataclass
class Versions:
    """What the origin published, by revision; each exchanges a third of the packages. Every other one has by-hash names."""

    directory: Path
    packages: dict[int, dict[str, Package]] = field(default_factory=dict)
    # By the digest of the list as apt has it.
    revisions: dict[str, int] = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(17))

    def publish(self) -> None:
        revision = len(self.packages) + 1
        now = {name: Package(name) for name in NAMES} if revision == 1 else dict(self.packages[revision - 1])
        for name in self._random.sample(NAMES, 4):
            now[name] = Package(name, release=str(revision))
        at = self.directory / str(revision)
        origins.deb(at, list(now.values()), revision=revision, by_hash=revision % 2 == 0)
        listed = at / "dists" / "stable" / "main" / "binary-amd64" / "Packages"
        self.revisions[hashlib.sha256(listed.read_bytes()).hexdigest()] = revision
        self.packages[revision] = now


def _follows(versions: Versions, repository: Repository, origin: Origin, over: threading.Event, seed: int) -> None:
    """Sync a Pulp at its own moments; it may skip versions."""
    moments = random.Random(seed)
    seen = 0
    while not over.wait(moments.uniform(1, 4)):
        newest = len(versions.packages)
        if newest > seen:
            repository.sync_from(origin.url(f"{newest}/"), distributions="stable").publish_verbatim()
            seen = newest


def runs_apt(versions: Versions, apt: Callable[[int], Apt], counted: Counted, over: threading.Event, seed: int) -> None:
    moments = random.Random(seed)
    while not over.is_set():
        counted.runs += 1
        client, newest = apt(counted.runs), counted.newest
        updated = client.update()
        revision = next((versions.revisions[d] for d in client.lists().values() if d in versions.revisions), 0)
        if not updated.is_whole or not revision:
            counted.left_out += 1
            counted.said.append(str(updated))
            continue
        counted.older += revision < newest
        counted.newest = max(newest, revision)
        over.wait(moments.uniform(0, 3))
        wanted = [versions.packages[revision][name] for name in moments.sample(NAMES, 3)]
        got = client.download(*(p.name for p in wanted))
        if got.fetched != {p.deb_name: hashlib.sha256(p.deb()).hexdigest() for p in wanted}:
            counted.missing += 1
            counted.said.append(str(got))


@pytest.mark.proof
def test_no_run_of_apt_fails_while_two_pulps_publish_at_their_own_moments(
    pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    for need in ("apt", "namespaces", "haproxy"):
        needs(need)
    contents = [lambda _, p=p: {"pulp_content_url": p.content_url().partition("/pulp/")[0]} for p in pulps]
    members, ports = member.together(tmp_path, contents, "https", "http", balancer=BALANCER, balance="random")
    plain = Place(BALANCER, free_port(BALANCER))
    versions = Versions(tmp_path / "origin")
    versions.publish()
    over = threading.Event()
    ours, theirs = Counted(), Counted()
    with contextlib.ExitStack() as stack:
        origin = stack.enter_context(origins.served(tmp_path / "origin"))
        for one in members:
            one.start()
            stack.callback(one.stop)
        stack.enter_context(plainly(tmp_path, pulps, plain))
        followed = []
        for pulp in pulps:
            made = pulp_api.repository(pulp.api, "deb", "debs/at/moments", retain_versions=KEPT)
            made = made.sync_from(origin.url("1/"), distributions="stable")
            made.publish_verbatim()
            followed.append(made)
        path = "/pulp/content/debs/at/moments"
        identity = Identity(members[0].ca)
        urls = f"https://{CLUSTER_ADDRESS}:{ports['https']}{path}", f"http://{plain.address}:{plain.port}{path}"
        hosts = {CLUSTER_ADDRESS: BALANCER}
        place = Place(BALANCER, ports["https"])
        stack.enter_context(balancing(members[0], place, f"{path}/dists/stable/Release"))

        def through_members(run: int) -> Apt:
            return Apt(tmp_path / f"ours{run}", [f"{urls[0]} stable main"], identity, hosts=hosts)

        def straight(run: int) -> Apt:
            return Apt(tmp_path / f"theirs{run}", [f"{urls[1]} stable main"])

        threads = [
            *(
                threading.Thread(target=_follows, args=(versions, repository, origin, over, seed))
                for seed, repository in enumerate(followed)
            ),
            threading.Thread(target=runs_apt, args=(versions, through_members, ours, over, 3)),
            threading.Thread(target=runs_apt, args=(versions, straight, theirs, over, 4)),
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + scale.FLIPS_S
        try:
            while time.monotonic() < until:
                versions.publish()
                time.sleep(3)
        finally:
            over.set()
            for thread in threads:
                thread.join()
    say(f"{len(versions.packages)} versions; through members: {ours}; straight to the Pulps: {theirs}")
    assert ours.runs > 3
    assert (ours.left_out, ours.missing, ours.older) == (0, 0, 0), "\n".join(ours.said)
