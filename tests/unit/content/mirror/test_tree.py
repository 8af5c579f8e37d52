"""Installation trees: what a ``.treeinfo`` names comes, is counted and compared, or is left out and said."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.content.index import Expected, Index
from muster.content.kept import Differs
from muster.content.kinds import of
from muster.content.mirror.named import named
from muster.content.mirror.publications import Publication
from muster.kernel.errors import MusterError, Unavailable
from tests.servers.pulp_stand_in import version
from tests.servers.trees import IMAGES, tree, treeinfo
from tests.unit.content.mirror.test_sync import Here, settings, sha256

pytestmark = pytest.mark.anyio

ONE, TWO = (version(n, {"a": b"package a" * 100, "e": b"%d" % n}) for n in (1, 2))
ADDON = version(3, {"h": b"package h" * 50})
# As nobody calls it; it is quoted in URLs.
PLACE = "add ons/HA"
TREE = tree(ONE, within={PLACE: ADDON})
PACKAGES = {**IMAGES, **{n: b for n, b in TREE.items() if n.endswith(".rpm")}}


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Here]:
    it = Here(tmp_path)
    it.origin.files = TREE
    yield it
    it.close()


async def index(here: Here, publication: Publication) -> Index:
    at = await here.kept.path((await here.manifests(publication))[""].packages)
    assert at is not None
    return Index.opened(at)


async def expected(here: Here, publication: Publication, href: str) -> Expected | None:
    opened = await index(here, publication)
    try:
        return opened.find(href)
    finally:
        opened.close()


async def test_all_of_a_tree_is_published_and_comes_where_that_is_told(here: Here) -> None:
    found = await here.sync()
    publication = found.publication
    assert (found.fetched, found.left_out, here.names()[1]) == (0, (), set())
    # What has a checksum is not read to learn how large it is.
    assert {p for m, p, _ in here.origin.asked if m == "HEAD"} == IMAGES.keys()
    assert not {p for m, p, _ in here.origin.asked if m == "GET"} & IMAGES.keys()
    assert (publication.packages, publication.size_bytes) == (len(PACKAGES), sum(map(len, PACKAGES.values())))
    manifest = (await here.manifests(publication))[""]
    assert manifest.digest == sha256(ONE.repomd)
    for name, body in TREE.items():
        if name in PACKAGES:
            assert await expected(here, publication, name) == (len(body), "sha256", sha256(body)), name
        else:
            assert manifest.files[name] == sha256(body), name
    here.mirrored = settings("yum", "immediate")
    again = await here.sync(publication)
    assert again.publication is publication
    assert (again.fetched, again.fetched_bytes) == (len(PACKAGES), publication.size_bytes)
    assert here.names()[1] == {sha256(body) for body in PACKAGES.values()}
    listed = await named(here.kept, "/pulp/content/muster/library/yum/r", manifest)
    assert {href: one.digest for href, one in listed.packages.items()} == {n: sha256(b) for n, b in PACKAGES.items()}


async def test_a_tree_that_has_not_changed_costs_what_lies_beside_its_entries(here: Here) -> None:
    publication = (await here.sync()).publication
    before = here.names()
    here.origin.paths()
    assert (await here.sync(publication)).publication is publication
    plain = of("/pulp/content/muster/origin/yum/r").plain
    assert set(here.origin.paths()) == plain | {f"{PLACE}/{name}" for name in plain}
    assert here.names() == before


@pytest.mark.parametrize("name", [f"{PLACE}/repodata/repomd.xml", ".treeinfo", f"{PLACE}/repodata/repomd.xml.asc"])
async def test_a_tree_is_another_one_when_any_part_of_it_is(here: Here, name: str) -> None:
    one = (await here.sync()).publication
    other = version(4, {"h": b"another"})
    changed = {f"{PLACE}/{n}": b for n, b in other.files.items()} if "repomd.xml" in name else {}
    if name == ".treeinfo":
        changed = {name: TREE[name] + b"\n", "treeinfo": TREE[name]}
    here.origin.files = {**TREE, **changed}
    if name.endswith(".asc"):
        here.origin.files = {n: b for n, b in TREE.items() if n != name}
    two = (await here.sync(one)).publication
    assert two.digest != one.digest
    assert (await here.sync(two)).publication is two


async def test_images_without_a_proof_are_read_once_and_are_what_they_were_then(here: Here) -> None:
    """Also what is compared by less (md5, sha1) has a SHA-256 of its own afterwards."""
    sums = {n: b for n, b in IMAGES.items() if n.endswith("install.img")}
    others = [n for n in IMAGES if n not in sums]
    here.origin.files = {**ONE.files, **IMAGES, ".treeinfo": treeinfo(sums, images=others, algorithm="sha1")}
    found = await here.sync()
    assert (found.fetched, found.fetched_bytes) == (len(IMAGES), sum(map(len, IMAGES.values())))
    for name, body in IMAGES.items():
        assert await expected(here, found.publication, name) == (len(body), "sha256", sha256(body))
    assert here.names()[1] == {sha256(body) for body in IMAGES.values()}
    assert found.publication.packages == len(IMAGES) + 2
    here.origin.paths()
    assert (await here.sync(found.publication)).publication is found.publication
    assert not set(here.origin.paths()) & IMAGES.keys()
    # It may have other bytes with the next publication, and the same name.
    here.origin.files = {**here.origin.files, **TWO.files, others[0]: b"another"}
    two = (await here.sync(found.publication)).publication
    assert await expected(here, two, others[0]) == (7, "sha256", sha256(b"another"))


async def test_of_what_passes_through_nothing_stays(here: Here) -> None:
    here.mirrored = settings("yum", "streamed")
    here.origin.files = {**ONE.files, **IMAGES, ".treeinfo": treeinfo({}, images=list(IMAGES))}
    found = await here.sync()
    assert here.names()[1] == set()
    assert await expected(here, found.publication, "images/boot.iso") is not None


async def test_an_image_of_another_strong_digest_is_found_again(here: Here) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.files = {**ONE.files, **IMAGES, ".treeinfo": treeinfo(IMAGES, algorithm="sha512")}
    found = await here.sync()
    assert here.names()[1] == {sha256(body) for body in (*IMAGES.values(), *ONE.packages.values())}
    name = "images/boot.iso"
    digest = hashlib.sha512(IMAGES[name]).hexdigest()
    assert await expected(here, found.publication, name) == (len(IMAGES[name]), "sha512", digest)
    assert (await here.sync(found.publication)).fetched == 0


async def test_an_image_whose_size_nobody_says_is_read(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "images/boot.iso"
    here.origin.status_of_head = {name: 405}
    found = await here.sync()
    assert (found.fetched, found.fetched_bytes) == (1, len(IMAGES[name]))
    assert await expected(here, found.publication, name) == (len(IMAGES[name]), "sha256", sha256(IMAGES[name]))


async def test_what_the_origin_does_not_have_is_left_out_and_said_and_comes_later(here: Here) -> None:
    name = "images/boot.iso"
    outside = "../../../AppStream/x86_64/os"
    said = treeinfo(IMAGES, images=["../x/boot.iso", "\x1b[2Jx"], repositories=(PLACE, outside))
    files = {n: b for n, b in TREE.items() if n != name and not n.startswith(PLACE)}
    here.origin.files = {**files, ".treeinfo": said}
    found = await here.sync()
    one = found.publication
    assert found.left_out == (
        f"{name} (the origin does not have it)", f"{PLACE} (the origin has no repository there)",
        "../x/boot.iso (not below the tree: what lies elsewhere is a repository of its own)",
        r"\x1b[2Jx (not below the tree: what lies elsewhere is a repository of its own)",
        f"{outside} (not below the tree: what lies elsewhere is a repository of its own)",
    )  # fmt: skip
    assert await expected(here, one, name) is None
    again = await here.sync(one)
    assert (again.publication, again.left_out) == (one, found.left_out)
    here.origin.files = {**files, ".treeinfo": said, name: IMAGES[name]}
    two = await here.sync(one)
    assert two.left_out == found.left_out[1:]
    assert await expected(here, two.publication, name) is not None
    here.origin.files = {**TREE, ".treeinfo": said}
    assert (await here.sync(two.publication)).left_out == found.left_out[2:]


async def test_a_tree_that_cannot_be_read_leaves_the_repository_as_it_is(here: Here) -> None:
    here.origin.files = {**ONE.files, ".treeinfo": b"[checksums]\n../a = sha256:a\n", **IMAGES}
    found = await here.sync()
    assert found.publication.packages == 2
    assert found.left_out == (
        "what the tree consists of (Reading .treeinfo failed: '../a' is no path inside the tree)",
    )  # fmt: skip
    assert ".treeinfo" in (await here.manifests(found.publication))[""].files


async def test_what_installers_ask_for_first_counts_and_packages_are_what_the_repository_says(here: Here) -> None:
    package = "Packages/a.rpm"
    here.origin.files = {
        **TREE, ".treeinfo": treeinfo({**IMAGES, package: b"another"}), "treeinfo": treeinfo({"images/boot.iso": b"older"}),
    }  # fmt: skip
    publication = (await here.sync()).publication
    for name in ("images/boot.iso", package):
        body = TREE[name]
        assert await expected(here, publication, name) == (len(body), "sha256", sha256(body))


LIES = [
    ("images/boot.iso", b"x" * len(IMAGES["images/boot.iso"]), Differs, "origin.test/x/images/boot.iso: sha256"),
    (f"{PLACE}/Packages/h.rpm", b"x", Differs, r"origin\.test/x/add ons/HA/Packages/h\.rpm"),
    (f"{PLACE}/{ADDON.primary}", b"x", Differs, f"origin.test/x/add%20ons/HA/{ADDON.primary}"),
    (f"{PLACE}/{ADDON.primary}", None, Unavailable, f"404 for https://origin.test/x/add%20ons/HA/{ADDON.primary}"),
]


@pytest.mark.parametrize(("path", "body", "kind", "why"), LIES)
async def test_what_an_origin_gives_wrongly_is_named_and_nothing_of_it_stays(
    here: Here, path: str, body: bytes | None, kind: type[MusterError], why: str
) -> None:
    here.mirrored = settings("yum", "immediate")
    here.origin.files = {n: b for n, b in {**TREE, path: body}.items() if b is not None}
    with pytest.raises(kind, match=why):
        await here.sync()
    assert here.names() == [set(), set()]
    assert here.origin.open == 0


async def test_what_a_weak_digest_tells_apart_is_refused(here: Here) -> None:
    name = "images/boot.iso"
    here.origin.files = {**TREE, ".treeinfo": treeinfo(IMAGES, algorithm="md5"), name: b"x"}
    with pytest.raises(Differs, match=rf"another https://origin\.test/x/{name}: its treeinfo says md5:"):
        await here.sync()
    assert here.names() == [set(), set()]
    assert here.origin.paths().count(name) == 2


async def test_a_tree_that_changes_meanwhile_is_fetched_again(here: Here) -> None:
    other = {**IMAGES, "images/boot.iso": b"newer"}

    def change(path: str) -> None:
        if path == "images/boot.iso":
            here.origin.files = tree(ONE, other, within={PLACE: ADDON})

    here.origin.before = change
    publication = (await here.sync()).publication
    assert await expected(here, publication, "images/boot.iso") == (5, "sha256", sha256(b"newer"))
    assert publication == (await here.sync()).publication


async def test_a_publication_of_before_gets_its_tree(here: Here) -> None:
    """As members published that did not look into it."""
    here.origin.files = {n: b for n, b in TREE.items() if n in ONE.files or n == ".treeinfo"}
    one = (await here.sync()).publication
    assert one.packages == 2
    here.origin.files = TREE
    assert (await here.sync(one)).publication.packages == len(PACKAGES)
