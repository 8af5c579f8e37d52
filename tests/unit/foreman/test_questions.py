"""Questions over the wire: whatever frames an answer, and whatever is none, ends in an answer or in one sentence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from muster.foreman.questions import Questions, opened
from muster.kernel.errors import Denied, Rejected, Unavailable
from tests.servers.haproxy import CLUSTER_NAME, Pki

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def answering(*answers: bytes, keeps: bool = True) -> AsyncIterator[tuple[Questions, list[bytes]]]:
    """Yield questions to a server that gives these answers in turn; ``keeps``: on one connection, else each on its own."""
    left, heard = list(answers), []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while left:
            try:
                heard.append(await reader.readuntil(b"\r\n\r\n"))
            except asyncio.IncompleteReadError:
                break
            writer.write(left.pop(0))
            await writer.drain()
            if not keeps:
                break
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with opened(f"http://127.0.0.1:{port}", context=None, server_name="proxy.test", timeout_s=5) as questions:
            yield questions, heard
    finally:
        server.close()


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 4\r\n\r\nbody",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\nSum: 1\r\n\r\n",
        OK + b"content-length:4\r\nConnection: close\r\n\r\nbody",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        + OK
        + b"Content-Length: 4\r\n\r\nbody",
    ],
)
async def test_an_answer_is_read_however_it_is_framed_and_the_connection_kept_where_it_may(answer: bytes) -> None:
    async with answering(answer, OK + b"Content-Length: 2\r\nETag: x\r\n\r\n{}") as (questions, heard):
        assert (await questions.ask("/features")).text == "body"
        second = await questions.call("/version")
    assert (second.json(), second.etag, len(heard)) == ({}, "x", 2)
    assert heard[0].startswith(b"GET /features HTTP/1.1\r\nHost: proxy.test\r\n")


async def test_a_connection_begins_with_what_it_is_told_to_from_the_address_it_is_told_to() -> None:
    heard: list[tuple[bytes, str]] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n"), writer.get_extra_info("peername")[0]))
        writer.write(OK + b"Content-Length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with opened(url, context=None, preface=b"PROXY me\r\n", source="127.0.0.77") as questions:
            assert (await questions.ask("/x")).text == "{}"
    finally:
        server.close()
    assert [(h.split(b"\r\n")[:2], peer) for h, peer in heard] == [([b"PROXY me", b"GET /x HTTP/1.1"], "127.0.0.77")]


async def test_one_that_hangs_gets_no_farewell_either() -> None:
    gone = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while await reader.read(100):
                pass
        gone.set()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with opened(url, context=None, timeout_s=0.1) as questions:
            with pytest.raises(Unavailable, match="got no answer in time"):
                await questions.ask("/x")
            # Though the next question is not asked yet, nor the block at its end.
            async with asyncio.timeout(10):
                await gone.wait()
    finally:
        server.close()


async def test_one_that_announces_the_end_and_stays_has_answered(tmp_path: Path) -> None:
    pki, held = Pki.made(tmp_path), []
    listener = socket.create_server(("127.0.0.1", 0))

    def talk() -> None:
        for _ in range(2):
            connection = pki.server_context().wrap_socket(listener.accept()[0], server_side=True)
            # Kept open, and not read from any more.
            held.append(connection)
            connection.recv(1000)
            connection.sendall(OK + b"Content-Length: 2\r\nConnection: close\r\n\r\n{}")

    talking = asyncio.create_task(asyncio.to_thread(talk))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    try:
        async with opened(url, context=pki.client_context(), server_name=CLUSTER_NAME, timeout_s=0.7) as questions:
            assert [(await questions.ask("/x")).text for _ in range(2)] == ["{}", "{}"]
    finally:
        # By then both were taken, or the listener's end says so.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        await asyncio.gather(talking, return_exceptions=True)
        for one in held:
            one.close()


async def test_one_that_is_gone_as_soon_as_it_has_answered_has_answered(tmp_path: Path) -> None:
    pki = Pki.made(tmp_path)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Connection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=pki.server_context())
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        async with opened(url, context=pki.client_context(), server_name=CLUSTER_NAME, timeout_s=5) as questions:
            assert {(await questions.ask("/x")).text for _ in range(20)} == {"{}"}
    finally:
        server.close()


async def test_an_answer_without_a_length_ends_with_the_connection() -> None:
    async with answering(b"HTTP/1.0 404 Not Found\r\n\r\nnowhere", keeps=False) as (questions, _):
        answer = await questions.ask("/x")
    assert (answer.status, answer.text) == (404, "nowhere")


async def test_a_kept_connection_that_was_closed_meanwhile_is_opened_again() -> None:
    one = OK + b"Content-Length: 1\r\n\r\n"
    async with answering(one + b"1", one + b"2", keeps=False) as (questions, _):
        assert [(await questions.ask("/x")).text for _ in range(2)] == ["1", "2"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "was answered with no HTTP: SSH-2.0-OpenSSH_9"),
        (OK + b"Content-Length: 9\r\n\r\nbody", "closed before the answer was whole"),
        (OK + b"Content-Length: -1\r\n\r\n", "-1 is no length"),
        (OK + b"Content-Length: 99999999\r\n\r\n", "more than 4194304 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", "zz is no length"),
        (OK + b"X: " + b"x" * 70_000 + b"\r\n\r\n", "too long a head"),
        ("HTTP/1.1 ²00 OK\r\n\r\n".encode("latin-1"), "was answered with no HTTP"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000 + b"\r\n", "too long a line"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", "too long a line"),
        (b"", "closed before the answer was whole"),
    ],
)
async def test_what_is_no_answer_is_said_in_one_sentence(answer: bytes, why: str) -> None:
    async with answering(answer, keeps=False) as (questions, _):
        with pytest.raises(Unavailable) as raised:
            await questions.ask("/x")
    assert (why in str(raised.value), str(raised.value).startswith("GET http://127.0.0.1:")) == (True, True), (
        raised.value
    )


async def test_who_is_not_there_and_who_says_nothing_is_unavailable_in_words() -> None:
    async with opened("http://127.0.0.1:1", context=None) as questions:
        with pytest.raises(Unavailable, match=r"GET http://127\.0\.0\.1:1/x failed: Connection refused\Z"):
            await questions.ask("/x")

    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with opened(f"http://127.0.0.1:{port}", context=None, timeout_s=0.1) as questions:
            with pytest.raises(Unavailable, match="got no answer in time"):
                await questions.ask("/x")


async def test_refusals_are_the_errors_they_stand_for() -> None:
    async with answering(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno") as (questions, _):
        with pytest.raises(Denied, match="answered 403 to GET /x: no"):
            await questions.call("/x")


@pytest.mark.parametrize("path", ["x", "/a b", "/a\r\nX: y", "/é"])
async def test_a_path_that_would_be_more_than_one_is_refused(path: str) -> None:
    async with opened("http://127.0.0.1:1", context=None) as questions:
        with pytest.raises(Rejected, match="is no path"):
            await questions.ask(path)


@pytest.mark.parametrize("body", [b"<html>", b"[" * 2000])
async def test_a_body_that_is_no_json_is_said_in_one_sentence(body: bytes) -> None:
    async with answering(OK + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)) as (questions, _):
        with pytest.raises(Unavailable, match="is not JSON"):
            (await questions.call("/x")).json()
