"""What processes that answer know of repositories, and how they hear of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.content.known import FILE, Followed, Known
from muster.kernel.errors import Unavailable

A, B = "a" * 64, "b" * 64
SOME = {"/pulp/content/r": Followed((A, B), True), "/pulp/content/r/deeper": Followed((), False)}


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


def test_what_is_not_there_says_nothing(tmp_path: Path) -> None:
    known = Known(SOME)
    known.read(tmp_path / FILE)
    assert known.repositories == {}


def test_a_disk_that_refuses_is_named_and_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "content").write_text("no directory")
    with pytest.raises(Unavailable, match="content"):
        Known(SOME).write(tmp_path / "content" / FILE)
    assert (tmp_path / "content").read_text() == "no directory"
