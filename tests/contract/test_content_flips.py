"""Repositories change under clients: two Pulps that publish at their own moments, behind a balancer without stickiness.

A third member's Pulp lags all the time, and is played by a directory. Beside it, in the same run, the same balancing
straight to the two Pulps, which is what clients without stickiness get today.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from muster.cli.demo.bind import free_port
from tests import scale
from tests.servers import haproxy, member, origins, pulp, pulp_api, signing
from tests.servers.client import Place, tls_client
from tests.servers.clients import Dnf, Identity
from tests.servers.local import say
from tests.servers.member import CLUSTER_ADDRESS
from tests.servers.packages import Package
from tests.servers.processes import balancing, serving
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Repository
from tests.servers.signing import Signer
from tests.servers.yum import Broken, Metadata, Yum

BALANCER = "127.0.0.67"
NAMES = [f"package{n:02}" for n in range(24)]
SEED = 17
# What Pulp keeps of what it published before.
KEPT = 20
# So many versions the third member's Pulp lags behind.
BEHIND = 2


@dataclass
class Versions:
    """What the origin published, by revision.

    Each version has a third of the packages under new names, signs three anew (the same name, other bytes of the same
    length), and drops two; what was dropped returns later.
    """

    directory: Path
    signer: Signer
    packages: dict[int, dict[str, Package]] = field(default_factory=dict)
    _random: random.Random = field(default_factory=lambda: random.Random(SEED))

    @property
    def newest(self) -> int:
        return len(self.packages)

    def publish(self) -> None:
        revision = self.newest + 1
        now = {name: Package(name) for name in NAMES} if revision == 1 else dict(self.packages[revision - 1])
        for name in self._random.sample(NAMES, 8):
            now[name] = Package(name, release=str(revision))
        for name in self._random.sample(sorted(now), 3):
            now[name] = Package(name, release=now[name].release, build=f"{revision:06}")
        for name in self._random.sample(NAMES, 2):
            now.pop(name, None)
        origins.yum(self.directory / str(revision), list(now.values()), revision=revision, signer=self.signer)
        self.packages[revision] = now

    def has(self, metadata: Metadata) -> bool:
        """Whether this is what was published under its revision, the signature included."""
        directory = self.directory / str(metadata.revision) / "repodata"
        signature = metadata.signature
        return (directory / "repomd.xml").read_bytes() == metadata.repomd and (
            signature is None or (directory / "repomd.xml.asc").read_bytes() == signature
        )

    def became(self, file: str, revision: int) -> str:
        """Return what became of a package's file after a revision: ``signed anew``, ``dropped``, or nothing."""
        at = next(p for p in self.packages[revision].values() if p.rpm_name == file)
        later = [packages.get(at.name) for r, packages in sorted(self.packages.items()) if r > revision]
        if any(p is not None and p.rpm_name == file and p != at for p in later):
            return "signed anew"
        return "dropped" if any(p is None or p.rpm_name != file for p in later) else ""


@dataclass
class Counted:
    """What became of the runs of one kind of client.

    Attributes:
        left_out: it got no metadata, or not all, or other than was published; dnf then goes without the repository.
        missing: a package that its metadata names did not come, or not with its bytes.
        anew: the same, of one that a version after its metadata has with other bytes under the same name.
        dropped: the same, of one that a version after its metadata does not have.
        older: it got an older revision than a run that had ended before it began.
        wrong: files that came with other bytes, once or for good, but those signed anew.
    """

    runs: int = 0
    left_out: int = 0
    missing: int = 0
    anew: int = 0
    dropped: int = 0
    older: int = 0
    wrong: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        metadata = f"{self.left_out} without metadata, {self.older} older after newer, {len(self.wrong)} files wrong"
        packages = f"{self.missing}, signed anew meanwhile: {self.anew}, dropped meanwhile: {self.dropped}"
        return f"{self.runs} runs, {metadata}; packages missing: {packages}"


@dataclass
class Way:
    """Clients that come the same way.

    Attributes:
        newest: the newest revision that any of them got.
    """

    name: str
    newest: int = 0
    counted: dict[str, Counted] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begun(self, client: str) -> tuple[Counted, int]:
        with self._lock:
            counted = self.counted.setdefault(client, Counted())
            counted.runs += 1
            return counted, self.newest

    def got(self, counted: Counted, revision: int, newest: int) -> None:
        """Note what a run got that began when so much had been got."""
        with self._lock:
            if revision < newest:
                counted.older += 1
                counted.said.append(f"revision {revision} after {newest}")
            self.newest = max(self.newest, revision)

    def judged(self, counted: Counted, versions: Versions, revision: int, failed: Sequence[str], said: str) -> None:
        """Note packages that did not come: whether that could be otherwise."""
        became = {versions.became(file, revision) for file in failed}
        if "" in became:
            counted.missing += 1
            counted.said.append(f"revision {revision}, {', '.join(failed)}: {said}")
        elif "signed anew" in became:
            counted.anew += 1
        elif became:
            counted.dropped += 1

    def __str__(self) -> str:
        each = "".join(f"\n    {client}: {counted}" for client, counted in sorted(self.counted.items()))
        return f"{self.name}, up to revision {self.newest}:{each}"


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


def leads(link: Path, version: Path) -> None:
    link.with_suffix(".new").symlink_to(version)
    link.with_suffix(".new").rename(link)


def _follows(versions: Versions, repository: Repository, now: Path, over: threading.Event, seed: int) -> None:
    """Sync a Pulp at its own moments; it may skip versions."""
    moments = random.Random(seed)
    while not over.wait(moments.uniform(1, 7)):
        leads(now, versions.directory / str(versions.newest))
        repository.sync()


def _lags(versions: Versions, now: Path, keeps: bool, over: threading.Event, seed: int) -> None:
    """Play a Pulp that is always behind, and keeps what the two keep."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=versions.directory) as played:
        while not over.wait(moments.uniform(1, 7)):
            revision = max(1, versions.newest - BEHIND)
            whole = Path(played) / str(revision)
            first = revision + 1 if whole.exists() else max(1, revision - KEPT) if keeps else revision
            for kept in range(first, revision + 1):
                for file in (versions.directory / str(kept)).rglob("*.*"):
                    place = whole / file.relative_to(versions.directory / str(kept))
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.unlink(missing_ok=True)
                    place.hardlink_to(file)
            leads(now, whole)


def runs_dnf(versions: Versions, made: Callable[[int], Dnf], way: Way, over: threading.Event, seed: int) -> None:
    moments = random.Random(seed)
    run = 0
    while not over.is_set():
        run += 1
        client = made(run)
        counted, newest = way.begun("dnf, repo_gpgcheck" if client.checks_signatures else "dnf")
        refreshed = client.refresh()
        revision = next(iter(client.revisions().values()), 0)
        if not refreshed.is_whole or not revision:
            counted.left_out += 1
            counted.said.append(str(refreshed))
            continue
        way.got(counted, revision, newest)
        over.wait(moments.choice((0, moments.uniform(0, 4))))
        named = versions.packages[revision]
        wanted = [named[name] for name in moments.sample(sorted(named), 3)]
        got = client.download(*(p.name for p in wanted))
        failed = [p.rpm_name for p in wanted if got.fetched.get(p.rpm_name) != hashlib.sha256(p.rpm()).hexdigest()]
        # Where one fails, dnf gives up others.
        changed = [name for name in failed if versions.became(name, revision)]
        way.judged(counted, versions, revision, changed or failed, str(got))


def runs_quickly(versions: Versions, client: Yum, way: Way, over: threading.Event, seed: int) -> None:
    moments = random.Random(seed)
    signed = False
    while not over.wait(moments.uniform(0, 0.2)):
        signed = not signed
        counted, newest = way.begun("quick, signed" if signed else "quick")
        try:
            metadata = client.repomd(signed=signed)
            assert versions.has(metadata), f"never published: {metadata}"
            way.got(counted, metadata.revision, newest)
            if moments.random() < 0.3:
                over.wait(moments.uniform(0, 5))
            packages = client.packages(metadata)
            assert len(packages) == len(versions.packages[metadata.revision])
        except (Broken, AssertionError) as e:
            counted.left_out += 1
            counted.said.append(str(e))
            counted.wrong += client.wrong
            client.wrong.clear()
            continue
        if moments.random() < 0.3:
            over.wait(moments.uniform(0, 5))
        failed, said = [], []
        for name in moments.sample(sorted(packages), 5):
            try:
                client.fetched(name, packages[name])
            except Broken as e:
                failed.append(name.rpartition("/")[2])
                said.append(str(e))
        way.judged(counted, versions, metadata.revision, failed, "; ".join(said))
        names = [name.rpartition("/")[2] for name in client.wrong]
        client.wrong.clear()
        counted.wrong += [n for n in names if versions.became(n, metadata.revision) != "signed anew"]


def _compares(
    versions: Versions, places: Mapping[str, Yum], found: dict[int, set[bytes]], wrong: list[str], over: threading.Event
) -> None:
    """Ask one member after the other for ``repomd.xml``, straight: it is the same, and never gets older."""
    moments = random.Random(SEED)
    before = 0
    while not over.wait(0.2):
        name = moments.choice(sorted(places))
        try:
            metadata = places[name].repomd()
        except Broken as e:
            wrong.append(f"{name}: {e}")
            continue
        if metadata.revision < before:
            wrong.append(f"{name} answers revision {metadata.revision} after {before} was answered")
        before = max(before, metadata.revision)
        found.setdefault(metadata.revision, set()).add(metadata.repomd)


@dataclass(frozen=True)
class Kind:
    """What the Pulps keep of what they published before.

    Attributes:
        retain_versions: of the repository.
    """

    pulps: tuple[Pulp, Pulp]
    keeps: bool
    retain_versions: int


@pytest.fixture(params=["Pulp keeps what it published", "Pulp keeps nothing"])
def kind(request: pytest.FixtureRequest, needs: Callable[[str], None]) -> Iterator[Kind]:
    if request.param == "Pulp keeps what it published":
        yield Kind(request.getfixturevalue("pulps"), keeps=True, retain_versions=KEPT)
        return
    needs("pulp")
    settings = {"DISTRIBUTED_PUBLICATION_RETENTION_PERIOD": 0}
    with contextlib.ExitStack() as stack, ThreadPoolExecutor() as pool:
        made = [pulp.running(f"forgets{n}", address=f"127.0.0.6{n + 2}", settings=settings) for n in (1, 2)]
        one, other = pool.map(stack.enter_context, made)
        yield Kind((one, other), keeps=False, retain_versions=1)


@pytest.fixture
def signer(needs: Callable[[str], None]) -> Iterator[Signer]:
    needs("gpg")
    with signing.made() as made:
        yield made


@pytest.mark.proof
def test_no_run_of_dnf_fails_while_pulps_publish_at_their_own_moments(
    kind: Kind, signer: Signer, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    for need in ("dnf", "namespaces", "haproxy"):
        needs(need)
    versions = Versions(tmp_path / "origin", signer)
    versions.publish()
    over, done = threading.Event(), threading.Event()
    ours, theirs = Way("through members"), Way("straight to the Pulps")
    found: dict[int, set[bytes]] = {}
    wrong: list[str] = []
    with contextlib.ExitStack() as stack:
        path = "/pulp/content/moments/"
        (tmp_path / "lags" / "pulp" / "content").mkdir(parents=True)
        lagging = tmp_path / "lags" / path.strip("/")
        leads(lagging, versions.directory / "1")
        third = stack.enter_context(origins.served(tmp_path / "lags"))
        urls = [*(p.content_url().partition("/pulp/")[0] for p in kind.pulps), third.url().rstrip("/")]
        contents = [lambda _, url=url: {"pulp_content_url": url} for url in urls]
        members, ports = member.together(tmp_path, contents, "https", "http", balancer=BALANCER, balance="random")
        followed = []
        for number, one in enumerate(kind.pulps):
            now = tmp_path / f"now{number}"
            leads(now, versions.directory / "1")
            made = pulp_api.repository(one.api, "rpm", "moments", retain_versions=kind.retain_versions)
            followed.append((made.sync_from(now.as_uri()), now))
        stack.enter_context(serving(*members))
        place = Place(BALANCER, ports["https"])
        stack.enter_context(balancing(members[0], place, f"{path}repodata/repomd.xml"))
        plain = Place(BALANCER, free_port(BALANCER))
        stack.enter_context(plainly(tmp_path, kind.pulps, plain))
        tls = tls_client(members[0].ca)

        def identity(name: str) -> Identity:
            # All come from one address; hosts do not.
            pem = members[0].client(f"{name}.example.com")
            return Identity(members[0].ca, pem, pem)

        def through_members(run: int, key: Path | None = None) -> Dnf:
            directory = tmp_path / f"ours{run}-{key is None}"
            url, hosts = f"https://{CLUSTER_ADDRESS}:{place.port}{path}", {CLUSTER_ADDRESS: BALANCER}
            who = identity("dnf" if key is None else "signed")
            return Dnf(directory, {"base": url}, who, checks_signatures=key, hosts=hosts)

        def signed(run: int) -> Dnf:
            return through_members(run, signer.key)

        def straight(run: int) -> Dnf:
            url, key = f"http://{plain.address}:{plain.port}{path}", signer.key if run % 2 else None
            return Dnf(tmp_path / f"theirs{run}", {"base": url}, checks_signatures=key)

        each = {m.name: Yum(Place(m.https.address, ports["https"]), path, tls) for m in members}
        clients = [
            threading.Thread(target=runs_dnf, args=(versions, through_members, ours, over, SEED + 1)),
            threading.Thread(target=runs_dnf, args=(versions, signed, ours, over, SEED + 8)),
            threading.Thread(target=runs_dnf, args=(versions, straight, theirs, over, SEED + 2)),
            threading.Thread(
                target=runs_quickly,
                args=(versions, Yum(place, path, members[0].tls("quick.example.com")), ours, over, SEED + 3),
            ),
            threading.Thread(target=runs_quickly, args=(versions, Yum(plain, path), theirs, over, SEED + 4)),
            threading.Thread(target=_compares, args=(versions, each, found, wrong, over)),
        ]
        publishing = [
            *(
                threading.Thread(target=_follows, args=(versions, repository, now, done, SEED + 5 + n))
                for n, (repository, now) in enumerate(followed)
            ),
            threading.Thread(target=_lags, args=(versions, lagging, kind.keeps, done, SEED + 7)),
        ]
        for thread in (*clients, *publishing):
            thread.start()
        until = time.monotonic() + scale.FLIPS_S
        try:
            while time.monotonic() < until:
                versions.publish()
                time.sleep(4)
            until = time.monotonic() + 60
            while versions.newest not in found and time.monotonic() < until:
                time.sleep(0.1)
        finally:
            over.set()
            for thread in clients:
                thread.join()
            done.set()
            for thread in publishing:
                thread.join()
        last = [one.repomd().repomd for one in each.values()]
    say(f"{versions.newest} versions, seed {SEED}\n  {ours}\n  {theirs}")
    assert last == [(versions.directory / str(versions.newest) / "repodata" / "repomd.xml").read_bytes()] * 3
    assert all(len(bodies) == 1 for bodies in found.values())
    assert wrong == []
    assert len(ours.counted) == 4
    for client, counted in ours.counted.items():
        assert (counted.left_out, counted.missing, counted.older) == (0, 0, 0), (client, counted.said)
        assert counted.wrong == [], client
        assert not (kind.keeps and counted.dropped), (client, counted.dropped)
