"""A code that is found is a code that is documented, and the other way round."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SOURCE = ROOT / "src" / "muster"
_GIVEN = re.compile(r'"([A-Z]+(?:-[A-Z]+)+)"')
_TOLD = re.compile(r"`([A-Z]+(?:-[A-Z]+)+)`")


def given() -> set[str]:
    files = [*SOURCE.rglob("checks.py"), *(SOURCE / "doctor").glob("*.py"), *(SOURCE / "pki").glob("*.py")]
    return {code for f in files for code in _GIVEN.findall(f.read_text("utf-8"))}


def told(*files: str) -> set[str]:
    return {code for f in files for code in _TOLD.findall((ROOT / f).read_text("utf-8"))}


def test_there_are_codes() -> None:
    assert len(given()) > 50


@pytest.mark.parametrize(
    "files", [("src/muster/doctor/README.md", "src/muster/pki/README.md"), ("docs/admin/troubleshooting.md",)]
)
def test_every_code_is_documented_and_no_other(files: tuple[str, ...]) -> None:
    assert told(*files) == given()
