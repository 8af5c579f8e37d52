"""The manual's pages, read by what shows them: mandoc and man."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from muster.cli import muster

ROOT = Path(__file__).parents[2]


def _written(directory: Path, **environment: str) -> dict[str, str]:
    subprocess.run(
        [sys.executable, ROOT / "docs/manual.py", directory],
        env={**os.environ, **environment}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return {p.name: p.read_text("ascii") for p in directory.glob("man?/*")}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("manual")
    _written(directory, SOURCE_DATE_EPOCH="1764460800")
    return directory


def _files(directory: Path) -> list[Path]:
    return sorted(directory.glob("man?/*"))


@pytest.mark.needs("mandoc")
def test_mandoc_finds_nothing_to_say_about_any_page(directory: Path) -> None:
    said = subprocess.run(
        ["mandoc", "-T", "lint", *_files(directory)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (said.stdout, said.stderr, said.returncode) == ("", "", 0)


@pytest.mark.needs("man")
def test_man_shows_every_page_without_a_warning_and_can_list_it(directory: Path) -> None:
    for page in _files(directory):
        shown = subprocess.run(
            ["man", "--warnings", "-l", page],
            env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80", "MAN_KEEP_FORMATTING": ""},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        assert shown.stderr == ""
        assert "\nEXIT STATUS\n" in shown.stdout or page.name.endswith(".5")
    listed = subprocess.run(["lexgrog", *_files(directory)], capture_output=True, text=True, timeout=120, check=True)
    assert len(listed.stdout.splitlines()) == len(_files(directory))
    assert "muster-drain - Let MEMBER finish what it has and get nothing new;" in listed.stdout


def _walked(command: click.Command, context: click.Context) -> list[tuple[str, click.Command, click.Context]]:
    found = [(context.command_path, command, context)]
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            found += _walked(below, click.Context(below, info_name=name, parent=context))
    return found


def test_every_command_has_its_page_with_every_option(directory: Path) -> None:
    commands = _walked(muster, click.Context(muster, info_name="muster"))
    names = {f"{path.replace(' ', '-')}.1" for path, _, _ in commands}
    assert {p.name for p in _files(directory)} == {*names, "muster-autosign.1", "muster-cluster.yaml.5"}
    for path, command, _ in commands:
        text = (directory / "man1" / f"{path.replace(' ', '-')}.1").read_text().replace("\\-", "-")
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert f"\\fB{parameter.opts[0]}" in text


def test_every_example_is_a_command_that_is_there_with_options_that_it_has(directory: Path) -> None:
    commands = {
        path: (command, context)
        for path, command, context in _walked(muster, click.Context(muster, info_name="muster"))
    }
    count = 0
    for page in _files(directory):
        text = page.read_text().replace("\\-", "-").replace(" \\e\n", " ").replace("\\(aq", "'")
        for block in text.split(".nf\n")[1:]:
            words: list[Any] = shlex.split(block.split("\n.fi")[0])
            words = words[: words.index(">")] if ">" in words else words
            path = next(" ".join(words[:n]) for n in range(len(words), 0, -1) if " ".join(words[:n]) in commands)
            command, context = commands[path]
            rest = words[len(path.split()) :]
            with click.Context(command, info_name="x", parent=context.parent) as own:
                command.make_parser(own).parse_args(args=list(rest))
            count += 1
    assert count >= 10


def test_the_same_source_makes_the_same_pages(tmp_path: Path, directory: Path) -> None:
    again = _written(tmp_path, SOURCE_DATE_EPOCH="1764460800", TZ="Pacific/Kiritimati")
    assert again == {p.name: p.read_text() for p in _files(directory)}
    assert ".TH MUSTER\\-DRAIN 1 2025-11-30 " in again["muster-drain.1"]


def test_the_page_of_a_command_that_is_no_more_goes(tmp_path: Path) -> None:
    (tmp_path / "man1").mkdir()
    (tmp_path / "man1/muster-gone.1").write_text("")
    (tmp_path / "man1/others.1").write_text("")
    assert {"muster-gone.1", "others.1"} & _written(tmp_path).keys() == {"others.1"}


def test_every_section_of_the_cluster_file_is_on_its_page(directory: Path) -> None:
    page = (directory / "man5/muster-cluster.yaml.5").read_text().replace("\\-", "-")
    reference = (ROOT / "docs/reference/settings.md").read_text()
    sections = [line.removeprefix("## `").rstrip("`") for line in reference.splitlines() if line.startswith("## `")]
    assert len(sections) > 20
    assert [s for s in sections if f".SS {s}\n" not in page] == []
    # No Markdown of the reference is left in it.
    assert "`" not in page
    assert "](" not in page
