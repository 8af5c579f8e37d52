"""The demo as a newcomer runs it, with a real BIND and without one."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers.local import muster


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short one: below a deep one there is no room for sockets, and they would stay elsewhere."""
    with tempfile.TemporaryDirectory(prefix="muster-demo-") as made:
        yield Path(made)


@pytest.mark.parametrize("kept_in", ["bind", "memory"])
def test_the_demos_check_passes_and_shows_what_it_did(
    kept_in: str, needs: Callable[[str], None], directory: Path
) -> None:
    needs("haproxy")
    if kept_in == "bind":
        needs("bind")
    said = muster("demo", "--check", "--dir", str(directory), *(["--memory"] if kept_in == "memory" else []))
    assert said.code == 0, said
    assert "The demo's check passed." in said.out
    assert "Healthy." in said.out
    assert "FAIL" not in said.out
    assert said.out.count("BIND: demo01.example.net A") == (2 if kept_in == "bind" else 0)
    assert ("DNS: provider memory, as asked." in said.out) is (kept_in == "memory")
