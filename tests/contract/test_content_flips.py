"""Repositories change under clients: two Pulps that publish at their own moments, behind a balancer without stickiness.

Beside it, in the same run, the same balancer straight to the Pulps, which is what clients without stickiness get today.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from muster.cli.demo.bind import free_port
from tests import scale
from tests.servers import haproxy, member, origins, pulp_api
from tests.servers.client import Connection, Place, request
from tests.servers.clients import Dnf, Identity
from tests.servers.local import say
from tests.servers.member import CLUSTER_ADDRESS, Member
from tests.servers.packages import Package
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Repository

BALANCER = "127.0.0.67"
NAMES = [f"package{n:02}" for n in range(24)]
# What Pulp keeps of what it published before.
KEPT = 20


@dataclass
class Versions:
    """What the origin published, by revision; each exchanges a third of the packages and drops two."""

    directory: Path
    packages: dict[int, dict[str, Package]] = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(17))

    def publish(self) -> int:
        revision = len(self.packages) + 1
        now = {name: Package(name) for name in NAMES} if revision == 1 else dict(self.packages[revision - 1])
        for name in self._random.sample(NAMES, 8):
            now[name] = Package(name, release=str(revision))
        for name in self._random.sample(NAMES, 2):
            now.pop(name, None)
        origins.yum(self.directory / str(revision), list(now.values()), revision=revision)
        self.packages[revision] = now
        return revision


@dataclass
class Counted:
    """What became of the runs of one client.

    Attributes:
        left_out: dnf went without the repository, or had none.
        missing: a package that the metadata in hand names did not come, or not with its bytes.
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


@contextlib.contextmanager
def balancing(first: Member) -> Iterator[None]:
    """Hold the cluster's balancer running."""
    # A short path: HAProxy's sockets lie there.
    with tempfile.TemporaryDirectory(prefix="lb-") as run, (first.directory / "balance.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "muster", "balance", "--cluster", str(first.cluster_file), "--run", run],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


@contextlib.contextmanager
def plainly(directory: Path, pulps: tuple[Pulp, Pulp], place: Place) -> Iterator[None]:
    """Hold an HAProxy running that sends each connection to one of the Pulps by chance."""
    servers = "".join(f"  server p{n} {p.content.address}:{p.content.port}\n" for n, p in enumerate(pulps))
    (directory / "plain.cfg").write_text(
        "defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1m\n  timeout server 1m\n"
        f"listen plain\n  bind {place.address}:{place.port}\n  balance random\n{servers}"
    )
    program = next(p for p in haproxy.executables().values() if p is not None)
    process = subprocess.Popen([program, "-db", "-f", directory / "plain.cfg"], stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def _follows(versions: Versions, repository: Repository, now: Path, over: threading.Event, seed: int) -> None:
    """Sync a Pulp at its own moments; it may skip versions."""
    moments = random.Random(seed)
    while not over.wait(moments.uniform(1, 5)):
        link = now.with_suffix(".new")
        link.symlink_to(versions.directory / str(len(versions.packages)))
        link.rename(now)
        repository.sync()


def _fetches(versions: Versions, dnf: Callable[[int], Dnf], counted: Counted, over: threading.Event, seed: int) -> None:
    moments = random.Random(seed)
    while not over.is_set():
        counted.runs += 1
        client, newest = dnf(counted.runs), counted.newest
        refreshed = client.refresh()
        revision = next(iter(client.revisions().values()), 0)
        if not refreshed.is_whole or not revision:
            counted.left_out += 1
            counted.said.append(str(refreshed))
            continue
        counted.older += revision < newest
        counted.newest = max(newest, revision)
        over.wait(moments.uniform(0, 3))
        named = versions.packages[revision]
        wanted = [named[name] for name in moments.sample(sorted(named), 3)]
        got = client.download(*(p.name for p in wanted))
        if got.fetched != {p.rpm_name: hashlib.sha256(p.rpm()).hexdigest() for p in wanted}:
            counted.missing += 1
            counted.said.append(str(got))


@pytest.mark.proof
def test_no_run_of_dnf_fails_while_two_pulps_publish_at_their_own_moments(
    pulps: tuple[Pulp, Pulp], tmp_path: Path, needs: Callable[[str], None]
) -> None:
    for need in ("dnf", "namespaces", "haproxy"):
        needs(need)
    contents = [lambda _, p=p: {"pulp_content_url": p.content_url().partition("/pulp/")[0]} for p in pulps]
    members, ports = member.together(tmp_path, contents, "https", "http", balancer=BALANCER, balance="random")
    plain = Place(BALANCER, free_port(BALANCER))
    versions = Versions(tmp_path / "origin")
    versions.publish()
    over = threading.Event()
    ours, theirs = Counted(), Counted()
    with contextlib.ExitStack() as stack:
        for one in members:
            one.start()
            stack.callback(one.stop)
        stack.enter_context(balancing(members[0]))
        stack.enter_context(plainly(tmp_path, pulps, plain))
        followed = []
        for number, pulp in enumerate(pulps):
            now = tmp_path / f"now{number}"
            now.symlink_to(versions.directory / "1")
            made = pulp_api.repository(pulp.api, "rpm", "moments", retain_versions=KEPT)
            followed.append((made.sync_from(now.as_uri()), now))
        path = "/pulp/content/moments/"
        identity = Identity(members[0].ca)
        urls = f"https://{CLUSTER_ADDRESS}:{ports['https']}{path}", f"http://{plain.address}:{plain.port}{path}"
        hosts = {CLUSTER_ADDRESS: BALANCER}
        _until_balanced(Place(BALANCER, ports["https"]), members[0], f"{path}repodata/repomd.xml")

        def through_members(run: int) -> Dnf:
            return Dnf(tmp_path / f"ours{run}", {"base": urls[0]}, identity, hosts=hosts)

        def straight(run: int) -> Dnf:
            return Dnf(tmp_path / f"theirs{run}", {"base": urls[1]})

        threads = [
            *(
                threading.Thread(target=_follows, args=(versions, repository, now, over, seed))
                for seed, (repository, now) in enumerate(followed)
            ),
            threading.Thread(target=_fetches, args=(versions, through_members, ours, over, 3)),
            threading.Thread(target=_fetches, args=(versions, straight, theirs, over, 4)),
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
    assert (ours.left_out, ours.missing) == (0, 0), "\n".join(ours.said)


def _until_balanced(place: Place, of: Member, path: str) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), Connection(place, tls=of.tls(), server_name=CLUSTER_ADDRESS) as connection:
            connection.send(request("GET", path))
            if connection.answer().status == 200:
                return
        time.sleep(0.2)
    raise AssertionError("the balancer leads nowhere")
