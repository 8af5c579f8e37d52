from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.unit.authority.moves.samples import SAMPLE


@pytest.fixture
def cadir(tmp_path: Path) -> Path:
    """Return a copy of the sample that a test may damage."""
    copy = tmp_path / "ca"
    shutil.copytree(SAMPLE, copy)
    for name in ("README.md", "expected.json"):
        (copy / name).unlink()
    return copy
