"""Clients of large files count what they get, and notice what they do not."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator

import pytest
from bench.downloads import downloaded, slow_readers
from bench.load import Target

from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

SIZE = 3_000_000
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n"


@contextlib.asynccontextmanager
async def serving(head: bytes, size: int) -> AsyncIterator[tuple[Target, list[asyncio.StreamWriter]]]:
    """Answer everybody with so much, and hang up; and list those whose answer is under way."""
    under_way: list[asyncio.StreamWriter] = []

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head)
            for _ in range(size // 1000):
                writer.write(b"x" * 1000)
                await writer.drain()
        under_way.remove(writer)
        writer.close()

    async with await asyncio.start_server(one, "127.0.0.1", 0) as server:
        yield Target("127.0.0.1", server.sockets[0].getsockname()[1], "localhost", None, path="/large"), under_way


async def test_everybody_gets_the_whole_file() -> None:
    async with serving(_HEAD, SIZE) as (target, _):
        await downloaded(target, SIZE, 3)


async def test_a_file_that_ends_early_is_a_failure() -> None:
    async with serving(_HEAD, SIZE - 1000) as (target, _):
        with pytest.raises(Unavailable, match=re.escape("/large gave [2999000] bytes instead of 3000000 each")):
            await downloaded(target, SIZE, 1)


async def test_another_status_is_a_failure() -> None:
    async with serving(b"HTTP/1.1 404 Gone\r\n\r\n", 0) as (target, _):
        with pytest.raises(Unavailable, match=r"answered b'HTTP/1\.1 404 Gone"):
            await downloaded(target, SIZE, 1)
        with pytest.raises(Unavailable, match=r"answered a slow reader b'HTTP/1\.1 404 Gone"):
            async with slow_readers(target, 1, pause_s=0.01):
                await asyncio.sleep(30)


async def test_slow_readers_are_all_under_way_until_the_block_ends() -> None:
    async with serving(_HEAD, 1000 * SIZE) as (target, under_way):
        async with slow_readers(target, 5, pause_s=60):
            assert len(under_way) == 5
        async with asyncio.timeout(20):
            while under_way:
                await asyncio.sleep(0.01)
