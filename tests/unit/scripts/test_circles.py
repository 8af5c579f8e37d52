"""A circle of files is found wherever its imports stand, and told with the lines that make it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from scripts.circles import main

Tree = Callable[..., None]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Return what writes a package ``house``, by file."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)

    def write(**files: str) -> None:
        for name, text in {"__init__": "", **files}.items():
            file = tmp_path / "house" / f"{name.replace('__in__', '/')}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            (file.parent / "__init__.py").touch()

    return write


def test_files_that_only_import_what_is_below_them_are_no_circle(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(
        above="from house import below\nfrom house.deep import floor\n",
        below="",
        deep__in__floor="import house.below\n",
    )
    assert main("house") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "back",
    [
        "from house import above",
        "def late():\n    from house.above import top",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.above import top",
    ],
    ids=["at the top", "inside a function", "for types only"],
)
def test_two_files_that_import_each_other_are_a_circle(
    tree: Tree, capsys: pytest.CaptureFixture[str], back: str
) -> None:
    tree(above="from house.below import floor\n", below=f"{back}\n")
    assert main("house") == 1
    said = capsys.readouterr().out.splitlines()
    line = back.count("\n") + 1
    assert said[0] == "house.above -> house.below -> house.above"
    assert said[1] == "  house/above.py:1: from house.below import floor"
    assert said[2] == f"  house/below.py:{line}: {back.splitlines()[-1].strip()}"
    assert said[3].startswith("Circles of files: 1.")


def test_a_folder_and_a_file_in_it_are_a_circle_too(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree(room__in____init__="from house.room import door\n", room__in__door="from house.room import floor\n")
    assert main("house") == 1
    said = capsys.readouterr().out
    assert "house.room -> house.room.door -> house.room\n" in said
    assert "  house/room/__init__.py:1: from house.room import door\n" in said


def test_circles_that_share_a_file_are_told_one_by_one(tree: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    tree(a="import house.b\nimport house.c\n", b="import house.a\n", c="import house.d\n", d="import house.a\n")
    assert main("house") == 1
    said = capsys.readouterr().out
    assert "house.a -> house.b -> house.a\n" in said
    assert "house.a -> house.c -> house.d -> house.a\n" in said
    assert "Circles of files: 2." in said


def test_one_import_that_closes_many_circles_is_told_once_by_the_shortest(
    tree: Tree, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(a="import house.b\nimport house.c\n", b="import house.c\n", c="def late():\n    import house.a\n")
    assert main("house") == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "house.a -> house.c -> house.a"
    assert said[-1].startswith("Circles of files: 1.")
