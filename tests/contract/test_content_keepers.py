"""A real Pulp that keeps nothing of what a newer version drops, and what its member's keepers make of that."""

from __future__ import annotations

import asyncio
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from muster.app.offers import modelled
from muster.app.settings import cluster_store, loaded
from muster.cli.demo.bind import free_port
from muster.content.retention import reached
from muster.content.retention.checks import checks
from tests.servers import member, origins, pulp, pulp_api
from tests.servers.certificates import CA
from tests.servers.client import Answer, Place, ask
from tests.servers.member import TRUSTED, Member
from tests.servers.packages import Package
from tests.servers.pulp import Pulp
from tests.servers.pulp_api import Api, Repository

COUNT = 4
HOST = "host.example.com"
REPOMD = "repodata/repomd.xml"
DISTRIBUTIONS = "distributions/rpm/rpm/"


@pytest.fixture(scope="module")
def forgetful(needs: Callable[[str], None]) -> Iterator[Pulp]:
    needs("pulp")
    settings = {**pulp.AS_INSTALLED, "DISTRIBUTED_PUBLICATION_RETENTION_PERIOD": 0}
    with pulp.running("forgetful", address="127.0.0.64", settings=settings) as one:
        yield one


@dataclass
class Front:
    """A member in front of the Pulp, whose section ``content`` can be changed while it is stopped."""

    member: Member
    pulp: Pulp
    https: Place

    def get(self, path: str, *, name: str | None = None) -> Answer:
        return ask(self.https, "GET", f"/pulp/content/{path}", tls=self.member.tls(name))

    def configure(self, **content: Any) -> None:
        document = yaml.safe_load(self.member.cluster_file.read_text())
        document["content"] |= content
        self.member.cluster_file.write_text(yaml.safe_dump(document))

    def notes(self) -> list[str]:
        """Return what the member says is wrong of keepers."""
        said = [note for told in self.member.process.health.notes for note in told()]
        return [note for note in said if "not kept" in note]

    def ring(self, of: str) -> list[dict[str, Any]]:
        """Return the keepers of a repository, the one that was turned last at the end."""
        found = self.pulp.api.all(DISTRIBUTIONS, pulp_label_select="muster_keeper=wire")
        ours = [d for d in found if d["name"].endswith(f"/{of}")]
        return sorted(ours, key=lambda d: int(d["pulp_labels"]["muster_turn"]))


@pytest.fixture
def front(forgetful: Pulp, tmp_path: Path) -> Iterator[Front]:
    api = f"http://{forgetful.address}:{forgetful.api_port}"
    content = {
        "pulp_content_url": forgetful.content_url().partition("/pulp/")[0], "pulp_api_url": api, "services": ["https"],
        "keepers": COUNT,
    }  # fmt: skip
    made = member.made(tmp_path / "member", content=content)
    https = Place(made.https.address, free_port(made.https.address))
    document = yaml.safe_load(made.cluster_file.read_text())
    document["services"]["https"] = {"member_port": https.port}
    made.cluster_file.write_text(yaml.safe_dump(document))
    made.start()
    it = Front(made, forgetful, https)
    yield it
    if made._opened is not None:
        made.stop()
    for one in it.pulp.api.all(DISTRIBUTIONS):
        if "muster-keep" in one["base_path"]:
            it.pulp.api.send("DELETE", one["pulp_href"])


def _until(holds: Callable[[], bool], within_s: float = 40.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.2)


@dataclass
class Source:
    """What the origin has: in each version one package that no other has, and one that all have."""

    directory: Path
    repository: Repository

    def publish(self, revision: int) -> None:
        packages = [Package("stays"), of(revision)]
        origins.yum(self.directory / str(revision), packages, revision=revision)
        self.repository = self.repository.sync_from((self.directory / str(revision)).as_uri())


def of(revision: int) -> Package:
    return Package(f"of{revision}")


def at(package: Package) -> str:
    return f"Packages/{package.name[0]}/{package.rpm_name}"


def made_at(front: Front, base: str, directory: Path, *, guard: str | None = None) -> Source:
    source = Source(directory, pulp_api.repository(front.pulp.api, "rpm", base, retain_versions=1))
    if guard is not None:
        source.repository.guard(guard)
    return source


def shown_and_kept(front: Front, source: Source, revision: int, *, name: str | None = None) -> None:
    """Publish a revision, and return when clients get it and it is kept."""
    source.publish(revision)
    base = source.repository.base_path
    wanted = (source.directory / str(revision) / REPOMD).read_bytes()
    _until(lambda: front.get(f"{base}/{REPOMD}", name=name).body == wanted)
    newest = source.repository.publications()[0]
    _until(lambda: newest in [k["publication"] for k in front.ring(base)])


def test_a_package_dropped_three_versions_ago_is_gone_at_the_pulp_and_there_at_its_member(
    front: Front, tmp_path: Path
) -> None:
    source = made_at(front, "org/kept", tmp_path / "origin")
    for revision in (1, 2, 3, 4, 5):
        shown_and_kept(front, source, revision)
    assert [front.pulp.content.reply("GET", f"org/kept/{at(of(n))}").status for n in (1, 2, 3, 4, 5)] == [404] * 4 + [
        200
    ]
    for revision in (2, 3, 4, 5):
        found = front.get(f"org/kept/{at(of(revision))}")
        assert (found.status, found.body) == (200, of(revision).rpm()), revision
    # As many as there are in the ring.
    assert front.get(f"org/kept/{at(of(1))}").status == 404
    part = ask(
        front.https,
        "GET",
        f"/pulp/content/org/kept/{at(of(2))}",
        tls=front.member.tls(),
        headers={"Range": "bytes=2-9"},
    )
    assert (part.status, part.body) == (206, of(2).rpm()[2:10])
    ring = front.ring("org/kept")
    assert [k["base_path"] for k in ring] == [f"org/muster-keep/{n}/kept" for n in (1, 2, 3, 0)]
    assert [k["hidden"] for k in ring] == [True] * COUNT
    assert {k["pulp_labels"]["katello_orphan_cleanup"] for k in ring} == {"false"}
    # A member that starts anew goes on where it was, and its workers do as it does.
    front.member.stop()
    front.configure(workers=2)
    front.member.start()
    shown_and_kept(front, source, 6)
    assert [k["base_path"] for k in front.ring("org/kept")] == [f"org/muster-keep/{n}/kept" for n in (2, 3, 0, 1)]
    assert front.get(f"org/kept/{at(of(3))}").body == of(3).rpm()
    assert front.notes() == []


def test_no_client_gets_from_a_keeper_what_the_guard_refuses(front: Front, tmp_path: Path) -> None:
    api = front.pulp.api
    guard = pulp_api.certificate_guard(api, "keepers", front.member.ca.read_text())
    source = made_at(front, "org/guarded", tmp_path / "origin", guard=guard)
    for revision in (1, 2, 3):
        shown_and_kept(front, source, revision, name=HOST)
    path = f"org/guarded/{at(of(1))}"
    assert front.get(path, name=HOST).body == of(1).rpm()
    assert front.get(path).status == 403
    assert front.get(f"org/guarded/{at(of(9))}").status == 403
    # Nor as such, at the member or at Pulp.
    kept = next(k for k in front.ring("org/guarded") if k["base_path"] == "org/muster-keep/0/guarded")
    straight = f"{kept['base_path']}/{at(of(1))}"
    for spelled in (straight, straight.replace("muster-keep", "%6duster-keep")):
        assert [front.get(spelled, name=name).status for name in (None, HOST)] == [404, 404]
    stranger = urllib.parse.quote(CA("foreign").issue("host").public_bytes(Encoding.PEM).decode())
    for shown in ({}, {"X-CLIENT-CERT": stranger}):
        assert front.pulp.content.reply("GET", straight, headers=shown).status == 403
    # Another guard is asked at once at the member, and soon by the keepers themselves.
    other = pulp_api.certificate_guard(api, "others", CA("others").pem.decode())
    source.repository.guard(other)
    assert front.get(path, name=HOST).status == 403
    _until(lambda: {k["content_guard"] for k in front.ring("org/guarded")} == {other})


def test_what_is_not_ours_stays_and_ours_goes_when_no_keepers_are_wanted(front: Front, tmp_path: Path) -> None:
    api = front.pulp.api
    source = made_at(front, "ours", tmp_path / "origin")
    shown_and_kept(front, source, 1)
    publication = source.repository.publications()[0]
    foreign = {
        "muster-keep/7/foreign": {},
        "muster-keep/6/foreign": {"muster_keeper": "another"},
        "elsewhere/foreign": {"muster_keeper": "wire"},
    }
    for base, labels in foreign.items():
        said = {"name": base, "base_path": base, "publication": publication, "pulp_labels": labels}
        api.send("POST", DISTRIBUTIONS, said)
    front.member.stop()
    front.configure(keepers=0)
    front.member.start()
    _until(lambda: not front.ring("ours"))
    assert {d["base_path"] for d in api.all(DISTRIBUTIONS)} >= {*foreign, "ours"}
    assert front.notes() == []
    api.send("DELETE", next(d["pulp_href"] for d in api.all(DISTRIBUTIONS) if d["base_path"] == "elsewhere/foreign"))


def test_keepers_of_a_repository_that_is_gone_go_with_it(front: Front, tmp_path: Path) -> None:
    source = made_at(front, "leaves", tmp_path / "origin")
    shown_and_kept(front, source, 1)
    front.pulp.api.send("DELETE", source.repository.distribution)
    _until(lambda: not front.ring("leaves"))


def test_an_api_that_is_away_or_refuses_is_named_and_nothing_else_breaks(front: Front, tmp_path: Path) -> None:
    source = made_at(front, "stands", tmp_path / "origin")
    shown_and_kept(front, source, 1)
    front.pulp.end("api")
    try:
        _until(lambda: any("cannot be reached" in note for note in front.notes()))
        assert front.get(f"stands/{at(of(1))}").body == of(1).rpm()
        assert front.get(f"stands/{REPOMD}").status == 200
    finally:
        front.pulp.start()
    _until(lambda: not front.notes())
    shown_and_kept(front, source, 2)
    front.member.stop()
    wrong = tmp_path / "wrong"
    wrong.write_text("another\n")
    front.configure(pulp_password_file=str(wrong))
    front.member.start()
    _until(lambda: any("answers 403 to GET /pulp/api/v3/distributions" in note for note in front.notes()))
    assert front.get(f"stands/{at(of(1))}").body == of(1).rpm()
    # With the right one it is as good as Remote-User.
    front.member.stop()
    wrong.write_text(f"{Api.PASSWORD}\n")
    front.member.start()
    shown_and_kept(front, source, 3)
    assert front.notes() == []


def test_the_doctor_names_a_repository_that_its_pulp_keeps_one_version_of(
    front: Front, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = made_at(front, "org/one", tmp_path / "origin")
    source.publish(1)
    _until(lambda: front.get(f"org/one/{REPOMD}").status == 200)
    front.configure(keepers=0)
    cluster = loaded(front.member.cluster_file)

    def found(name: str | None) -> list[tuple[str, str]]:
        (check,) = checks(
            cluster, modelled(cluster), lambda: front.member.tls(name), lambda: cluster_store(cluster)
        )  # fmt: skip

        async def run() -> list[tuple[str, str]]:
            return [(f.code, f.place) for f in await check.run()]

        return asyncio.run(run())

    _until(lambda: bool(front.ring("org/one")))
    behind = f"Pulp behind {front.member.name}"
    named = [("CONTENT-KEEPERS", behind), ("CONTENT-RETENTION", "org/one")]
    _until(lambda: found(None) == named)
    # From another host it is asked through the member, which believes who is trusted there.
    monkeypatch.setattr(reached, "_is_here", lambda _: False)
    assert found(TRUSTED) == named
    assert found(HOST) == [("CONTENT-RETENTION-UNSEEN", behind)]
