from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from muster.content.joining import Joining
from muster.content.pub import Pub
from muster.edge.replies import Reply, Streamed
from muster.kernel.errors import Unavailable
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio
NOTHING = Joining({}, ())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "pub"
    (made / "sub").mkdir(parents=True)
    (made / "file.rpm").write_bytes(b"0123456789")
    (made / "sub" / "of").write_bytes(b"sub")
    return made


async def got(root: Path, path: str, **headers: str) -> tuple[int, bytes]:
    with contextlib.closing(Pub(root, NOTHING)) as pub:
        return await got_of(pub, path, **headers)


async def got_of(pub: Pub, path: str, **headers: str) -> tuple[int, bytes]:
    answer = await pub.answer(path, request("GET", f"/pub{path}", headers=headers))
    if isinstance(answer, Reply):
        return answer.status, answer.body
    try:
        return answer.status, b"".join([p async for p in answer.pieces])
    finally:
        answer.end()


async def test_plain_files_below_it_are_served(root: Path) -> None:
    (root / "a b").write_bytes(b"1")
    (root / os.fsdecode(b"\xe4")).write_bytes(b"2")
    (root / "ä").write_bytes(b"3")
    (root / ".treeinfo").write_bytes(b"4")
    (root / "link").symlink_to("sub")
    (root / "whole").symlink_to(root / "sub" / "of")
    paths = ("/file.rpm", "//file.rpm", "/sub/of", "/link/of", "/whole", "/a%20b", "/%e4", "/%c3%a4", "/.treeinfo")
    assert [await got(root, path) for path in paths] == [
        (200, body) for body in (b"0123456789", b"0123456789", b"sub", b"sub", b"sub", b"1", b"2", b"3", b"4")
    ]


async def test_nothing_else_is(root: Path) -> None:
    outside = root.parent / "outside"
    outside.write_text("secret")
    (root / "out").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "circle").symlink_to("circle")
    (root / "null").symlink_to("/dev/null")
    os.mkfifo(root / "pipe")
    (root / ".htpasswd").write_text("secret")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
        paths = (
            "", "/", "/sub", "/sub/", "/out", "/up/outside", "/circle", "/circle/x", "/null", "/pipe", "/socket",
            "/.htpasswd", "/file.rpm/", "/file.rpm/x", f"/{outside}", "/" + "n" * 300, "/" + "n/" * 1500, "/nothing",
        )  # fmt: skip
        assert {path: (await got(root, path))[0] for path in paths} == dict.fromkeys(paths, 404)


async def test_a_range_said_twice_is_none(root: Path) -> None:
    made = request("GET", "/pub/file.rpm")
    made.sent_headers.extend([(b"range", b"bytes=0-1"), (b"range", b"bytes=2-3")])
    made.headers[b"range"] = b"bytes=2-3"
    answer = await Pub(root, NOTHING).answer("/file.rpm", made)
    assert isinstance(answer, Streamed)
    answer.end()
    assert answer.status == 200


async def test_a_file_that_gets_shorter_is_cut_and_one_that_is_replaced_is_sent_as_it_was(root: Path) -> None:
    for is_replaced in (True, False):
        answer = await Pub(root, NOTHING).answer("/file.rpm", request("GET", "/pub/file.rpm"))
        assert isinstance(answer, Streamed)
        if is_replaced:
            (root / "new").write_bytes(b"new")
            (root / "new").replace(root / "file.rpm")
            assert [p async for p in answer.pieces] == [b"0123456789"]
            (root / "file.rpm").write_bytes(b"0123456789")
        else:
            os.truncate(root / "file.rpm", 4)
            assert await anext(answer.pieces) == b"0123"
            with pytest.raises(Unavailable, match="became shorter"):
                await anext(answer.pieces)
        answer.end()


async def test_a_file_system_that_hangs_holds_up_nobody_else(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    monkeypatch.setattr("muster.content.pub.os.pread", lambda *_: goes_on.wait(30) and b"0123456789")
    with contextlib.closing(Pub(root, NOTHING)) as pub:
        waiting = [asyncio.create_task(got_of(pub, "/file.rpm")) for _ in range(40)]
        try:
            async with asyncio.timeout(10):
                await asyncio.sleep(0.1)
                assert await asyncio.to_thread(lambda: "others") == "others"
        finally:
            goes_on.set()
        assert set(await asyncio.gather(*waiting)) == {(200, b"0123456789")}
