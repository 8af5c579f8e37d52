"""Programs that only write down how they were called: a script of commands is run, and nothing is done."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_STUB = """\
#!/bin/sh
{{ printf '%s\\0' {name} "$@"; printf '\\n'; }} >>{log}
[ ! -e {answer} ] || cat {answer}
exit {status}
"""


@dataclass(frozen=True)
class Ran:
    """How a script went.

    Attributes:
        calls: the words of each call, in their order.
    """

    calls: list[list[str]]
    status: int
    stderr: str

    def of(self, program: str) -> list[list[str]]:
        """Return the calls of one program, without its name."""
        return [words for name, *words in self.calls if name == program]


def ran(
    script: str,
    directory: Path,
    programs: Iterable[str],
    *,
    answers: Mapping[str, str] | None = None,
    failing: Iterable[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Ran:
    """Have ``sh`` run the script; what each program would have answered stands in ``answers``."""
    stubs, log, failing = directory / "stubs", directory / "calls", set(failing)
    stubs.mkdir(exist_ok=True)
    log.write_text("")
    for name in programs:
        answer = directory / f"answer-{name}"
        if answers and name in answers:
            answer.write_text(answers[name])
        stub = stubs / name
        stub.write_text(_STUB.format(name=name, log=log, answer=answer, status=int(name in failing)))
        stub.chmod(0o755)
    around = {"PATH": f"{stubs}{os.pathsep}/usr/bin{os.pathsep}/bin", **(environment or {})}
    said = subprocess.run(["sh"], input=script, capture_output=True, text=True, check=False, env=around)
    calls = [line.split("\0")[:-1] for line in log.read_text().splitlines()]
    return Ran(calls, said.returncode, said.stderr)


def options(words: Iterable[str]) -> dict[str, list[str]]:
    """Return what each ``--option`` of a call was given, in the order of the values; a bare one has none."""
    found: dict[str, list[str]] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            found.setdefault(name, []).extend([value] if has_value else [])
        else:
            found.setdefault(name, []).append(word)
    return found
