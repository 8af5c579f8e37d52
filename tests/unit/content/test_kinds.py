from __future__ import annotations

import pytest

from muster.cluster.mirror import Kind, Mirrored
from muster.content import kinds
from muster.content.kinds import File
from muster.content.manifest import PULP_MANIFEST, TAGS
from muster.content.metadata.image import Tags
from muster.content.metadata.primary import Package
from muster.content.mirror import paths
from tests.unit.content.metadata.documents import A, C, entry, repomd

DEB, YUM = "/pulp/content/r/dists/stable", "/pulp/content/r"
PLACE = "main/binary-amd64"


def release(*lines: str, algorithm: str = "SHA256", digest: str = A) -> bytes:
    listed = "".join(f" {digest} {line}\n" for line in lines)
    return f"Date: Sat, 10 Feb 2024 10:02:03 UTC\n{algorithm}:\n{listed}".encode()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{YUM}/repodata/repomd.xml", (YUM, "repodata/repomd.xml")),
        (f"{DEB}/InRelease", (DEB, "InRelease")), (f"{DEB}/Release", (DEB, "Release")),
        (f"{DEB}/updates/InRelease", (f"{DEB}/updates", "InRelease")),
        (f"{YUM}/repodata/repomd.xml.asc", None), (f"{YUM}/treeinfo", None), (f"{DEB}/Release.gpg", None),
        # No suite, and no repository below one.
        (f"{YUM}/InRelease", None), (f"{YUM}/dists/Release", None), (f"{DEB}/repodata/repomd.xml", None),
        (f"{DEB}/main/binary-amd64/Release", None), (f"{DEB}/main/source/Release", None),
        (f"/{'a' * 1023}/repodata/repomd.xml", (f"/{'a' * 1023}", "repodata/repomd.xml")),
        (f"/{'a' * 1024}/repodata/repomd.xml", None), (f"{DEB}/{'a' * 1024}/InRelease", None),
        ("/repodata/repomd.xml", None), ("", None), (f"{YUM}/xrepodata/repomd.xml", None), (f"{DEB}/xInRelease", None),
    ],
)  # fmt: skip
def test_a_repository_begins_with_its_entry(path: str, expected: tuple[str, str] | None) -> None:
    assert kinds.begun(path) == expected


def test_packages_of_a_suite_lie_beside_dists() -> None:
    assert kinds.of(DEB).home(DEB) == "/pulp/content/r"
    assert kinds.of(YUM).home(YUM) == YUM
    nested = "/pulp/content/a/dists/b/dists/stable"
    assert kinds.of(nested).home(nested) == "/pulp/content/a/dists/b"


def test_an_entry_is_known_by_what_is_in_it() -> None:
    assert kinds.of(DEB).entry(release()) == "Release"
    assert kinds.of(DEB).entry(b"-----BEGIN PGP SIGNED MESSAGE-----\n\n") == "InRelease"
    assert kinds.of(YUM).entry(repomd()) == "repodata/repomd.xml"


def test_of_yum_all_that_is_named_has_to_be_there() -> None:
    body = repomd(entry(), entry("other", href="other.xml", checksum=f'<checksum type="sha">{A[:40]}</checksum>'))
    found = kinds.of(YUM).read(body)
    assert (found.revision, found.timestamp, found.left) == (7, 1700000000.0, ())
    assert found.files == (
        File(f"repodata/{A}-primary.xml.gz", 766, "sha256", A, "primary"), File("other.xml", 766, "sha1", None),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["repodata/repomd.xml", "repodata/repomd.xml.asc", ".treeinfo"])
def test_a_repomd_says_nothing_of_itself(name: str) -> None:
    """Else it would be another version that clients are given under its name."""
    found = kinds.of(YUM).read(repomd(entry(), entry("other", href=name)))
    assert [f.lists for f in found.files] == ["primary"]


def test_of_deb_what_clients_fetch_by_themselves_has_to_be_there_if_it_is() -> None:
    wanted = [
        f"{PLACE}/Packages", f"{PLACE}/Packages.gz", f"{PLACE}/Packages.xz", f"{PLACE}/Release", "main/source/Sources.xz",
        "main/i18n/Translation-en.bz2",
    ]  # fmt: skip
    others = ["main/Contents-amd64.gz", "main/dep11/icons.tar.gz", f"{PLACE}/Packages.diff/Index", "main/i18n/Index"]
    found = kinds.of(DEB).read(release(*(f"5 {name}" for name in (*wanted, *others)), "999999999 x/Packages"))
    assert (found.revision, found.timestamp) == (-1, 1707559323.0)
    assert sorted(f.href for f in found.files) == sorted(wanted)
    assert all(f.is_optional and (f.size, f.algorithm, f.digest, f.also) == (5, "sha256", A, ()) for f in found.files)
    # The smallest is read.
    lists = [f.href for f in found.files if f.lists]
    assert lists == [f"{PLACE}/Packages.xz", f"{PLACE}/Packages.gz", f"{PLACE}/Packages"]
    assert {f.lists for f in found.files if f.lists} == {f"{PLACE}/Packages"}
    assert found.left == (
        *(Package(name, 5, "sha256", A) for name in others),
        Package("x/Packages", 999999999, "sha256", A),
    )


def test_of_deb_sources_are_told_as_packages_are() -> None:
    kind = kinds.of(DEB)
    place = "main/source"
    found = kind.read(release(*(f"5 {place}/Sources{end}" for end in ("", ".gz", ".xz", ".gpg"))))
    assert [f.lists for f in found.files] == [""] * 4
    # The smallest is read.
    listed = [f.href for f in found.files if kind.sources(f.href)]
    assert listed == [f"{place}/Sources.xz", f"{place}/Sources.gz", f"{place}/Sources"]
    assert {kind.sources(href) for href in listed} == {f"{place}/Sources"}
    body = f"Directory: pool/n\nChecksums-Sha256:\n {A} 5 n.dsc\n".encode()
    assert list(kind.packages([body], f"{place}/Sources.xz")) == [Package("pool/n/n.dsc", 5, "sha256", A)]
    assert kinds.of(YUM).sources(listed[0]) == ""


@pytest.mark.parametrize(
    ("kind", "below", "expected"),
    [
        ("yum", "repodata/repomd.xml", "repodata/repomd.xml"), ("yum", "a/b/repodata/repomd.xml", "repodata/repomd.xml"),
        ("yum", "a/repodata/repomd.xml.asc", "repodata/repomd.xml.asc"), ("yum", "a/treeinfo", "treeinfo"),
        ("yum", "repodata/a.xml", ""), ("yum", "arepodata/repomd.xml", ""), ("yum", "a.treeinfo", ""),
        ("deb", "Release", "Release"), ("deb", "main/binary-amd64/Release", ""),
    ],
)  # fmt: skip
def test_in_a_tree_a_repository_has_what_the_one_at_the_root_has(kind: Kind, below: str, expected: str) -> None:
    assert kinds.of(paths.at("library", kind, "r", "dists/s" if kind == "deb" else "")).plain_at(below) == expected


def test_a_file_is_found_by_its_other_digest() -> None:
    found = kinds.of(DEB).read(release(f"5 {PLACE}/Packages", algorithm="SHA512", digest=C))
    assert found.files[0].also == (f"{PLACE}/by-hash/SHA512/{C}",)
    assert (found.files[0].algorithm, found.files[0].digest) == ("sha512", C)


URL = "https://origin.test/x"
MIRRORED: dict[Kind, Mirrored] = {
    "yum": Mirrored(kind="yum", url=URL), "file": Mirrored(kind="file", url=URL),
    "deb": Mirrored(kind="deb", url=URL, suites=("stable", "stable/updates", "a/dists/b")),
    "container": Mirrored(kind="container", url=URL, upstream="a/b"),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["yum", "deb", "file", "container"])
@pytest.mark.parametrize("name", ["r", "dists", "file", "a.b"])
def test_of_what_is_mirrored_the_path_says_the_kind(kind: Kind, name: str) -> None:
    for part in paths.parts(MIRRORED[kind]):
        at = paths.at("library", kind, name, part)
        entries = {
            "yum": ("repodata/repomd.xml",), "deb": ("InRelease", "Release"), "file": (PULP_MANIFEST,), "container": (TAGS,),
        }[kind]  # fmt: skip
        assert kinds.of(at).entries == entries
        assert kinds.of(at).home(at) == paths.at("library", kind, name, "")
        assert [kinds.begun(f"{at}/{entry}") for entry in entries] == [(at, entry) for entry in entries]


@pytest.mark.parametrize(
    "path",
    [
        "yum/r/dists/stable/InRelease", "yum/r/sub/repodata/repomd.xml", "yum/r/PULP_MANIFEST", "file/r/sub/PULP_MANIFEST",
        "file/r/repodata/repomd.xml", "file/r/dists/stable/InRelease", "deb/r/Release", "deb/r/distsx/stable/Release",
        "deb/r/dists/stable/main/binary-amd64/Release", "deb/r/dists/stable/PULP_MANIFEST", "file/PULP_MANIFEST",
        "container/r/sub/TAGS", "yum/r/TAGS", "container/TAGS",
    ],
)  # fmt: skip
def test_what_lies_within_a_mirrored_repository_begins_none(path: str) -> None:
    assert kinds.begun(f"{paths.ROOT}library/{path}") is None


def test_in_a_mirrored_yum_repository_a_directory_may_be_called_as_that_of_suites() -> None:
    assert kinds.of(f"{paths.ROOT}library/yum/r/x/dists/y").entries == ("repodata/repomd.xml",)


@pytest.mark.parametrize(
    "path", ["/pulp/content/r", "/pulp/content/muster/library/other/r", "/pulp/content/muster/file"]
)
def test_files_are_followed_where_they_are_mirrored_and_nowhere_else(path: str) -> None:
    assert kinds.begun(f"{path}/{PULP_MANIFEST}") is None
    assert kinds.of(path).entries == ("repodata/repomd.xml",)


def test_of_files_everything_is_given_as_packages_are() -> None:
    at = paths.at("library", "file", "r", "")
    found = kinds.of(at).read(f"a/b.iso,{A},5\n{PULP_MANIFEST},{A},7\n".encode())
    assert (found.revision, found.timestamp, found.files) == (-1, 0.0, ())
    assert found.left == (Package("a/b.iso", 5, "sha256", A),)
    assert kinds.of(at).entry(b"") == PULP_MANIFEST
    assert kinds.of(at).names_alone
    assert list(kinds.of(at).packages([f"a,{A}".encode(), b",5\n"], "x")) == [Package("a", 5, "sha256", A)]


def test_of_images_manifests_are_here_and_what_they_name_is_given_as_packages_are() -> None:
    many, one = "application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"
    kind = kinds.of(paths.at("library", "container", "r", ""))
    other = "b" * 64
    found = kind.read(Tags({"latest": A}, {A: (many, 7), other: (one, 9)}).written())
    assert (found.revision, found.timestamp, found.left, kind.is_made) == (-1, 0.0, (), True)
    assert found.files == (
        File(f"manifests/sha256:{A}", 7, "sha256", A),
        File(f"manifests/sha256:{other}", 9, "sha256", other, f"manifests/sha256:{other}"),
    )
    named = f'{{"config": {{"digest": "sha256:{A}", "size": 3}}, "layers": []}}'.encode()
    assert list(kind.packages([named[:9], named[9:]], "it")) == [Package(f"blobs/sha256:{A}", 3, "sha256", A)]
