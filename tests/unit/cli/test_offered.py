"""What is offered for a word: names of the cluster file, and nothing when something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete

from muster.cli import muster
from muster.cli import offered as offered_module
from tests.unit.cli.test_start_up import HELP_NEVER

_LOADED = """\
import json, sys
from muster.cli import main
sys.argv = ["muster"]
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""
CLUSTER = """\
members:
- {name: proxy01.test, address: 127.0.0.11}
- {name: Proxy02.test}
- {name: "$(touch x)"}
- {name: "two words"}
- {name: 7}
- proxy03.test
balancers: [{name: lb01}, {name: lb02}]
content:
  mirror: {environments: [library, production], repositories: {rocky9: {kind: yum}, "a b": {}, 5: {}}}
  steered: {repositories: {debian12: {}}}
"""


def offered(file: Path, *words: str) -> list[str]:
    """Return what is offered for the last word."""
    *before, begun = words
    asked = ShellComplete(muster, {"default_map": {}}, "muster", "_MUSTER_COMPLETE")
    os.environ["MUSTER_CLUSTER"] = str(file)
    try:
        return [str(item.value) for item in asked.get_completions(list(before), begun)]
    finally:
        del os.environ["MUSTER_CLUSTER"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER)
    return path


@pytest.mark.parametrize(
    ("words", "names"),
    [
        # Only what can be a member's name: a shell puts it on the line as it is.
        (("drain", ""), ["proxy01.test", "Proxy02.test"]),
        (("drain", "PROXY"), ["proxy01.test", "Proxy02.test"]),
        (("maintenance", "x"), []),
        (("ca", "promote", "proxy01"), ["proxy01.test"]),
        (("certs", "issue", "proxy02.test", ""), ["proxy01.test"]),
        (("certs", "verify", "proxy01"), ["proxy01.test"]),
        (("render", "haproxy", "--balancer", "lb"), ["lb01", "lb02"]),
        (("render", "systemd", "--member", "p"), ["proxy01.test", "Proxy02.test"]),
        (("roll", "--member", "proxy01.test", "--member", ""), ["Proxy02.test"]),
        (("content", "sync", ""), ["rocky9", "debian12"]),
        (("content", "promote", "rocky9", ""), ["debian12"]),
        (("content", "promote", "--to", ""), ["library", "production"]),
        (("content", "reclaim", "--member", "p"), ["proxy01.test", "Proxy02.test"]),
    ],
)
def test_names_come_from_the_cluster_file(words: tuple[str, ...], names: list[str], file: Path) -> None:
    assert offered(file, *words) == names


def test_the_file_that_the_line_names_counts(file: Path, tmp_path: Path) -> None:
    assert offered(tmp_path / "none.yaml", "drain", "--cluster", str(file), "proxy01") == ["proxy01.test"]


def test_a_home_is_found_that_the_shell_has_not_put_there_yet(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert offered(file.parent / "none.yaml", "drain", "--cluster", "~/cluster.yaml", "proxy01") == ["proxy01.test"]


@pytest.mark.parametrize(
    "content", [b"members: [", b"\xff\xfe", b"", b"7", b"members: {a: b}", b"members: [[[", b"content: []", b"a: *b"]
)
def test_a_file_that_is_broken_completes_nothing(
    content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_bytes(content)
    for words in (("drain", ""), ("content", "sync", ""), ("content", "promote", "--to", "")):
        assert offered(file, *words) == []
    assert capfd.readouterr() == ("", "")


def test_a_file_that_no_member_would_read_is_not_read_either(tmp_path: Path) -> None:
    """Of as much as settings files may hold a shell waits a second or two already."""
    file = tmp_path / "cluster.yaml"
    for more, names in ((0, ["proxy01.test"]), (1, [])):
        text = "members: [{name: proxy01.test}]\n"
        file.write_text(text + "#" * ((1 << 20) - len(text) + more))
        assert offered(file, "drain", "") == names


def test_what_a_member_takes_over_from_another_is_not_worked_out(tmp_path: Path) -> None:
    """A handful of lines that take over from each other twice would hold up a shell, and fill its memory."""
    file = tmp_path / "cluster.yaml"
    lines = ["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, 9))]
    file.write_text("\n".join([*lines, "members: [{<<: *a8, name: proxy01.test}]", ""]))
    assert offered(file, "drain", "") == ["proxy01.test"]
    assert offered_module._read(file)["a8"] == {}


def test_a_file_that_nests_deeper_than_settings_do_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    for deep, names in ((90, ["proxy01.test"]), (110, [])):
        file.write_text(f"members: [{{name: proxy01.test}}]\nx: {'[' * deep}{']' * deep}\n")
        assert offered(file, "drain", "") == names


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "none"):
        assert offered(path, "drain", "") == []


def test_commands_are_offered_with_their_sentence_and_without_loading_one() -> None:
    asked = {**os.environ, "COMP_WORDS": "muster dr", "COMP_CWORD": "1", "_MUSTER_COMPLETE": "zsh_complete"}
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], env=asked, capture_output=True, text=True, timeout=60, check=False
    )
    kind, name, sentence = done.stdout.splitlines()
    assert (kind, name, sentence[:10]) == ("plain", "drain", "Let MEMBER")
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert loaded & set(HELP_NEVER) == set()
    assert {m for m in loaded if m.startswith("muster.cli.")} == {"muster.cli.options"}


def test_a_members_name_is_offered_without_loading_what_drains(tmp_path: Path, file: Path) -> None:
    asked = {"COMP_WORDS": "muster drain ", "COMP_CWORD": "2", "_MUSTER_COMPLETE": "bash_complete"}
    environment = {**os.environ, **asked, "MUSTER_CLUSTER": str(file)}
    done = subprocess.run(
        [sys.executable, "-c", _LOADED], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["plain,proxy01.test", "plain,Proxy02.test"]
    loaded = set(json.loads(done.stderr.splitlines()[-1]))
    assert loaded & (set(HELP_NEVER) - {"asyncio", "yaml"}) == set()


def test_every_argument_that_is_a_member_is_completed() -> None:
    context = click.Context(muster)
    found: list[tuple[str, click.Parameter]] = []

    def look(group: click.Group, at: click.Context) -> None:
        for name in group.list_commands(at):
            command = group.get_command(at, name)
            if isinstance(command, click.Group):
                look(command, at)
            elif command is not None:
                found.extend(
                    (name, p)
                    for p in command.params
                    if p.name in ("member", "members") and p.param_type_name == "argument"
                )

    look(muster, context)
    bare = [name for name, p in found if p._custom_shell_complete is None]
    # Who adds one names one that is not there yet.
    assert bare == ["add"]
