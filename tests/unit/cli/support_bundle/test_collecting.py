"""Pieces are bounded in time and size, and what breaks is named."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from muster.cli.support_bundle import collecting
from muster.cli.support_bundle.collecting import collected
from muster.cli.support_bundle.pieces import Piece, Wanted
from muster.kernel.errors import Unavailable


async def _parts(monkeypatch: pytest.MonkeyPatch, *pieces: Piece) -> dict[str, collecting.Part]:
    monkeypatch.setattr(collecting, "pieces", lambda *_: list(pieces))
    wanted = Wanted(Path("/nonexistent/cluster.yaml"), Path("/nonexistent/pki"), Path("/nonexistent/run"))
    return {p.name: p for p in await collected(wanted, anonymous=False)}


async def _forever() -> str:
    await asyncio.sleep(3600)
    return ""


async def _unavailable() -> str:
    raise Unavailable("The store said token=planted")


async def _refused() -> str:
    raise PermissionError(13, "Permission denied", "/run/muster/runtime.sock")


async def _broken() -> str:
    raise KeyError("x")


async def test_what_hangs_fails_or_breaks_holds_up_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    async def good() -> Any:
        return {"a": 1}

    found = await _parts(
        monkeypatch,
        Piece("a", _forever, within_s=0.05),
        Piece("b", _unavailable),
        Piece("c", _broken),
        Piece("e", _refused),
        Piece("d.json", good),
    )
    assert found["a"].failed == "it was not there within 0.05 s"
    assert found["b"].failed == "The store said token=***"
    assert found["e"].failed == "/run/muster/runtime.sock cannot be used: Permission denied"
    assert found["c"].failed == "KeyError: 'x'"
    assert [found[n].content for n in ("a", "b", "c", "d.json")] == [None, None, None, b'{\n  "a": 1\n}\n']
    contents = {row["file"]: row["failed"] for row in json.loads(found["contents.json"].content or b"")}
    assert contents["b"] == "The store said token=***"
    assert "cluster.yaml" in contents


async def test_of_what_is_too_large_whole_lines_stay_from_its_better_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lines() -> str:
        return "".join(f"line {n}\n" for n in range(100))

    found = await _parts(
        monkeypatch, Piece("head", lines, limit_bytes=24), Piece("end", lines, limit_bytes=24, keeps_end=True)
    )
    assert found["head"].content == b"line 0\nline 1\nline 2\n[769 bytes are left out here]\n"
    assert found["end"].content == b"[766 bytes are left out here]\nline 97\nline 98\nline 99\n"
    assert (found["head"].cut_bytes, found["end"].cut_bytes) == (769, 766)
