"""What processes that answer know of repositories, and how they hear of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.content.known import FILE, Followed, Known
from muster.kernel.errors import Unavailable

A, B = "a" * 64, "b" * 64
LATELY = "/pulp/content/lately"
SOME = {
    "/pulp/content/r": Followed((A, B), True), "/pulp/content/r/deeper": Followed((), False), LATELY: Followed((B,), None),
}  # fmt: skip
ROOT = "/pulp/content/r"
STABLE, TESTING, YUM = f"{ROOT}/dists/stable", f"{ROOT}/dists/testing", "/pulp/content/y"


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/pulp/content/r/repodata/x", ("/pulp/content/r", "repodata/x")),
        ("/pulp/content/r/deeper/x", ("/pulp/content/r/deeper", "x")),
        ("/pulp/content/r/deeperx", ("/pulp/content/r", "deeperx")),
        ("/pulp/content/r/", ("/pulp/content/r", "")),
        ("/pulp/content/r", None),
        ("/pulp/content/rx/y", None),
        ("/pulp/content/", None),
        ("", None),
    ],
)
def test_a_path_lies_in_the_nearest_repository_above_it(path: str, found: tuple[str, str] | None) -> None:
    assert Known(SOME).of(path) == found


def test_a_path_may_lie_in_several_the_innermost_first() -> None:
    assert [*Known(SOME).around("/pulp/content/r/deeper/x.rpm")] == [
        ("/pulp/content/r/deeper", "x.rpm"), ("/pulp/content/r", "deeper/x.rpm"),
    ]  # fmt: skip


def test_what_was_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "content" / FILE
    # Nothing has come to this disk yet.
    Known(SOME).write(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    other = Known()
    other.read(file)
    assert other.repositories == SOME
    assert isinstance(other.repositories["/pulp/content/r"], Followed)


def test_of_what_a_member_of_before_has_left_nothing_is_open(tmp_path: Path) -> None:
    Known(SOME).write(tmp_path / FILE)
    other = Known()
    other.read(tmp_path / FILE, is_of_now=False)
    assert {path: found.is_open for path, found in other.repositories.items()} == {
        "/pulp/content/r": None, "/pulp/content/r/deeper": False, LATELY: None,
    }  # fmt: skip
    assert other.repositories[LATELY].manifests == (B,)


def test_what_is_not_there_says_nothing(tmp_path: Path) -> None:
    known = Known(SOME)
    known.read(tmp_path / FILE)
    assert known.repositories == {}


@pytest.mark.parametrize(
    "written",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b'{"/r": 1}',
        b'{"/r": [[], true, "more"]}',
        b'{"/r": [5, 1]}',
        b'{"/r": [["x"], true]}',
        b'{"/r": [[7], true]}',
        b'{"/r": {}}',
    ],
)
def test_what_is_broken_or_of_another_version_says_nothing(tmp_path: Path, written: bytes) -> None:
    (tmp_path / FILE).write_bytes(written)
    known = Known(SOME)
    known.read(tmp_path / FILE, or_stay=True)
    assert known.repositories == SOME
    known.read(tmp_path / FILE)
    assert known.repositories == {}


def test_what_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    known = Known(SOME)
    known.read(tmp_path / FILE)
    assert known.repositories == {}


def test_a_disk_that_refuses_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "content").write_text("no directory")
    with pytest.raises(Unavailable, match="content"):
        Known(SOME).write(tmp_path / "content" / FILE)
    assert (tmp_path / "content").read_text() == "no directory"


def known(*paths: str) -> Known:
    return Known(dict.fromkeys(paths, Followed(("a" * 64,), is_open=True)))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (f"{ROOT}/pool/a/x.deb", ((STABLE, TESTING), "pool/a/x.deb")),
        (f"{ROOT}/dists/other/InRelease", ((STABLE, TESTING), "dists/other/InRelease")),
        (f"{YUM}/x.rpm", ((), "")), ("/pulp/content/x", ((), "")), ("/", ((), "")), ("", ((), "")),
    ],
)  # fmt: skip
def test_suites_of_one_archive_share_what_lies_beside_them(path: str, expected: tuple[tuple[str, ...], str]) -> None:
    assert known(TESTING, YUM, STABLE).archive(path) == expected


def test_archives_change_with_what_is_followed() -> None:
    it = known(YUM)
    assert it.archive(f"{ROOT}/x") == ((), "")
    it.repositories = known(STABLE).repositories
    assert it.archive(f"{ROOT}/x") == ((STABLE,), "x")
    it.repositories = {}
    assert it.archive(f"{ROOT}/x") == ((), "")


def test_a_suite_is_found_by_what_lies_in_it_and_not_by_its_packages() -> None:
    it = known(STABLE, YUM)
    assert it.of(f"{STABLE}/main/binary-amd64/Packages") == (STABLE, "main/binary-amd64/Packages")
    assert it.of(f"{YUM}/a/x.rpm") == (YUM, "a/x.rpm")
    assert it.of(f"{ROOT}/pool/x.deb") is None


def test_archives_are_known_of_what_was_written(tmp_path: Path) -> None:
    other = Known()
    known(STABLE, YUM).write(tmp_path / FILE)
    other.read(tmp_path / FILE)
    assert other.archive(f"{ROOT}/x") == ((STABLE,), "x")
