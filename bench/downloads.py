"""Clients of large files that cost next to nothing: they look at no byte of a body and keep none, in one process.

Plain bodies are thrown away where the kernel has them; those over TLS have to be decrypted.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

from bench import load
from muster.kernel.errors import Unavailable

_BUFFER_BYTES = 1 << 20
_HEAD_BYTES = 64 << 10
_TIMEOUT_S = 60.0
_SLOW_BUFFER_BYTES = 64 << 10
_SLOW_PIECE_BYTES = 8 << 10


async def downloaded(target: load.Target, size: int, streams: int) -> None:
    """Fetch the file so many times at once, each on a connection and in a thread of its own.

    Raises:
        Unavailable: the answer was not 200, or not of that size.
    """
    context = load.tls_context(target)
    counts = await asyncio.gather(*(asyncio.to_thread(_fetched, target, context) for _ in range(streams)))
    if any(count != size for count in counts):
        raise Unavailable(f"{target.host}:{target.port}{target.path} gave {counts} bytes instead of {size} each")


def _fetched(target: load.Target, context: ssl.SSLContext | None) -> int:
    """Return how many bytes the body had."""
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(socket.create_connection((target.host, target.port), timeout=_TIMEOUT_S))
        if context is not None:
            connection = stack.enter_context(context.wrap_socket(connection, server_hostname=target.server_name))
        connection.sendall(_asked(target))
        head = b""
        while b"\r\n\r\n" not in head and len(head) < _HEAD_BYTES:
            piece = connection.recv(_HEAD_BYTES)
            if not piece:
                break
            head += piece
        if not head.startswith(b"HTTP/1.1 200 "):
            raise Unavailable(f"{target.host}:{target.port}{target.path} answered {head[:200]!r}")
        count = len(head.partition(b"\r\n\r\n")[2])
        # Linux takes as many bytes off the socket and copies none of them.
        flags = socket.MSG_TRUNC if context is None else 0
        buffer = bytearray(_BUFFER_BYTES)
        while got := connection.recv_into(buffer, _BUFFER_BYTES, flags):
            count += got
    return count


@contextlib.asynccontextmanager
async def slow_readers(target: load.Target, count: int, *, pause_s: float) -> AsyncIterator[None]:
    """Hold so many clients that have begun to get the file and take a few kB of it after each pause.

    Raises:
        Unavailable: one of them got no 200, or its connection ended.
    """
    context = load.tls_context(target)
    begun = asyncio.Semaphore(0)

    async def read() -> None:
        made = socket.socket()
        # A client's kernel would take megabytes before its program has read any.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER_BYTES)
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, (target.host, target.port))
        name = target.server_name if context is not None else None
        reader, writer = await asyncio.open_connection(
            sock=made, ssl=context, server_hostname=name, limit=_SLOW_PIECE_BYTES
        )
        try:
            writer.write(_asked(target))
            got = await reader.read(_SLOW_PIECE_BYTES)
            if not got.startswith(b"HTTP/1.1 200 "):
                raise Unavailable(f"{target.host}:{target.port}{target.path} answered a slow reader {got[:200]!r}")
            begun.release()
            while True:
                await asyncio.sleep(pause_s)
                if not await reader.read(_SLOW_PIECE_BYTES):
                    raise Unavailable(f"{target.host}:{target.port} hung up on a slow reader")
        finally:
            writer.transport.abort()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(read()) for _ in range(count)]
            async with asyncio.timeout(_TIMEOUT_S):
                for _ in range(count):
                    await begun.acquire()
            yield
            for task in tasks:
                task.cancel()
    except ExceptionGroup as e:
        first = e.exceptions[0]
        if not isinstance(first, Unavailable | OSError):
            raise
        raise Unavailable(str(first) or type(first).__name__) from e


def _asked(target: load.Target) -> bytes:
    return f"GET {target.path} HTTP/1.1\r\nHost: {target.server_name}\r\nConnection: close\r\n\r\n".encode("ascii")
