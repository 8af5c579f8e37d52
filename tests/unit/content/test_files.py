from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from muster.content import files
from muster.content.files import Opened
from muster.content.validators import Digest
from muster.edge.replies import Reply, Streamed
from muster.kernel.errors import Unavailable
from tests.unit.edge.calls import request

pytestmark = pytest.mark.anyio

BODY = bytes(range(256)) * 4096
DIGEST = Digest("sha256", "ab" * 32)
LENGTH = str(len(BODY))
Answered = tuple[int, dict[bytes, bytes], bytes]


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "file"
    made.write_bytes(BODY)
    return made


def opened(path: Path) -> Opened:
    found = Opened.of(os.open(path, os.O_RDONLY))
    assert found is not None
    return found


def is_closed(file: Opened) -> bool:
    try:
        file.fileno()
    except ValueError:
        return True
    return False


def answer(
    file: Opened, threads: ThreadPoolExecutor, method: str, digest: Digest | None, **sent: str
) -> Reply | Streamed:
    call = request(method, "/x", headers={k.replace("_", "-"): v for k, v in sent.items()})
    return files.answered(
        file, call, threads=threads, called="a file", content_type=b"text/xml", digest=digest,
        also=[(b"cache-control", b"no-cache")],
    )  # fmt: skip


async def got(path: Path, threads: ThreadPoolExecutor, method: str = "GET", **sent: str) -> Answered:
    file = opened(path)
    found = answer(file, threads, method, DIGEST, **sent)
    if isinstance(found, Reply):
        body = found.body
    else:
        async with contextlib.aclosing(found.pieces) as pieces:
            body = b"".join([p async for p in pieces])
        found.end()
        found.end()
    assert is_closed(file)
    return found.status, dict(found.headers), body


async def test_a_file_is_whole_with_its_validator_and_head_says_the_same(
    path: Path, threads: ThreadPoolExecutor
) -> None:
    status, headers, body = await got(path, threads)
    assert (status, body) == (200, BODY)
    assert {k: v for k, v in headers.items() if k != b"server"} == {
        b"content-type": b"text/xml", b"content-length": LENGTH.encode(), b"accept-ranges": b"bytes",
        b"etag": DIGEST.tag.encode(), b"cache-control": b"no-cache", b"x-content-type-options": b"nosniff",
    }  # fmt: skip
    assert await got(path, threads, "HEAD") == (status, headers, b"")


async def test_one_range_is_a_part(path: Path, threads: ThreadPoolExecutor) -> None:
    status, headers, body = await got(path, threads, range="bytes=1000-300999")
    assert (status, body) == (206, BODY[1000:301000])
    assert headers[b"content-range"] == f"bytes 1000-300999/{LENGTH}".encode()
    assert headers[b"content-length"] == b"300000"
    assert (await got(path, threads, range="bytes=0-0,2-2"))[0] == 200
    status, headers, _ = await got(path, threads, range=f"bytes={LENGTH}-")
    assert (status, headers[b"content-range"]) == (416, f"bytes */{LENGTH}".encode())


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        ({"if_none_match": DIGEST.tag}, 304),
        ({"if_none_match": f'"x", W/{DIGEST.tag}'}, 304),
        ({"if_none_match": "*"}, 304),
        ({"if_none_match": '"x"'}, 200),
        ({"if_match": DIGEST.tag}, 200),
        ({"if_match": "*"}, 200),
        ({"if_match": '"x"'}, 412),
        ({"if_match": f"W/{DIGEST.tag}"}, 412),
        ({"if_match": '"x"', "if_none_match": DIGEST.tag}, 412),
        ({"range": "bytes=0-1", "if_range": DIGEST.tag}, 206),
        ({"range": "bytes=0-1", "if_range": f"W/{DIGEST.tag}"}, 200),
        ({"range": "bytes=0-1", "if_range": '"x"'}, 200),
        ({"range": "bytes=0-1", "if_range": "Sat, 28 Nov 2026 10:00:00 GMT"}, 200),
        ({"range": "bytes=0-1", "if_none_match": DIGEST.tag}, 304),
        ({"range": "bytes=99999999-", "if_none_match": DIGEST.tag}, 304),
        ({"range": "bytes=99999999-", "if_match": '"x"'}, 412),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_conditions_are_about_the_digest(
    path: Path, threads: ThreadPoolExecutor, method: str, sent: dict[str, str], status: int
) -> None:
    found, headers, body = await got(path, threads, method, **sent)
    assert found == status
    if status == 304:
        assert (headers[b"etag"], headers[b"cache-control"]) == (DIGEST.tag.encode(), b"no-cache")
        assert (b"content-length" in headers, body) == (False, b"")


async def test_without_a_digest_there_is_no_validator(path: Path, threads: ThreadPoolExecutor) -> None:
    for sent, status in [
        ({"if_none_match": "*"}, 200), ({"if_match": '"x"'}, 200), ({"range": "bytes=0-1"}, 206),
        ({"range": "bytes=0-1", "if_range": DIGEST.tag}, 200),
    ]:  # fmt: skip
        found = answer(opened(path), threads, "GET", None, **sent)
        assert isinstance(found, Streamed)
        found.end()
        assert (found.status, b"etag" in dict(found.headers)) == (status, False)


async def test_an_empty_file_is_answered(tmp_path: Path, threads: ThreadPoolExecutor) -> None:
    (tmp_path / "empty").touch()
    status, headers, body = await got(tmp_path / "empty", threads)
    assert (status, headers[b"content-length"], body) == (200, b"0", b"")
    assert (await got(tmp_path / "empty", threads, range="bytes=0-"))[0] == 416


async def test_a_file_is_closed_when_nothing_of_it_was_read_and_when_answering_failed(
    path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(path)
    found = answer(file, threads, "GET", DIGEST)
    assert isinstance(found, Streamed)
    await found.pieces.aclose()
    found.end()
    assert is_closed(file)
    file = opened(path)

    def failing(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("muster.content.files.conditions.part", failing)
    with pytest.raises(ZeroDivisionError):
        answer(file, threads, "GET", DIGEST)
    assert is_closed(file)


async def test_a_file_that_gets_shorter_or_cannot_be_read_is_cut(
    path: Path, threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = answer(opened(path), threads, "GET", DIGEST)
    assert isinstance(found, Streamed)
    os.truncate(path, 100)
    assert await anext(found.pieces) == BODY[:100]
    with pytest.raises(Unavailable, match="a file became shorter"):
        await anext(found.pieces)
    found.end()

    def failing(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("muster.content.files.os.pread", failing)
    found = answer(opened(path), threads, "GET", DIGEST)
    assert isinstance(found, Streamed)
    with pytest.raises(Unavailable, match="reading a file failed: Input/output error"):
        await anext(found.pieces)
    found.end()


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_file_that_is_opened_for_nobody_is_closed(path: Path, is_begun: bool) -> None:
    goes_on, made = threading.Event(), [opened(path)]

    def opening() -> Opened:
        goes_on.wait(30)
        return made[0]

    with ThreadPoolExecutor(1) as threads:
        if not is_begun:
            threads.submit(goes_on.wait, 30)
        waiting = asyncio.create_task(files.opened(threads, opening))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        goes_on.set()
    # Not begun, nothing was opened.
    assert is_closed(made[0]) is is_begun
    made[0].close()


async def test_only_plain_files_are(tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert Opened.of(os.open(tmp_path, os.O_RDONLY)) is None
    assert Opened.of(os.open("/dev/null", os.O_RDONLY)) is None
    assert len(list(Path("/proc/self/fd").iterdir())) == before


async def test_other_methods_are_told_which_read() -> None:
    refused = files.unread(request("POST", "/x"))
    assert refused is not None
    assert (refused.status, dict(refused.headers)[b"allow"]) == (405, b"GET, HEAD")
    assert files.unread(request("HEAD", "/x")) is None
