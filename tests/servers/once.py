"""What several test files need and is dear to make: made once for a run, by whichever of its workers comes first."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def directory(factory: pytest.TempPathFactory) -> Path:
    """Return a directory of this run, the same to all its workers."""
    own = factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


def made(place: Path, make: Callable[[Path], None]) -> Path:
    """Return what lies at a place; where nothing does, have it made there. Others wait meanwhile."""
    with place.with_name(f"{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.exists():
            part = place.with_name(f"{place.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            make(part)
            part.rename(place)
    return place
