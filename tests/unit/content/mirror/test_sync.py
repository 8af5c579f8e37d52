"""Bringing a repository here, whole or not at all, from an origin that changes, breaks off or lies."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from muster.cluster.mirror import Kind, Mirrored, Policy
from muster.content.index import Index
from muster.content.kept import Differs, Full, Kept, Oversized
from muster.content.manifest import REPOMD, Manifest
from muster.content.metadata.malformed import Malformed
from muster.content.mirror import paths
from muster.content.mirror.named import named
from muster.content.mirror.publications import Publication
from muster.content.mirror.sync import Synchronised, synchronised
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from tests.servers import deb_stand_in
from tests.servers.pulp_stand_in import version
from tests.unit.content.mirror.origin import URL, Origin

pytestmark = pytest.mark.anyio

MB = 1 << 20
BODIES = {"a": b"package a" * 400, "b+c": b"package b" * 300, "d": b"d"}
ONE, TWO = (version(n, {**BODIES, "e": b"%d" % n}) for n in (1, 2))
DEB = deb_stand_in.both(
    deb_stand_in.version(1, BODIES, sha512=True),
    deb_stand_in.version(2, {"a": BODIES["a"], "z": b"z"}, suite="dists/s/u"),
)
FILES = {"x/a.iso": b"iso" * 1000, "with, comma": b"c", "b": b"b"}


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def listing(files: Mapping[str, bytes]) -> bytes:
    return "".join(f"{name},{sha256(body)},{len(body)}\n" for name, body in files.items()).encode()


CONTENT: dict[Kind, Mapping[str, bytes]] = {
    "yum": ONE.files, "deb": DEB.files, "file": {**FILES, "PULP_MANIFEST": listing(FILES)},
}  # fmt: skip
PACKAGES: dict[Kind, Mapping[str, bytes]] = {
    "yum": ONE.packages, "deb": {**BODIES, "z": b"z"}, "file": FILES,
}  # fmt: skip


def settings(kind: Kind, policy: Policy = "on_demand", **more: Any) -> Mirrored:
    return Mirrored(kind=kind, url=URL, policy=policy, suites=("stable", "s/u") if kind == "deb" else (), **more)


class Here:
    """A member's two disks, what it mirrors, and what it was told."""

    def __init__(self, root: Path, kind: Kind = "yum", policy: Policy = "on_demand", limit_bytes: int = MB) -> None:
        self.kept = Kept(root / "kept", limit_bytes=limit_bytes)
        self.packages = Kept(root / "packages", limit_bytes=limit_bytes)
        self.roots = (root / "kept", root / "packages")
        self.mirrored = settings(kind, policy)
        self.origin = Origin(dict(CONTENT[kind]))
        self.said: list[tuple[int, int, str]] = []
        self.room: list[int] = []
        self.sha256_of: dict[str, str] = {}

    async def sync(self, last: Publication | None = None, **more: Any) -> Synchronised:
        async def make_room(count: int) -> None:
            self.room.append(count)

        return await synchronised(
            "r", self.mirrored, self.origin, self.kept, self.packages, last=last, progress=self.tell, connections=3,
            make_room=make_room, sha256_of=self.sha256_of, **more,
        )  # fmt: skip

    async def tell(self, done: int, of: int, sentence: str) -> None:
        self.said.append((done, of, sentence))

    def names(self) -> list[set[str]]:
        return [{p.name for p in root.rglob("*") if p.is_file()} for root in self.roots]

    async def manifests(self, publication: Publication) -> dict[str, Manifest]:
        found = {part: await self.kept.read(digest) for part, digest in publication.parts.items()}
        return {part: Manifest.read(body) for part, body in found.items() if body is not None}

    def close(self) -> None:
        self.kept.close()
        self.packages.close()


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    it = Here(tmp_path)
    yield it
    it.close()


@pytest.fixture(params=["yum", "deb", "file"])
async def each(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Here]:
    it = Here(tmp_path, request.param)
    yield it
    it.close()


async def test_metadata_come_and_packages_do_where_that_is_told(each: Here) -> None:
    kind = each.mirrored.kind
    found = await each.sync()
    assert (found.fetched, each.names()[1], found.weak) == (0, set(), 0)
    publication = found.publication
    bodies = PACKAGES[kind]
    assert (publication.packages, publication.size_bytes) == (len(bodies), sum(map(len, bodies.values())))
    assert (publication.repository, publication.origin, publication.of) == ("r", URL, "")
    each.mirrored = settings(kind, "immediate")
    each.origin.most = 0
    again = await each.sync(publication)
    assert again.publication is publication
    assert (again.fetched, again.fetched_bytes) == (len(bodies), publication.size_bytes)
    assert each.names()[1] == {sha256(body) for body in bodies.values()}
    assert each.room == [publication.size_bytes]
    assert each.said[-1][:2] == (publication.size_bytes, publication.size_bytes)
    assert each.origin.open == 0
    assert 1 < each.origin.most <= 3
    manifests = await each.manifests(publication)
    assert each.names()[0] == {*publication.parts.values()}.union(*(m.needed for m in manifests.values()))


async def test_what_has_not_changed_costs_an_entry_and_what_lies_beside_it(each: Here) -> None:
    each.mirrored = settings(each.mirrored.kind, "immediate")
    publication = (await each.sync()).publication
    before = each.names()
    each.origin.paths()
    again = await each.sync(publication)
    assert again.publication is publication
    assert (again.fetched, each.names()) == (0, before)
    expected = {
        "yum": {"repodata/repomd.xml", "repodata/repomd.xml.asc", "repodata/repomd.xml.key", "treeinfo", ".treeinfo"},
        "deb": {f"dists/{s}/{n}" for s in ("stable", "s/u") for n in ("InRelease", "Release", "Release.gpg")},
        "file": {"PULP_MANIFEST"},
    }[each.mirrored.kind]  # fmt: skip
    assert set(each.origin.paths()) == expected


async def test_the_same_content_makes_the_same_publication_on_every_member(each: Here, tmp_path: Path) -> None:
    other = Here(tmp_path / "other", each.mirrored.kind, "immediate")
    one, two = (await each.sync()).publication, (await other.sync()).publication
    assert one == two
    assert one.digest == two.digest
    other.close()


async def test_what_is_lost_from_a_disk_is_fetched_again(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    publication = (await here.sync()).publication
    await here.packages.drop(sha256(BODIES["a"]))
    assert (await here.sync(publication)).fetched == 1
    before = here.names()
    manifest = (await here.manifests(publication))[""]
    for digest in (manifest.packages, publication.parts[""], manifest.digest):
        await here.kept.drop(digest)
        assert (await here.sync(publication)).publication is publication
        assert here.names() == before


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_list_that_the_disk_has_damaged_is_fetched_the_next_time(here: Here, is_known: bool) -> None:
    here.mirrored = settings("yum", "immediate")
    one = (await here.sync()).publication
    name = sha256(ONE.files[ONE.primary])
    at = here.roots[0] / "sha256" / name[:2] / name
    at.write_bytes(b"x" * at.stat().st_size)
    with pytest.raises(Unavailable, match="gone again"):
        await here.sync(one if is_known else None)
    found = (await here.sync(one)).publication
    assert found is one
    assert await here.kept.read(name) == ONE.files[ONE.primary]


async def test_of_a_newer_version_what_is_here_is_not_fetched_again(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    one = (await here.sync()).publication
    before = here.names()
    here.origin.files = TWO.files
    here.origin.paths()
    found = await here.sync(one)
    assert (found.publication.digest != one.digest, found.fetched, found.fetched_bytes) == (True, 1, 1)
    assert not {f"Packages/{name}.rpm" for name in BODIES} & set(here.origin.paths())
    # The older publication is whole.
    assert before[0] < here.names()[0]


async def test_a_signature_that_comes_later_than_what_it_signs_comes_too(here: Here) -> None:
    signature = "repodata/repomd.xml.asc"
    here.origin.files = {name: body for name, body in ONE.files.items() if name != signature}
    one = (await here.sync()).publication
    here.origin.files = ONE.files
    two = (await here.sync(one)).publication
    assert signature in (await here.manifests(two))[""].files
    assert (await here.sync(two)).publication is two


@pytest.mark.parametrize("kind", ["yum", "deb"])
async def test_what_nobody_may_list_is_not_there(tmp_path: Path, kind: Kind) -> None:
    it = Here(tmp_path, kind)
    beside = {"yum": [".treeinfo", "treeinfo", "repodata/repomd.xml.key"], "deb": [
        f"{deb_stand_in.SUITE}/{name}" for name in ("Release.gpg", f"{deb_stand_in.BINARY}/Packages.xz", "InRelease")
    ]}[kind]  # fmt: skip
    it.origin.status = dict.fromkeys(beside, 403)
    publication = (await it.sync()).publication
    assert (await it.sync(publication)).publication is publication
    it.close()


async def test_components_and_architectures_narrow_what_is_fetched(tmp_path: Path) -> None:
    it = Here(tmp_path, "deb")
    whole = (await it.sync()).publication
    it.mirrored = replace_settings(it.mirrored, components=("contrib",))
    it.origin.paths()
    narrow = (await it.sync(whole)).publication
    assert (narrow.packages, narrow.size_bytes) == (0, 0)
    lists = f"{deb_stand_in.SUITE}/{deb_stand_in.BINARY}/Packages"
    assert not any(path.startswith(lists) for path in it.origin.paths())
    manifest = (await it.manifests(narrow))["dists/stable"]
    assert manifest.files.keys() == {"InRelease", "Release", "Release.gpg"}
    at = await it.kept.path(manifest.packages)
    assert at is not None
    index = Index.opened(at)
    body = DEB.files[f"{lists}.gz"]
    assert index.find(f"{lists}.gz") == (len(body), "sha256", sha256(body))
    index.close()
    assert (await it.sync(narrow)).publication is narrow
    it.mirrored = settings("deb")
    assert (await it.sync(narrow)).publication == replace(whole)
    it.close()


def replace_settings(mirrored: Mirrored, **changed: Any) -> Mirrored:
    return Mirrored(**{**mirrored.model_dump(), **changed})


SOURCES = {"s_1.dsc": b"dsc" * 99, "s_1.orig.tar.xz": b"orig" * 500}


@pytest.mark.parametrize("policy", ["on_demand", "immediate"])
async def test_source_packages_come_where_that_is_told(tmp_path: Path, policy: Policy) -> None:
    it = Here(tmp_path, "deb")
    made = deb_stand_in.version(1, BODIES, sources=SOURCES)
    it.origin.files = made.files
    it.mirrored = Mirrored(kind="deb", url=URL, suites=("stable",), policy=policy)
    binary = (await it.sync()).publication
    assert binary.packages == len(BODIES)
    assert (await it.sync(binary)).publication is binary
    it.mirrored = replace_settings(it.mirrored, sources=True)
    found = (await it.sync(binary)).publication
    assert (found.packages, found.size_bytes) == (
        len(BODIES) + len(SOURCES), sum(map(len, (*BODIES.values(), *SOURCES.values()))),
    )  # fmt: skip
    manifest = (await it.manifests(found))["dists/stable"]
    at = await it.kept.path(manifest.packages)
    assert at is not None
    index = Index.opened(at)
    for name, body in SOURCES.items():
        assert index.find(f"pool/source/{name}") == (len(body), "sha256", sha256(body))
    index.close()
    assert (await it.sync(found)).publication is found
    brought = {sha256(body) for body in (*BODIES.values(), *SOURCES.values())}
    assert it.names()[1] == (brought if policy == "immediate" else set())
    listed = (await named(it.kept, paths.at("library", "deb", "r", "dists/stable"), manifest)).packages
    assert {href for href in listed if "source" in href} == {f"pool/source/{name}" for name in SOURCES}
    # And no more, as it was before, where that is told.
    it.mirrored = replace_settings(it.mirrored, sources=False)
    assert (await it.sync(found)).publication.digest == binary.digest
    it.close()


async def test_sources_are_of_the_components_that_are_named(tmp_path: Path) -> None:
    it = Here(tmp_path, "deb")
    it.origin.files = deb_stand_in.version(1, BODIES, sources=SOURCES).files
    it.mirrored = Mirrored(kind="deb", url=URL, suites=("stable",), components=("contrib",), sources=True)
    assert (await it.sync()).publication.packages == 0
    it.mirrored = replace_settings(it.mirrored, components=("main",), architectures=("arm64",))
    assert (await it.sync()).publication.packages == len(SOURCES)
    it.close()


async def test_a_list_of_sources_that_is_none_counts_where_sources_are_wanted_alone(tmp_path: Path) -> None:
    it = Here(tmp_path, "deb")
    it.origin.files = deb_stand_in.version(1, BODIES, sources={"a/b.dsc": b"x"}).files
    it.mirrored = Mirrored(kind="deb", url=URL, suites=("stable",))
    one = (await it.sync()).publication
    assert (await it.sync(one)).publication is one
    it.mirrored = replace_settings(it.mirrored, sources=True)
    with pytest.raises(Malformed, match=r"main/source/Sources\.gz failed: .* no digest, size and name"):
        await it.sync(one)
    it.close()


async def test_a_broken_answer_goes_on_where_it_broke(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    path, primary = "Packages/a.rpm", ONE.primary
    here.origin.breaks_at = {path: 2500, primary: 5}
    await here.sync()
    last, end = len(BODIES["a"]) - 1, len(ONE.files[primary]) - 1
    parts = [(p, r) for _, p, r in here.origin.asked if r]
    assert sorted(parts) == [(path, f"bytes=2500-{last}"), (primary, f"bytes=5-{end}")]
    assert here.said[-1][0] == sum(map(len, ONE.packages.values()))


async def test_a_list_is_fetched_by_its_digest_where_the_plain_name_has_an_older_one(tmp_path: Path) -> None:
    it = Here(tmp_path, "deb")
    place = f"{deb_stand_in.SUITE}/{deb_stand_in.BINARY}"
    name = f"{place}/Packages.gz"
    by_hash = f"{place}/by-hash/SHA256/{sha256(DEB.files[name])}"
    it.origin.files = {**DEB.files, name: b"older", by_hash: DEB.files[name]}
    it.origin.breaks_at = {by_hash: 20}
    manifest = (await it.manifests((await it.sync()).publication))["dists/stable"]
    assert manifest.files[f"{deb_stand_in.BINARY}/Packages.gz"] == sha256(DEB.files[name])
    assert name not in it.origin.paths()
    it.close()


async def test_what_nothing_proves_is_not_put_together_of_two_answers(here: Here) -> None:
    here.origin.files = {
        "repodata/repomd.xml": (
            f'<repomd><data type="other"><checksum type="sha">{"a" * 40}</checksum><location href="o.xml"/></data></repomd>'
        ).encode(),
        "o.xml": b"o" * 2000,
    }
    here.origin.breaks_at = {"o.xml": 1000}
    with pytest.raises(Unavailable, match="broke off"):
        await here.sync()
    assert not [part for _, _, part in here.origin.asked if part]


async def test_without_ranges_a_broken_package_is_fetched_once_more(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.breaks_at, here.origin.no_ranges = {"Packages/a.rpm": 2500}, True
    assert (await here.sync()).fetched == 4
    assert here.said[-1][0] == sum(map(len, ONE.packages.values()))
    assert here.origin.open == 0


LIES = [
    ("Packages/a.rpm", b"x" * len(BODIES["a"]), Differs, "origin.test/x/Packages/a.rpm: sha256:.* was expected, and"),
    ("Packages/a.rpm", BODIES["a"][:-1], Differs, "Packages/a.rpm: .* 3600 bytes were expected, and 3599 came"),
    ("Packages/a.rpm", BODIES["a"] + b"x", Oversized, "Packages/a.rpm: .* more than 3600 bytes came"),
    ("Packages/a.rpm", None, Unavailable, "answers 404 for https://origin.test/x/Packages/a.rpm, which its metadata name"),
    (ONE.primary, b"x" * len(ONE.files[ONE.primary]), Differs, f"gives another https://origin.test/x/{ONE.primary}: sha256"),
    (ONE.primary, ONE.files[ONE.primary][:-1], Differs, f"x/{ONE.primary}: .* bytes were expected"),
    (ONE.primary, None, Unavailable, f"answers 404 for https://origin.test/x/{ONE.primary}"),
    ("repodata/repomd.xml", None, NotFound, "There is no yum repository: the origin answers 404 for https://origin.test/x/rep"),
    ("repodata/repomd.xml", b"<html/>", Malformed, "Reading repomd.xml failed"),
    ("repodata/repomd.xml", b" " * (5 * MB), Unavailable, "x/repodata/repomd.xml is larger than 4 MiB"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "kind", "why"), LIES)
async def test_what_an_origin_gives_wrongly_is_named_and_nothing_of_it_stays(
    here: Here, path: str, body: bytes | None, kind: type[MusterError], why: str
) -> None:
    here.mirrored = settings("yum", "immediate")
    files = {**ONE.files, path: body or b""}
    if body is None:
        del files[path]
    here.origin.files = files
    with pytest.raises(kind, match=why):
        await here.sync()
    assert here.names() == [set(), set()]
    assert here.origin.open == 0


async def test_what_was_here_before_a_failure_stays_and_no_more(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    one = (await here.sync()).publication
    before = here.names()
    here.origin.files = {name: body for name, body in TWO.files.items() if name != "Packages/e.rpm"}
    with pytest.raises(Unavailable, match=r"Packages/e\.rpm"):
        await here.sync(one)
    assert here.names() == before


async def test_what_something_else_needs_stays(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.status["Packages/d.rpm"] = 500
    theirs = sha256(BODIES["a"])
    with pytest.raises(Unavailable, match="answers 500"):
        await here.sync(is_needed=lambda name: name == theirs)
    assert here.names()[1] <= {theirs}


async def test_what_another_run_relies_on_stays(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.hangs = "Packages/e.rpm"
    failing = asyncio.create_task(here.sync())
    while len(here.names()[1]) < 3:
        await asyncio.sleep(0.01)
    theirs = Origin(ONE.files)
    mine, here.origin = here.origin, theirs
    going = asyncio.create_task(here.sync())
    while not any(path == "Packages/e.rpm" for _, path, _ in theirs.asked):
        await asyncio.sleep(0)
    assert mine.asked
    failing.cancel()
    await asyncio.gather(failing, return_exceptions=True)
    assert (await going).fetched == 1
    assert here.names()[1] == {sha256(body) for body in ONE.packages.values()}


async def test_a_cancelled_run_leaves_nothing(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.hangs = "Packages/e.rpm"
    task = asyncio.create_task(here.sync())
    while not here.names()[1]:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert here.names() == [set(), set()]
    assert here.origin.open == 0


async def test_whoever_hears_of_progress_may_end_it(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")

    async def refuse(done: int, of: int, sentence: str) -> None:
        if of:
            raise Rejected("somebody cancelled it")

    here.tell = refuse  # type: ignore[method-assign]
    with pytest.raises(Rejected, match="somebody cancelled it"):
        await here.sync()
    assert here.names() == [set(), set()]


async def test_what_was_ended_is_not_begun_anew_where_the_origin_changes(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")

    async def refuse(done: int, of: int, sentence: str) -> None:
        here.origin.files = TWO.files if here.origin.files is not TWO.files else ONE.files
        raise Rejected("somebody cancelled it")

    here.tell = refuse  # type: ignore[method-assign]
    with pytest.raises(Rejected, match="somebody cancelled it"):
        await here.sync()


async def test_a_disk_that_does_not_free_it_hides_nothing(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.status["Packages/d.rpm"] = 500

    async def refuse(name: str) -> bool:
        raise Unavailable("the disk is gone")

    monkeypatch.setattr(here.kept, "drop", refuse)
    with capture_logs() as logs, pytest.raises(Unavailable, match="answers 500"):
        await here.sync()
    assert [line["why"] for line in logs if "why" in line][-1] == "the disk is gone"


async def test_an_origin_that_goes_back_to_what_it_was_leaves_that_whole(here: Here) -> None:
    one = (await here.sync()).publication
    before = here.names()
    primary = sha256(ONE.files[ONE.primary])
    await here.kept.drop(primary)
    # The other version names the same lists; one of them does not come.
    other = {name: body for name, body in ONE.files.items() if name != "repodata/repomd.xml"}
    here.origin.files = {**other, "repodata/repomd.xml": ONE.repomd + b"<!-- -->"}

    filelists = next(name for name in ONE.files if "filelists" in name)
    await here.kept.drop(sha256(ONE.files[filelists]))
    here.origin.status[filelists] = 404

    def change(path: str) -> None:
        if here.origin.files is not ONE.files and path == REPOMD and ("GET", filelists, "") in here.origin.asked:
            here.origin.files, here.origin.status = ONE.files, {}

    here.origin.before = change
    assert (await here.sync(one)).publication is one
    assert here.names() == before


async def test_an_origin_that_changes_meanwhile_is_asked_again(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")

    def change(path: str) -> None:
        if path == "Packages/a.rpm":
            here.origin.files = {
                n: b
                for n, b in TWO.files.items()
                if n != "Packages/a.rpm" or here.origin.asked.count(("GET", "repodata/repomd.xml", "")) > 3
            }

    here.origin.before = change
    found = (await here.sync()).publication
    assert (await here.manifests(found))[""].revision == 2
    # Of the other version nothing is left.
    assert sha256(ONE.repomd) not in here.names()[0]


async def test_an_origin_that_changes_again_and_again_is_given_up(here: Here) -> None:
    versions = [version(n, {"a": b"%d" % n}) for n in range(3, 20)]

    def change(path: str) -> None:
        if path.endswith("primary.xml.gz"):
            here.origin.files = versions.pop(0).files

    here.origin.before = change
    with pytest.raises(Unavailable, match=r"https://origin\.test/x changed 3 times while it was fetched; at last: "):
        await here.sync()
    assert here.names() == [set(), set()]


@pytest.mark.parametrize("place", ["", "stable/"])
@pytest.mark.parametrize("entry", ["Release", "InRelease"])
async def test_a_flat_repository_is_refused(tmp_path: Path, place: str, entry: str) -> None:
    it = Here(tmp_path, "deb")
    it.origin.files = {f"{place}{entry}": b"x"}
    with pytest.raises(
        Rejected, match=rf"https://origin.test/x/{place}{entry} is that of a flat repository, .* not mirrored"
    ):
        await it.sync()
    it.close()


async def test_that_there_is_no_suite_is_said(tmp_path: Path) -> None:
    it = Here(tmp_path, "deb")
    it.origin.files = {}
    with pytest.raises(
        NotFound, match=r"404 for https://origin\.test/x/dists/stable/InRelease, 404 for .*stable/Release"
    ):
        await it.sync()
    it.origin.status["dists/stable/InRelease"] = 401
    with pytest.raises(Unavailable, match=r"answers 401 for https://origin\.test/x/dists/stable/InRelease"):
        await it.sync()
    it.close()


async def test_a_full_disk_is_said_before_anything_comes_and_is_free_again(tmp_path: Path) -> None:
    it = Here(tmp_path, "yum", "immediate", limit_bytes=4000)
    with pytest.raises(
        Full, match=r"no room for the packages of r: 6302 bytes are to come, and 0 of 4000 bytes are taken"
    ):
        await it.sync()
    assert not any(path.startswith("Packages") for path in it.origin.paths())
    assert it.names() == [set(), set()]
    it.close()


async def test_a_disk_that_metadata_fill_is_free_again(tmp_path: Path) -> None:
    it = Here(tmp_path, "yum", "on_demand", limit_bytes=900)
    with pytest.raises(Full):
        await it.sync()
    assert it.names() == [set(), set()]
    # It is not tried again.
    assert it.origin.paths().count("repodata/repomd.xml") < 4
    it.close()


def weakly(algorithm: str) -> Mapping[str, bytes]:
    """Return a repository one of whose packages has a digest of this algorithm."""
    digest = hashlib.new(algorithm, BODIES["d"]).hexdigest()
    said = gzip.decompress(ONE.files[ONE.primary]).decode()
    said = said.replace('sha256" pkgid="YES">' + sha256(BODIES["d"]), f'{algorithm}" pkgid="YES">' + digest)
    primary = gzip.compress(said.encode(), mtime=0)
    body = (
        f'<repomd><revision>1</revision><data type="primary"><checksum type="sha256">{sha256(primary)}</checksum>'
        f'<location href="repodata/p.xml.gz"/><size>{len(primary)}</size></data></repomd>'
    )
    return {**ONE.files, "repodata/repomd.xml": body.encode(), "repodata/p.xml.gz": primary}


async def test_packages_with_weak_digests_are_counted_and_not_fetched(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.files = weakly("sha1")
    found = await here.sync()
    assert (found.weak, found.fetched, found.publication.packages) == (1, 3, 3)
    assert (await here.sync(found.publication)).weak == 1


async def test_packages_of_another_strong_digest_are_found_again_by_what_is_remembered(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.files = weakly("sha512")
    found = await here.sync()
    assert (found.weak, found.fetched) == (0, 4)
    assert here.sha256_of == {f"sha512:{hashlib.sha512(BODIES['d']).hexdigest()}": sha256(BODIES["d"])}
    assert (await here.sync(found.publication)).fetched == 0
    here.sha256_of.clear()
    assert (await here.sync(found.publication)).fetched == 1
