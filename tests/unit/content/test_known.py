from __future__ import annotations

from pathlib import Path

import pytest

from muster.content.known import Followed, Known

ROOT = "/pulp/content/r"
STABLE, TESTING, YUM = f"{ROOT}/dists/stable", f"{ROOT}/dists/testing", "/pulp/content/y"


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


def test_a_repository_is_found_by_what_lies_in_it() -> None:
    it = known(STABLE, YUM)
    assert it.of(f"{STABLE}/main/binary-amd64/Packages") == (STABLE, "main/binary-amd64/Packages")
    assert it.of(f"{YUM}/a/x.rpm") == (YUM, "a/x.rpm")
    assert it.of(f"{ROOT}/pool/x.deb") is None


def test_what_is_written_is_read(tmp_path: Path) -> None:
    it, other = known(STABLE, YUM), Known()
    other.read(tmp_path / "known")
    assert other.repositories == {}
    it.write(tmp_path / "known")
    other.read(tmp_path / "known")
    assert other.repositories == it.repositories
    assert other.archive(f"{ROOT}/x") == ((STABLE,), "x")
