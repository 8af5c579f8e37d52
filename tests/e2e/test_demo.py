"""The demo as a newcomer runs it, with a real BIND and without one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.servers.local import muster


@pytest.mark.parametrize("kept_in", ["bind", "memory"])
def test_the_demos_check_passes_and_shows_what_it_did(
    kept_in: str, needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("haproxy")
    if kept_in == "bind":
        needs("bind")
    said = muster("demo", "--check", "--dir", str(tmp_path), *(["--memory"] if kept_in == "memory" else []))
    assert said.code == 0, said
    assert "The demo's check passed." in said.out
    assert "Healthy." in said.out
    assert "FAIL" not in said.out
    assert said.out.count("BIND: demo01.example.net A") == (2 if kept_in == "bind" else 0)
    assert ("DNS: provider memory, as asked." in said.out) is (kept_in == "memory")
