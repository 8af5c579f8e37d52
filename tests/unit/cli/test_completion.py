"""Real shells, with the script that the command prints: what they offer."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from muster.cli import muster
from muster.cli.completion import script
from tests.unit.cli.calls import CLUSTER

MEMBERS = ["proxy01.test", "proxy02.test"]
_BASH = """\
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_muster_completion muster "${COMP_WORDS[COMP_CWORD]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.format(store=tmp_path / "store.db"))
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {"PATH": beside, "HOME": str(tmp_path), "TERM": "dumb", "MUSTER_CLUSTER": str(file)}


def _offered_by_bash(environment: dict[str, str], *words: str) -> list[str]:
    file = Path(environment["HOME"]) / "completion.bash"
    file.write_text(script("bash"))
    done = subprocess.run(
        ["bash", "--norc", "-c", _BASH, "bash", file, *words],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("muster", "dr"), ["drain"]),
        (("muster", "ce"), ["certs"]),
        (("muster", "drain", ""), MEMBERS),
        (("muster", "drain", "PROXY02"), ["proxy02.test"]),
        (("muster", "certs", "issue", "proxy01.test", ""), ["proxy02.test"]),
        (("muster", "roll", "--member", "proxy0"), MEMBERS),
        (("muster", "render", "ke"), ["keepalived"]),
        (("muster", "config", "init", "--generation", ""), ["installer", "foremanctl", "seed"]),
    ],
)
def test_bash_offers_commands_and_names_of_the_cluster_file(
    words: tuple[str, ...], offered: list[str], environment: dict[str, str]
) -> None:
    assert _offered_by_bash(environment, *words) == offered


def test_behind_a_mistyped_command_nothing_is_said(environment: dict[str, str]) -> None:
    # That standard error stays empty is looked at each time.
    assert _offered_by_bash(environment, "muster", "drian", "proxy") == []


@pytest.mark.needs("fish")
def test_fish_offers_the_same_with_a_sentence(environment: dict[str, str]) -> None:
    asked = "source (muster completion fish | psub); complete -C 'muster dr'; complete -C 'muster drain proxy'"
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    first, *names = done.stdout.splitlines()
    assert first == "drain\tLet MEMBER finish what it has and get nothing new; wait until its connections are gone."
    assert (names, done.stderr) == (MEMBERS, "")


@pytest.mark.needs("zsh")
@pytest.mark.parametrize(
    ("typed", "becomes"), [("muster dra", "muster drain "), ("muster drain proxy02", "muster drain proxy02.test ")]
)
def test_zsh_completes_what_is_typed(typed: str, becomes: str, environment: dict[str, str]) -> None:
    # As a package puts it: by its name in a directory of $fpath.
    (Path(environment["HOME"]) / "_muster").write_text(script("zsh"))
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("zsh", ["zsh", "-f", "-i"], environment | {"PS1": "%# "})  # noqa: S606
    try:
        os.write(terminal, b"fpath=($HOME $fpath); autoload -Uz compinit; compinit -u -D; print re''ady\n")
        _heard(terminal, "ready\r\n")
        os.write(terminal, f"{typed}\t".encode())
        assert becomes in _heard(terminal, becomes)
    finally:
        os.kill(child, 9)
        os.close(terminal)
        os.waitpid(child, 0)


def _heard(terminal: int, awaited: str) -> str:
    heard, until = "", time.monotonic() + 30
    while awaited not in heard and time.monotonic() < until:
        if select.select([terminal], [], [], 0.2)[0]:
            heard += os.read(terminal, 4096).decode("utf-8", "replace")
    return heard


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_command_prints_the_script_and_nothing_else(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where a package is made there may be no shell to ask for its version.
    monkeypatch.setenv("PATH", "/nonexistent")
    done = CliRunner().invoke(muster, ["completion", shell])
    assert (done.exit_code, done.stdout, done.stderr) == (0, script(shell), "")
    assert f"_MUSTER_COMPLETE={shell}_complete" in done.stdout
