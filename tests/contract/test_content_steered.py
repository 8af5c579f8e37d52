"""Two real Pulps that nobody else steers: staged in both, then turned at once, whatever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from muster.app.settings import cluster_store, loaded
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Job
from muster.content.steered.ledger import Steerings
from muster.content.steered.stages import Flip, Stage
from muster.kernel.process import clean_environment
from muster.store.engine import Store
from tests import scale
from tests.servers import member, origins, steers
from tests.servers.clients import Apt, Dnf
from tests.servers.member import Member
from tests.servers.packages import Package
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Api
from tests.servers.waiting import stopped, until

T = TypeVar("T")
PULPS = ("pulp@one", "pulp@two")
# What is written down of a synchronisation in both Pulps, and when: each of these is a place to die at.
STEPS = [
    *(f"content-staged.{place}=kill@{n}" for n in range(1, 6) for place in ("before-commit", "after-commit")),
    *(f"content-flipped.{place}=kill" for place in ("before-commit", "after-commit")),
    *(f"content-followed.{place}=kill@{n}" for n in (1, 2) for place in ("before-commit", "after-commit")),
]


@dataclass
class World:
    """A cluster that steers two Pulps, and an origin whose state is a directory.

    Attributes:
        name: of the yum repository, which no other test has.
        packages: what the origin has had, by revision.
    """

    it: Member
    pulps: tuple[Pulp, Pulp]
    origin: Path
    name: str
    packages: list[list[Package]] = field(default_factory=list)

    def moves(self, *packages: Package) -> None:
        """Let the origin have something else."""
        self.packages.append(list(packages))
        revision = len(self.packages)
        origins.yum(self.origin / f"yum{revision}", packages, revision=revision)
        link = self.origin / "new"
        link.symlink_to(self.origin / f"yum{revision}")
        link.rename(self.origin / "yum")

    def command(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        said = subprocess.run(
            [sys.executable, "-m", "muster", *arguments, "--cluster", self.it.cluster_file, "--json"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False, env=clean_environment(),
        )  # fmt: skip
        assert said.returncode == code, said.stderr + said.stdout
        found: dict[str, Any] = json.loads(said.stdout)
        return found

    def sync(self, *names: str) -> Job:
        """Have it synchronised, and return the last job when all are over."""
        jobs = [self.asked(name) for name in names or (self.name,)]
        until(lambda: all(self.job(number).is_over for number in jobs), 120)
        return self.job(jobs[-1])

    def asked(self, name: str = "") -> int:
        """Ask for a synchronisation and do not wait; return the job."""
        return self.reads(lambda store: Ledger(store).ask("sync", name or self.name, "", "me")).id

    def job(self, number: int) -> Job:
        return self.reads(lambda store: Ledger(store).job(number))

    def reads(self, told: Callable[[Store], Coroutine[Any, Any, T]]) -> T:
        async def read() -> T:
            async with cluster_store(loaded(self.it.cluster_file)) as store:
                return await told(store)

        return asyncio.run(read())

    def stage(self) -> Stage | None:
        return self.reads(lambda store: Steerings(store).stage(self.name))

    def flips(self) -> list[Flip]:
        return self.reads(lambda store: Steerings(store).flips(self.name))

    def repomds(self) -> list[bytes]:
        """Return what clients of each Pulp are told."""
        return [p.content.reply("GET", f"{self.name}/repodata/repomd.xml").body for p in self.pulps]

    def has(self, revision: int) -> bool:
        """Whether all Pulps tell clients what the origin had at a revision, byte for byte."""
        wanted = (self.origin / f"yum{revision}" / "repodata" / "repomd.xml").read_bytes()
        return self.repomds() == [wanted, wanted]

    def tasks(self, name: str) -> int:
        """Return how many tasks of a name the Pulps have had for this repository."""
        return sum(
            pulp.api.get("tasks/", name__contains=name, reserved_resources=repository["pulp_href"], limit=1)["count"]
            for pulp in self.pulps
            for repository in pulp.api.all("repositories/rpm/rpm/", name=f"muster/together/{self.name}")
        )


@pytest.fixture
def world(tmp_path: Path, pulps: tuple[Pulp, Pulp], request: pytest.FixtureRequest) -> Iterator[World]:
    origin = tmp_path / "origin"
    origin.mkdir()
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
    with origins.served(origin) as served:
        repositories = {
            name: {"kind": "yum", "url": served.url("yum"), "path": name, "policy": "immediate"},
            f"{name}-deb": {"kind": "deb", "url": served.url("deb"), "path": f"{name}-deb", "suites": ["stable"]},
            f"{name}-file": {"kind": "file", "url": served.url("file"), "path": f"{name}-file", "policy": "immediate"},
        }
        content = {
            "pulp_content_url": None, "pulp_api_url": None,
            "steered": {"pulps": list(PULPS), "repositories": repositories, "wait_s": 30},
        }  # fmt: skip
        (it,), _ = member.together(tmp_path, [lambda _: content], "https", "http")
        world = World(it, pulps, origin, name)
        (tmp_path / "password").write_text(f"{Api.PASSWORD}\n")
        for at, pulp in zip(PULPS, pulps, strict=True):
            url = f"http://{pulp.address}:{pulp.api_port}"
            world.command("services", "add", at, "--control-url", url, "--credentials", f"file:{tmp_path}/password")
        yield world


def patient(world: World, wait_s: float) -> None:
    """Let the cluster wait for Pulps that are away for so long."""
    said = yaml.safe_load(world.it.cluster_file.read_text())
    said["content"]["steered"]["wait_s"] = wait_s
    world.it.cluster_file.write_text(yaml.safe_dump(said))


def versions_of_dnf(world: World, directory: Path, packages: Sequence[Package]) -> list[dict[str, str]]:
    """Return the metadata that dnf has of each Pulp after it fetched packages there."""
    found = []
    for number, pulp in enumerate(world.pulps):
        dnf = Dnf(directory / f"dnf{number}", {"base": pulp.content_url(f"{world.name}/")})
        assert dnf.refresh().is_whole
        got = dnf.download(*(p.name for p in packages))
        assert {got.fetched.get(p.rpm_name) for p in packages} == {
            hashlib.sha256(p.rpm()).hexdigest() for p in packages
        }, got
        found.append(dnf.metadata())
    return found


A, B, C = Package("alpha"), Package("beta"), Package("gamma", "2.0")


def test_both_pulps_have_what_the_origin_has_and_go_back_together(
    world: World, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("dnf")
    world.it.start()
    try:
        world.moves(A, B)
        (first,) = world.command("content", "sync", world.name)["jobs"]
        assert (first["state"], first["result"]["packages"], first["result"]["left"]) == ("done", 2, {}), first
        assert world.has(1)
        world.moves(A, C)
        assert world.has(1)
        second = world.sync().result
        assert world.has(2)
        one, other = versions_of_dnf(world, tmp_path / "second", [A, C])
        assert one == other
        # Clients with the metadata of before find what that names; the origin has it no more.
        for pulp in world.pulps:
            got = pulp.content.reply("GET", f"{world.name}/Packages/b/{B.rpm_name}")
            assert (got.status, got.body) == (200, B.rpm())
        # What the origin has not changed changes nothing.
        again = world.sync().result
        assert (again["is_new"], again["generation"]) == (False, second["generation"]), again
        earlier = first["result"]["publication"]
        foreseen = world.command("content", "publish", world.name, "--of", earlier[:8], "--dry-run")
        assert [j["publication"] for j in foreseen["jobs"]] == [earlier]
        assert world.has(2)
        (back,) = world.command("content", "publish", world.name, "--of", earlier[:8])["jobs"]
        assert (back["state"], back["result"]["publication"]) == ("done", earlier), back
        versions_of_dnf(world, tmp_path / "back", [A, B])
        # An origin that stands still leaves it at that.
        kept = world.sync().result
        assert (kept["is_new"], kept["publication"]) == (False, earlier)
        known = world.command("content", "publications", world.name)["steered"][world.name]
        assert [(k["digest"], bool(k["of"])) for k in known] == [
            (earlier, True), (second["publication"], False), (earlier, False),
        ]  # fmt: skip
        assert known[0]["turned"] == [*PULPS]
    finally:
        stopped(world.it)
    for pulp in world.pulps:
        (repository,) = pulp.api.all("repositories/rpm/rpm/", name=f"muster/together/{world.name}")
        assert repository["retain_repo_versions"] == 5


def test_debs_and_files_are_steered_as_yum_is(world: World, tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("apt")
    origins.deb(world.origin / "deb", [A, B], revision=1, by_hash=True)
    (world.origin / "file").mkdir()
    (world.origin / "file" / "one").write_bytes(b"hello")
    (world.origin / "file" / "PULP_MANIFEST").write_text(f"one,{hashlib.sha256(b'hello').hexdigest()},5\n")
    with steers.steering(world.it.cluster_file):
        world.sync(f"{world.name}-deb", f"{world.name}-file")
        assert [world.job(number).state for number in (1, 2)] == ["done", "done"], world.job(1)
        for number, pulp in enumerate(world.pulps):
            release = pulp.content.reply("GET", f"{world.name}-deb/dists/stable/Release").body
            assert release == (world.origin / "deb" / "dists" / "stable" / "Release").read_bytes()
            assert pulp.content.reply("GET", f"{world.name}-file/one").body == b"hello"
            apt = Apt(tmp_path / f"apt{number}", [f"{pulp.content_url(f'{world.name}-deb')} stable main"])
            assert apt.update().is_whole


@pytest.mark.proof
def test_a_member_that_dies_at_any_step_leaves_nothing_half_done(world: World) -> None:
    # The first is after tasks were begun and written down.
    steps = [STEPS[5], *STEPS[:5], *STEPS[6:]][: scale.STEERED_KILLS]
    world.moves(A, B)
    with steers.steering(world.it.cluster_file):
        world.sync()
    for number, step in enumerate(steps):
        world.moves(A, Package(f"of{number}"))
        synchronised = world.tasks("synchroniz")
        job = world.asked()
        with steers.steering(world.it.cluster_file, step) as process:
            process.died()
        # Nobody is turned before it was decided, and nobody half of them for good after that.
        has_flipped = len(world.flips()) == number + 2
        assert has_flipped == (step.partition("=")[0] == "content-flipped.after-commit" or "followed" in step), step
        if not has_flipped:
            assert world.has(number + 1), step
        with steers.steering(world.it.cluster_file) as process:
            until(lambda n=number: world.has(n + 2), 60)  # type: ignore[misc]
            assert process.ran, process.log()
            until(lambda j=job: _is_done(world, j), 60)  # type: ignore[misc]
        assert world.flips()[0].generation == number + 2, step
        # Who went on looked at the tasks that ran: none was begun a second time.
        if "staged" in step and step not in STEPS[:5]:
            assert world.tasks("synchroniz") - synchronised == 2, step


def _is_done(world: World, number: int) -> bool:
    job = world.job(number)
    assert job.state in ("asked", "running", "done"), job
    return job.state == "done"


@contextlib.contextmanager
def away(pulp: Pulp) -> Iterator[None]:
    """Hold a Pulp's API away; clients are served."""
    pulp.kill("api")
    try:
        yield
    finally:
        pulp.start()


def test_one_that_is_away_stops_nobody_and_is_brought_along(world: World) -> None:
    world.moves(A, B)
    with steers.steering(world.it.cluster_file):
        world.sync()
    world.moves(A, C)
    world.asked()
    with steers.steering(world.it.cluster_file, "content-flipped.after-commit=kill") as process:
        process.died()
    assert world.has(1)
    # It was decided, and one is away: it follows when it is back, and nothing is staged again for that.
    with steers.steering(world.it.cluster_file):
        with away(world.pulps[1]):
            until(lambda: world.repomds()[0] != world.repomds()[1], 60)
        until(lambda: world.has(2), 60)
        # Who ends before that leaves the note of the generation before, which nobody can tell anew of one that is away.
        until(lambda: not world.command("content", "jobs")["behind"])
    assert len(world.flips()) == 2
    # It is away before anything is decided: the other goes on without it.
    patient(world, 3.0)
    world.moves(B, C)
    place = ("services", "set", "pulp@two", "--control-url")
    world.command(*place, f"http://{world.pulps[1].address}:1")
    with steers.steering(world.it.cluster_file):
        job = world.sync()
        assert (job.state, job.result["pulps"], [*job.result["left"]]) == ("done", ["pulp@one"], ["pulp@two"])
        assert "gone on without pulp@two" in job.sentence
        one, other = world.repomds()
        assert one != other
        until(lambda: bool(world.command("content", "jobs")["behind"]))
        (behind,) = world.command("content", "jobs")["behind"]
        assert (behind["pulp"], behind["repository"], behind["generation"]) == ("pulp@two", world.name, 2)
        world.command(*place, f"http://{world.pulps[1].address}:{world.pulps[1].api_port}")
        until(lambda: world.has(3), 60)
        until(lambda: not world.command("content", "jobs")["behind"])
    assert world.flips()[0].pulps.keys() == {*PULPS}


def test_an_origin_that_moves_in_between_is_fetched_again_by_who_has_the_older(world: World) -> None:
    world.moves(A, B)
    with steers.steering(world.it.cluster_file):
        world.sync()
        world.moves(A, C)
        found: list[Job] = []
        with world.pulps[1].paused("worker1"):
            asking = threading.Thread(target=lambda: found.append(world.sync()))
            asking.start()
            until(lambda: _has_synced(world, "pulp@one"))
            world.moves(B, C)
        asking.join()
        assert world.has(3)
    assert found[0].result["rounds"] == 2


def _has_synced(world: World, pulp: str) -> bool:
    stage = world.stage()
    assert stage is not None
    return bool(stage.job > 1 and stage.pulps[pulp].digest)
