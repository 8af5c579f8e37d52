from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from muster.content import backend
from muster.content.backend import Backend, BadGateway, GatewayTimeout, Patience
from muster.edge.request import ClientGone
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def asking(
    talk: Talk, *, first_byte_s: float = 5.0, stall_s: float = 5.0, path: Path | None = None
) -> AsyncIterator[Backend]:
    async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await talk(reader, writer)
        writer.close()

    if path is not None:
        server = await asyncio.start_unix_server(served, path)
        url = f"unix:{path}"
    else:
        server = await asyncio.start_server(served, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with backend.opened("the backend", url, Patience(2.0, first_byte_s, stall_s)) as it:
            yield it
    finally:
        server.close()


async def whole(it: Backend, path: str = "/x") -> bytes:
    answer = await it.ask("GET", path, [])
    return b"".join([piece async for piece in answer.pieces])


async def test_a_path_and_headers_go_as_they_are() -> None:
    heard = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(OK)

    async with asking(talk) as it:
        answer = await it.ask("GET", "/a%2Bb+c~^/%C3%A4?x=%20", [("Accept", "a/b"), ("X_Under", "1")])
        assert (answer.status, [p async for p in answer.pieces]) == (200, [b"ok"])
    lines = heard[0].split(b"\r\n")
    assert lines[0] == b"GET /a%2Bb+c~^/%C3%A4?x=%20 HTTP/1.1"
    assert {b"Accept: a/b", b"X_Under: 1"} <= set(lines)
    assert not [x for x in lines if x.lower().startswith((b"user-agent", b"accept-encoding", b"content-type"))]


async def test_a_socket_of_the_host_is_a_backend_too(tmp_path: Path) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with asking(talk, path=tmp_path / "s") as it:
        assert await whole(it) == b"ok"


async def test_who_hangs_up_without_an_answer_is_asked_once_more() -> None:
    calls = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readuntil(b"\r\n\r\n")
        calls += 1
        if calls > 1:
            writer.write(OK)

    async with asking(talk) as it:
        assert await whole(it) == b"ok"
    assert calls == 2


async def test_what_changes_something_is_asked_once() -> None:
    calls = 0

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readuntil(b"\r\n\r\n")
        calls += 1

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with asking(talk) as it:
        for more in (None, body()):
            with pytest.raises(Unavailable, match="the backend hung up before it answered"):
                await it.ask("POST", "/x", [], more)
    assert calls == 2


async def test_a_client_that_ends_within_its_body_is_not_the_backends_fault() -> None:
    arrived = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"begun")
        arrived.set()
        await reader.read()

    async def body() -> AsyncIterator[bytes]:
        yield b"begun"
        await arrived.wait()
        raise ClientGone("the client closed the connection")

    async with asking(talk) as it:
        with pytest.raises(ClientGone):
            await it.ask("POST", "/x", [], body(), 100)


async def test_nobody_there_is_a_sentence() -> None:
    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None: ...

    async with asking(talk) as it:
        pass
    async with backend.opened("the backend", it.url, Patience(1, 1, 1)) as it:
        with pytest.raises(Unavailable, match="the backend cannot be reached"):
            await it.ask("GET", "/x", [])


async def test_silence_has_an_end_before_and_within_an_answer() -> None:
    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with asking(mute, first_byte_s=0.2) as it:
        with pytest.raises(GatewayTimeout, match="did not begin to answer"):
            await it.ask("GET", "/x", [])

    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-1])
        await reader.read()

    async with asking(half, stall_s=0.2) as it:
        with pytest.raises(Unavailable, match="went silent"):
            await whole(it)


async def test_what_is_cut_or_no_http_is_no_answer() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK[:-1])

    async with asking(cut) as it:
        with pytest.raises(Unavailable, match="broke off its answer"):
            await whole(it)

    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-x\r\n\r\n")

    async with asking(other) as it:
        with pytest.raises(BadGateway, match=r"the backend gave no answer: what came is no HTTP\Z"):
            await it.ask("GET", "/x", [])
