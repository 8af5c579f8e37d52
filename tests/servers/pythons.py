"""Pythons that a program of hosts is run by: those of this machine, and those of Debian's suites (scripts/pythons)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

OLDEST, NEWEST = (3, 6), (3, 14)
_UNPACKED = Path(__file__).parents[2] / ".pythons"


@dataclass(frozen=True)
class Python:
    """One interpreter.

    Attributes:
        version: major and minor.
        command: how it is started.
        root: the tree it sees as ``/``; None: this machine's.
    """

    version: tuple[int, int]
    command: tuple[str, ...]
    root: Path | None = None

    def __str__(self) -> str:
        return f"{self.version[0]}.{self.version[1]}{f' of {self.root.name}' if self.root is not None else ''}"


def found() -> list[Python]:
    """Return one of each version from the oldest that hosts may have to the newest, and those of Debian's suites."""
    own = Python((sys.version_info[0], sys.version_info[1]), (sys.executable,))
    by_version = {own.version: own}
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST[1], NEWEST[1] + 1)]
    installed = (Path.home() / ".pyenv" / "versions").glob("3.*/bin/python3")
    for path in [*(Path(p) for p in named if p), *sorted(installed)]:
        version = _version((str(path),))
        if version is not None and OLDEST <= version <= NEWEST:
            by_version.setdefault(version, Python(version, (str(path),)))
    of_suites = []
    for root in sorted(p for p in _UNPACKED.glob("*") if (p / "usr/bin/python3").exists()):
        command = ("chroot", str(root), "/usr/bin/python3")
        version = _version(command)
        if version is not None:
            of_suites.append(Python(version, command, root))
    return [*(by_version[v] for v in sorted(by_version)), *of_suites]


def _version(command: tuple[str, ...]) -> tuple[int, int] | None:
    try:
        said = subprocess.run(
            [*command, "-I", "-c", "import ssl, sys; print(*sys.version_info[:2])"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    except OSError:
        return None
    # Some that are on PATH are only names of what is not there.
    matched = re.fullmatch(r"3 ([0-9]+)\n", said.stdout) if said.returncode == 0 else None
    return (3, int(matched[1])) if matched else None
