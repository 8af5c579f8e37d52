"""Where boot files come from: nginx, and a server that answers well, or in the one way in which a test wants it to fail."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import re
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path

from muster.cli.demo.bind import free_port
from muster.kernel.process import clean_environment

WHEN = 1_700_000_000
Talk = Callable[["Origin", str, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Origin:
    """A web server.

    Attributes:
        files: what it has, by path.
        tags, times: of a file: its ``ETag``, empty for none; by default that of its bytes. Its ``Last-Modified``.
        next: what the next questions are answered with in place of a file, in their order.
        heads: what it was asked.
    """

    address: str
    port: int = 0
    scheme: str = "http"
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    next: list[Talk] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    def url(self, path: str = "/vmlinuz", user: str = "") -> str:
        return f"{self.scheme}://{user}{self.address}:{self.port}{path}"

    def asked(self, name: str) -> list[str | None]:
        """Return what each question said under a header's name."""
        return [field_of(head, name) for head in self.heads]

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.heads.append(head)
            await (self.next.pop(0) if self.next else well)(self, head, writer)
            await writer.drain()
            # What aiohttp has not handed out when a connection breaks is lost: tests count what came.
            await asyncio.sleep(0.05)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def field_of(head: str, name: str) -> str | None:
    found = re.search(rf"\r\n{name}: ([^\r]*)\r\n", head, re.IGNORECASE)
    return found[1] if found else None


def answer(status: int, body: bytes = b"", **more: str) -> bytes:
    """Return an answer; an empty field is left out."""
    fields = {"Content_Length": str(len(body)), **more, "Connection": "close"}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status} Said\r\n{head}\r\n".encode() + body


def said(status: int, body: bytes = b"", **more: str) -> Talk:
    """Return what answers so, whatever it is asked."""

    async def talk(_: Origin, _head: str, writer: asyncio.StreamWriter) -> None:
        writer.write(answer(status, body, **more))

    return talk


def broken_after(count: int) -> Talk:
    """Return what answers well, and breaks off after so many bytes of the body."""

    async def talk(origin: Origin, head: str, writer: asyncio.StreamWriter) -> None:
        told, _, body = whole(origin, head).partition(b"\r\n\r\n")
        writer.write(told + b"\r\n\r\n" + body[:count])

    return talk


def slow(count: int, pause_s: float) -> Talk:
    """Return what answers well, in pieces of so many bytes, with pauses."""

    async def talk(origin: Origin, head: str, writer: asyncio.StreamWriter) -> None:
        told, _, body = whole(origin, head).partition(b"\r\n\r\n")
        writer.write(told + b"\r\n\r\n")
        for at in range(0, len(body), count):
            writer.write(body[at : at + count])
            await writer.drain()
            await asyncio.sleep(pause_s)

    return talk


async def endless(_origin: Origin, _head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(64 << 10))
        await writer.drain()


async def silent(_origin: Origin, _head: str, _writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def well(origin: Origin, head: str, writer: asyncio.StreamWriter) -> None:
    writer.write(whole(origin, head))


def whole(origin: Origin, head: str) -> bytes:
    """Return the answer that RFC 9110 has for a question with ``Range``, ``If-Range`` and conditions."""
    path = head.split(" ")[1].partition("?")[0]
    body = origin.files.get(path)
    if body is None:
        return answer(404)
    tag = origin.tags.get(path, f'"{hashlib.sha256(body).hexdigest()[:16]}"')
    modified = formatdate(origin.times.get(path, WHEN), usegmt=True)
    about: dict[str, str] = {"ETag": tag, "Last_Modified": modified, "Date": formatdate(usegmt=True)}
    had, since = field_of(head, "If-None-Match"), field_of(head, "If-Modified-Since")
    if (had == tag) if had is not None else since == modified:
        return answer(304, b"", **about)
    part = re.fullmatch(r"bytes=(\d+)-", field_of(head, "Range") or "")
    condition = field_of(head, "If-Range")
    if part is None or condition not in (None, tag if tag.startswith('"') else "", modified):
        return answer(200, body, **about)
    first = int(part[1])
    if first >= len(body):
        return answer(416, Content_Range=f"bytes */{len(body)}")
    return answer(206, body[first:], Content_Range=f"bytes {first}-{len(body) - 1}/{len(body)}", **about)


@contextlib.asynccontextmanager
async def serving(
    address: str = "127.0.0.77", *, name: str = "", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Origin]:
    """Serve at an address, which URLs name as ``name``, where that is given."""
    it = Origin(name or address, scheme="http" if tls is None else "https")
    server = await asyncio.start_server(it.talk, address, 0, ssl=tls)
    it.port = server.sockets[0].getsockname()[1]
    try:
        yield it
    finally:
        server.close()


@contextlib.contextmanager
def nginx(directory: Path, files: Path, *, more: str = "") -> Iterator[str]:
    """Serve a directory with nginx, and yield its URL; ``more`` stands in its server block.

    Its own files go to ``directory``.
    """
    address = "127.0.0.78"
    port = free_port(address)
    directory.mkdir(exist_ok=True)
    configuration = directory / "nginx.conf"
    spool = "".join(
        f"{what}_temp_path {directory}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log; events {{}}\n"
        f"http {{ {spool} access_log {directory}/access.log; default_type application/octet-stream;\n"
        f"server {{ listen {address}:{port}; root {files}; {more} }} }}\n"
    )
    process = subprocess.Popen(
        ["/usr/sbin/nginx", "-c", str(configuration), "-p", str(directory)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean_environment(),
    )  # fmt: skip
    url = f"http://{address}:{port}"
    try:
        until = time.monotonic() + 20
        while not _answers(address, port):
            assert process.poll() is None, (directory / "error.log").read_text()
            assert time.monotonic() < until, (directory / "error.log").read_text()
            time.sleep(0.05)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _answers(address: str, port: int) -> bool:
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status > 0
    except OSError:
        return False
    finally:
        connection.close()
