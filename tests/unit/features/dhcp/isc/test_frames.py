from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest

from muster.features.dhcp.isc.appended import WHOLE_BYTES
from muster.features.dhcp.isc.frames import Frame, Frames, written
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

SENT = (
    written("conf", b"subnet\n") + written("whole") + written("more", b"lease 1 2\nall 3\n") + written("more")
    + written("all", mark=7) + written("trouble", "gröber".encode())
)  # fmt: skip
MEANT = [
    Frame("conf", 7, b"subnet\n"),
    Frame("whole", 0),
    Frame("more", 16, b"lease 1 2\nall 3\n"),
    Frame("more", 0, b""),
    Frame("all", 7),
    Frame("trouble", 7, "gröber".encode()),
]


async def pieces(sent: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(sent), size):
        yield sent[start : start + size]


async def read(sent: bytes, size: int = 1 << 20) -> list[Frame]:
    frames, found = Frames(pieces(sent, size), "member x"), []
    while (frame := await frames.next()) is not None:
        found.append(frame)
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
async def test_frames_are_read_wherever_their_pieces_are_cut(size: int) -> None:
    assert await read(SENT, size) == MEANT


async def test_what_ends_within_a_frame_is_no_end() -> None:
    whole = {len(b"".join(written(f.word, f.content, mark=f.number) for f in MEANT[:n])) for n in range(len(MEANT) + 1)}
    for end in range(len(SENT) + 1):
        if end in whole:
            await read(SENT[:end])
            continue
        with pytest.raises(Unavailable, match="member x broke off within what it told"):
            await read(SENT[:end])


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\n", b"more -1\n", b"more 01\n", b"more 1 \n", b"more\n", b"\n", b"MORE 1\n", b"whole 1\n",
        b"more %d\n" % (WHOLE_BYTES + 1), b"conf 99999999999\n", b"trouble 5000\n", b"all 99999999999999\n",
        b"x" * 40, "more ١\n".encode(),
    ],
)  # fmt: skip
async def test_what_is_no_frame_is_taken_for_none(sent: bytes) -> None:
    with pytest.raises(Unavailable, match="member x told what is no part of dhcpd's files"):
        await read(sent)
