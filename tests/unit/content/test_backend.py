from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
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


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that what was sent may be lost."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


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


async def test_a_program_may_lie_below_a_path() -> None:
    heard = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n"))
        writer.write(OK)

    async with asking(talk) as root, backend.opened("it", f"{root.url}/container_gateway", Patience(2, 5, 5)) as it:
        assert await whole(it, "/v2/") == b"ok"
    assert heard == [b"GET /container_gateway/v2/ HTTP/1.1\r\n"]


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


@pytest.mark.parametrize(("method", "times"), [("GET", 4), ("HEAD", 4), ("PUT", 2), ("DELETE", 2), ("PATCH", 1)])
async def test_how_often_a_backend_that_hangs_up_is_asked(method: str, times: int) -> None:
    calls = 0

    async def talk(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readuntil(b"\r\n\r\n")
        calls += 1

    async with asking(talk) as it:
        with pytest.raises(Unavailable, match="hung up"):
            await it.ask(method, "/x", [])
    assert calls == times


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
        with pytest.raises(Unavailable, match="the backend cannot be reached") as raised:
            await it.ask("GET", "/x", [])
    # Where it is stands beside the sentence, which clients are told.
    assert raised.value.place == it.url
    assert it.url.removeprefix("http://") not in str(raised.value)


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


async def test_whoever_resets_a_connection_has_hung_up() -> None:
    calls = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        await reader.readuntil(b"\r\n\r\n")
        calls += 1
        if calls > 2:
            writer.write(OK)
        else:
            reset(writer)

    async with asking(talk) as it:
        assert await whole(it) == b"ok"
        calls = 0
        with pytest.raises(Unavailable, match="the backend hung up before it answered"):
            await it.ask("POST", "/x", [])


async def test_a_backend_that_takes_no_connection_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as full, contextlib.ExitStack() as stack:
        for _ in range(4):
            waits = stack.enter_context(socket.socket())
            waits.setblocking(False)
            waits.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with backend.opened("the backend", url, Patience(0.2, 5, 5)) as it:
            with pytest.raises(Unavailable, match=r"cannot be reached: connecting took longer than 0.2 s"):
                await it.ask("GET", "/x", [])


async def test_the_wait_for_an_answer_begins_when_the_body_is_sent() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"3")
        writer.write(OK)

    async def slow() -> AsyncIterator[bytes]:
        for piece in (b"1", b"2", b"3"):
            await asyncio.sleep(0.6)
            yield piece

    async with asking(talk, first_byte_s=1.5) as it:
        answer = await it.ask("POST", "/x", [], slow(), 3)
        assert (answer.status, [p async for p in answer.pieces]) == (200, [b"ok"])


async def test_a_backend_that_stops_to_take_a_body_is_not_waited_for() -> None:
    async def mute(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1 << 20)

    async with asking(mute, first_byte_s=0.3) as it:
        with pytest.raises(GatewayTimeout):
            await it.ask("POST", "/x", [], endless())


@pytest.mark.parametrize(
    "head",
    [
        b"101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade", b"600 Odd\r\nContent-Length: 0",
        b"999 Odd\r\nContent-Length: 0", b"099 Odd\r\nContent-Length: 0", b"200 OK\r\nX-A: a\x01b\r\nContent-Length: 0",
        b"200 OK\r\nX-A: a\x7fb\r\nContent-Length: 0", b"200 OK\r\nTransfer-Encoding: gzip, chunked",
    ],
)  # fmt: skip
async def test_what_cannot_be_passed_on_is_no_answer(head: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + head + b"\r\n\r\n")
        await reader.read()

    async with asking(talk) as it:
        with pytest.raises(BadGateway, match="the backend gave no answer"):
            await it.ask("GET", "/x", [])


@pytest.mark.parametrize(
    "answer",
    [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\nX A: b\r\n\r\n", b"HTTP/1.1 200 OK\r\nX-A: secret\x00\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n"],
)  # fmt: skip
async def test_what_went_wrong_is_said_in_a_line_without_the_query(answer: bytes) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await reader.read()

    async with asking(talk) as it:
        with pytest.raises(BadGateway) as caught:
            await it.ask("GET", "/x?token=secret", [])
    said = str(caught.value)
    assert said.startswith("the backend gave no answer: ")
    assert [w for w in ("\n", "secret", "127.0.0.1") if w in said] == []


@pytest.mark.parametrize("is_reset", [True, False])
async def test_an_answer_of_unknown_length_is_whole_unless_it_was_reset(is_reset: bool) -> None:
    go_on = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhalf")
        await go_on.wait()
        if is_reset:
            reset(writer)

    async with asking(talk) as it:
        answer = await it.ask("GET", "/x", [])
        assert await anext(answer.pieces) == b"half"
        go_on.set()
        if is_reset:
            with pytest.raises(Unavailable, match="broke off its answer"):
                await anext(answer.pieces)
        else:
            assert [p async for p in answer.pieces] == []
