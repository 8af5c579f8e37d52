from __future__ import annotations

import pytest

from muster.content import kinds
from muster.content.kinds import File
from muster.content.metadata.primary import Package
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


def test_a_file_is_found_by_its_other_digest() -> None:
    found = kinds.of(DEB).read(release(f"5 {PLACE}/Packages", algorithm="SHA512", digest=C))
    assert found.files[0].also == (f"{PLACE}/by-hash/SHA512/{C}",)
    assert (found.files[0].algorithm, found.files[0].digest) == ("sha512", C)
