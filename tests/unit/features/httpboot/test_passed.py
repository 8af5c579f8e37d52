"""What is held of a file that is passed on from another member."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from muster.features.httpboot.service import _following
from muster.netboot.answers import Limits
from muster.netboot.contract import PASSED_BYTES, BootPath, Entry
from muster.netboot.peers import Peers

pytestmark = pytest.mark.anyio


class Piece(bytes):
    """Counts how many of its kind are held when a new one comes."""

    held = 0
    seen: list[int] = []

    def __init__(self, *_: Any) -> None:
        Piece.seen.append(Piece.held)
        Piece.held += 1

    def __del__(self) -> None:
        Piece.held -= 1


async def test_of_a_file_that_is_passed_on_one_piece_is_held_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def piece(*_: Any) -> tuple[bytes, list[Any]]:
        return Piece(), []

    async def nobody() -> list[Any]:
        return []

    monkeypatch.setattr(Peers, "_piece", piece)
    peers = Peers(tmp_path, nobody, ssl.create_default_context, Limits())
    entry = Entry(BootPath("boot/initrd"), "file", 1, "0" * 64, 5 * PASSED_BYTES)
    # From the second byte on, so that no digest is asked for.
    pieces: AsyncGenerator[bytes, None] = peers.passed(entry, 1, 4 * PASSED_BYTES)
    count = 0
    async for one in _following(await anext(pieces), pieces):
        count += 1
        del one
    assert (count, Piece.seen) == (4, [0, 0, 0, 0])
