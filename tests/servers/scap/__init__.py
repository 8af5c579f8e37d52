"""What hosts are measured by in tests, and what real ``oscap`` reports of this host. The two contents are the tests' own."""

from __future__ import annotations

import bz2
import shutil
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

_HERE = Path(__file__).parent
PROFILE = "xccdf_net.example_profile_all"


@cache
def made() -> tuple[bytes, bytes]:
    """Return a content, and a report (ARF) of this host measured by it; ``oscap`` needs a second for both."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        for file in ("xccdf.xml", "oval.xml"):
            shutil.copy(_HERE / file, directory)
        _ran("ds", "sds-compose", "xccdf.xml", "content.xml", within=directory)
        # 2: it measured, and a rule failed.
        _ran(
            "xccdf",
            "eval",
            "--profile",
            PROFILE,
            "--results-arf",
            "arf.xml",
            "content.xml",
            within=directory,
            expected=2,
        )
        return (directory / "content.xml").read_bytes(), (directory / "arf.xml").read_bytes()


def report(mark: str = "") -> bytes:
    """Return a report as hosts send it; reports of different marks differ."""
    xml = made()[1]
    return bz2.compress(xml + f"<!-- {mark} -->".encode() if mark else xml)


def _ran(*arguments: str, within: Path, expected: int = 0) -> None:
    done = subprocess.run(["oscap", *arguments], cwd=within, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == expected, done.stderr
