"""Commands as a shell reads them."""

from __future__ import annotations

import shlex
import subprocess

import pytest

from muster.derived.commands import Variable, command, needed, script, scripted
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


def test_a_secret_comes_from_the_environment_as_one_word_whatever_it_holds() -> None:
    name = Variable("A_SECRET")
    text = script([], [needed(name, "say it"), command("printf", "<%s>", name, "$A_SECRET")])
    said = subprocess.run(
        ["sh"], input=text, capture_output=True, text=True, check=True, env={"A_SECRET": "a  b $(id) * \"'"}
    )
    assert said.stdout == "<a  b $(id) * \"'><$A_SECRET>"


@pytest.mark.parametrize("environment", [{}, {"A_SECRET": ""}])
def test_a_secret_that_is_missing_ends_the_script_with_a_sentence(environment: dict[str, str]) -> None:
    text = script([], [needed(Variable("A_SECRET"), "export it (see above)"), command("echo", "on")])
    said = subprocess.run(["sh"], input=text, capture_output=True, text=True, check=False, env=environment)
    assert (said.returncode != 0, said.stdout) == (True, "")
    assert "A_SECRET: export it (see above)" in said.stderr


@pytest.mark.parametrize("bad", ["", "a", "A}", "A B", "$A", "A\n", "1A"])
def test_a_variable_has_the_name_of_one(bad: str) -> None:
    with pytest.raises(Rejected):
        command("echo", Variable(bad))


@pytest.mark.parametrize("bad", ["}", '"', "$(id)", "`id`", "a\nb", "\\"])
def test_what_is_said_of_a_missing_one_is_a_plain_sentence(bad: str) -> None:
    with pytest.raises(Rejected):
        needed(Variable("A"), bad)


def test_a_scripts_document_may_be_run_as_it_lies() -> None:
    found = scripted("a/b.sh", ["What it does."], [command("true")])
    assert (found.name, found.consumer, found.mode) == ("a/b.sh", "sh", 0o755)
