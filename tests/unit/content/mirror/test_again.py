from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.cluster.mirror import Mirrored
from muster.content.kept import Kept
from muster.content.manifest import IN_RELEASE, RELEASE, REPOMD, Manifest
from muster.content.metadata import release, repomd, treeinfo
from muster.content.metadata.malformed import Malformed
from muster.content.mirror.again import republished, with_date, with_revision
from muster.content.mirror.publications import Publication
from muster.kernel.errors import Rejected, Unavailable
from tests.servers import deb_stand_in
from tests.servers.pulp_stand_in import version
from tests.unit.content.metadata import documents
from tests.unit.content.metadata.documents import A

pytestmark = pytest.mark.anyio

NOW = 1_800_000_000.9
URL = "https://origin.test/x"
YUM = Mirrored(kind="yum", url=URL)
DEB = Mirrored(kind="deb", url=URL, suites=("stable", "s/u"))
FILE = Mirrored(kind="file", url=URL)
IMAGES = Mirrored(kind="container", url=URL, upstream="a/b")
ENTRIES = documents.entry() + documents.entry("other", href="repodata/other.xml")


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    with contextlib.closing(Kept(tmp_path / "kept", limit_bytes=1 << 20)) as made:
        yield made


async def published(kept: Kept, parts: Mapping[str, Mapping[str, bytes]], revision: int, date: float) -> Publication:
    made = {}
    for part, files in parts.items():
        named = {name: await kept.add_bytes(body) for name, body in files.items()}
        index = await kept.add_bytes(b"index of " + part.encode())
        made[part] = await kept.add_bytes(Manifest(revision, date, named, index).written())
    return Publication("r", made, URL, 5, 50, made_at=7.0)


async def manifest_of(kept: Kept, publication: Publication, part: str = "") -> Manifest:
    body = await kept.read(publication.parts[part])
    assert body is not None
    return Manifest.read(body)


REVISIONS = [
    "<revision>7</revision>", "<revision/>", "<revision />", '<revision a=">">7</revision>', "", "<revision>text</revision>",
    "<revision>&#55;</revision>", "<revision><![CDATA[7]]></revision>", "<revision>7<!-- > --></revision>",
    "<!-- <revision>1</revision> --><revision>7</revision>", "<revision\n>7</revision\n>", "<x><revision>9</revision></x>",
    "<revision>7</revision><!-- after -->", "<?revision 1?><revision>\n 7 \n</revision>",
    "<tags><content>ä</content></tags>",
]  # fmt: skip


@pytest.mark.parametrize("said", REVISIONS)
@pytest.mark.parametrize("at_end", [False, True])
def test_of_a_repomd_the_revision_is_replaced_and_nothing_else(said: str, at_end: bool) -> None:
    body = documents.repomd(ENTRIES, said, revision="") if at_end else documents.repomd(ENTRIES, revision=said)
    made = with_revision(body, 1_800_000_000)
    assert repomd.read(made) == replace(repomd.read(body), revision="1800000000")
    new = b"<revision>1800000000</revision>"
    head, tail = made.split(new)
    assert body.startswith(head)
    assert body.endswith(tail)
    old = body[len(head) : len(body) - len(tail)].decode()
    assert old == "" or (old.startswith("<revision") and old in said)
    assert with_revision(made, 7) == made.replace(new, b"<revision>7</revision>")


@pytest.mark.parametrize("head", ["<!-- <repomd> -->", "<?x y?>\n"])
def test_what_stands_before_the_root_stays(head: str) -> None:
    made = with_revision(documents.repomd(documents.entry(), head=head, revision=""), 5)
    assert repomd.read(made).revision == "5"
    assert head.encode() in made


def test_where_no_revision_can_stand_that_is_refused() -> None:
    with pytest.raises(Rejected, match="cannot be replaced"):
        with_revision(b"<repomd/>", 5)
    with pytest.raises(Malformed):
        with_revision(b"<html></html>", 5)


@given(st.text(alphabet='<>/revision !-[]?&;"=7\n', max_size=60))
def test_whatever_a_repomd_says_it_says_afterwards(said: str) -> None:
    body = documents.repomd(ENTRIES, revision=said)
    with contextlib.suppress(Malformed, Rejected):
        assert repomd.read(with_revision(body, 5)) == replace(repomd.read(body), revision="5")


LISTED = f"SHA256:\n {A} 5 main/binary-amd64/Packages\n"
DATE = "Date: Fri, 15 Jan 2027 08:00:00 GMT\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"Suite: x\nDate: Sat, 10 Feb 2024 10:02:03 UTC\n{LISTED}", f"Suite: x\n{DATE}{LISTED}"),
        (f"Suite: x\ndate:Sat, 10 Feb 2024 10:02:03 UTC\n{LISTED}", f"Suite: x\n{DATE}{LISTED}"),
        (f"Suite: x\n{LISTED}", f"{DATE}Suite: x\n{LISTED}"), (f"\n\n{LISTED}", f"\n\n{DATE}{LISTED}"),
        (f"X-Date: 1\nDescription: y\n Date: 5\n{LISTED}", f"{DATE}X-Date: 1\nDescription: y\n Date: 5\n{LISTED}"),
    ],
)  # fmt: skip
def test_of_a_release_the_date_is_replaced_and_nothing_else(text: str, expected: str) -> None:
    made = with_date(text.encode(), 1_800_000_000)
    assert made.decode() == expected
    assert release.read(made) == replace(release.read(text.encode()), date=1_800_000_000.0)


def test_a_text_that_is_signed_gets_no_other_date() -> None:
    signed = deb_stand_in.version(1, {}).files[f"{deb_stand_in.SUITE}/InRelease"]
    with pytest.raises(Rejected, match="signature would not fit"):
        with_date(signed, 5)


async def test_of_yum_the_content_is_the_same_and_the_revision_newer(kept: Kept) -> None:
    tree = f"[checksums]\nimages/a = sha256:{A}\nrepodata/repomd.xml = sha256:{A}\n[general]\n".encode()
    files = {REPOMD: documents.repomd(ENTRIES), "repodata/other.xml": b"other", ".treeinfo": tree, "treeinfo": b"[x]\n"}
    older = await published(kept, {"": files}, 7, 1.5)
    newer = await republished(YUM, older, kept, now=NOW)
    assert (newer.of, newer.digest != older.digest, newer.made_at) == (older.digest, True, 0.0)
    assert (newer.repository, newer.origin, newer.packages, newer.size_bytes) == ("r", URL, 5, 50)
    was, now = await manifest_of(kept, older), await manifest_of(kept, newer)
    assert (now.revision, now.timestamp, now.packages) == (1_800_000_000, 1.5, was.packages)
    assert {name for name in files if was.files[name] != now.files[name]} == {REPOMD, ".treeinfo"}
    assert await kept.has(*now.needed)
    assert repomd.read(await kept.read(now.digest) or b"").revision == "1800000000"
    kept_tree = await kept.read(now.files[".treeinfo"])
    assert list(treeinfo.checksums(kept_tree or b"")) == ["images/a"]
    # The same member, or another one, does it again.
    assert await republished(YUM, older, kept, now=NOW) == newer


@pytest.mark.parametrize(("revision", "above", "expected"), [(7, -1, 1_800_000_000), (2_000_000_000, -1, 2_000_000_001),
    (7, 1_900_000_000, 1_900_000_001), (-1, -1, 1_800_000_000)])  # fmt: skip
async def test_it_is_newer_than_what_it_was_and_than_what_it_has_to_be(
    kept: Kept, revision: int, above: float, expected: int
) -> None:
    older = await published(kept, {"": {REPOMD: documents.repomd(ENTRIES)}}, revision, 1.5)
    newer = await republished(YUM, older, kept, now=NOW, above=above)
    assert (await manifest_of(kept, newer)).revision == expected


async def test_of_deb_each_suite_has_a_newer_date(kept: Kept) -> None:
    text = f"Suite: x\nDate: Sat, 10 Feb 2024 10:02:03 UTC\n{LISTED}".encode()
    parts = {part: {RELEASE: text, "main/binary-amd64/Packages": b"x"} for part in ("dists/stable", "dists/s/u")}
    older = await published(kept, parts, -1, 1707559323.0)
    newer = await republished(DEB, older, kept, now=NOW)
    for part in parts:
        manifest = await manifest_of(kept, newer, part)
        assert (manifest.revision, manifest.timestamp) == (-1, 1_800_000_000.0)
        assert release.read(await kept.read(manifest.digest) or b"").date == 1_800_000_000.0
    later = await republished(DEB, newer, kept, now=0.0)
    assert (await manifest_of(kept, later, "dists/stable")).timestamp == 1_800_000_001.0


@pytest.mark.parametrize("signature", [f"{REPOMD}.asc", IN_RELEASE, "Release.gpg"])
async def test_what_is_signed_is_refused_and_nothing_is_written(kept: Kept, signature: str) -> None:
    is_yum = signature.startswith("repodata")
    entry = {REPOMD: documents.repomd(ENTRIES)} if is_yum else {RELEASE: LISTED.encode()}
    parts = (
        {"": {**entry, signature: b"s"}} if is_yum else {"dists/stable": entry, "dists/s/u": {**entry, signature: b"s"}}
    )
    older = await published(kept, parts, 7, 1.0)
    before = kept.size_bytes
    with pytest.raises(Rejected, match=rf"^r(, dists/s/u)? is signed \({signature}\): .* would not fit any more$"):
        await republished(YUM if is_yum else DEB, older, kept, now=NOW)
    assert kept.size_bytes == before


@pytest.mark.parametrize(("mirrored", "entry"), [(FILE, "PULP_MANIFEST"), (IMAGES, "TAGS")])
async def test_files_and_images_have_no_revision(kept: Kept, mirrored: Mirrored, entry: str) -> None:
    older = await published(kept, {"": {entry: b""}}, -1, 0.0)
    with pytest.raises(Rejected, match="promote the older publication instead"):
        await republished(mirrored, older, kept, now=NOW)


async def test_what_is_not_whole_on_the_disk_is_said(kept: Kept) -> None:
    files = {REPOMD: documents.repomd(ENTRIES), "repodata/other.xml": b"other"}
    older = await published(kept, {"": files}, 7, 1.0)
    manifest = await manifest_of(kept, older)
    for name in (manifest.files["repodata/other.xml"], manifest.digest, older.parts[""]):
        await kept.drop(name)
        with pytest.raises(Unavailable, match="Not all metadata of r are on this disk"):
            await republished(YUM, older, kept, now=NOW)


async def test_older_yum_content_differs_from_what_is_newer_in_its_entry_alone(kept: Kept) -> None:
    plain = version(3, {"a": b"x"}, signed=False)
    made = with_revision(plain.repomd, 9)
    assert made == plain.repomd.replace(b"<revision>3</revision>", b"<revision>9</revision>")
