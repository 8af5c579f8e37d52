"""Commands as a shell reads them."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from muster.derived.commands import command, script
from muster.kernel.errors import Rejected

HARD = ["printf", "%s\\n", "a b", "$(id)", "it's", "`id`", '"', "*", "#x", "a\\", ""]


def test_a_shell_reads_the_words_that_were_meant() -> None:
    assert shlex.split(command(*HARD)) == HARD
    said = subprocess.run(["sh", "-c", command(*HARD)], capture_output=True, text=True, check=True).stdout
    assert said.splitlines() == HARD[2:]


def test_a_long_command_goes_on_at_its_options_and_stays_one_command() -> None:
    words = [
        "foreman-installer",
        "--scenario",
        "foreman-proxy-content",
        *(f"--option-{n}" for n in range(9)),
        "--last",
        "a b",
    ]
    text = command(*words)
    assert all(len(line) <= 60 for line in text.splitlines())
    read = f"set -- {text}\nprintf '%s\\n' \"$@\""
    assert subprocess.run(["sh", "-c", read], capture_output=True, text=True, check=True).stdout.splitlines() == words
    assert text.splitlines()[1] == "  --scenario foreman-proxy-content \\"


@pytest.mark.parametrize("bad", ["a\nb", "\0", "\x1b[2J", "\r"])
def test_nothing_ends_a_line_early(bad: str) -> None:
    with pytest.raises(Rejected):
        command("echo", bad)


def test_a_script_ends_at_the_first_command_that_fails() -> None:
    text = script(["What it does."], [command("false"), command("echo", "on")])
    said = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (1, "")
