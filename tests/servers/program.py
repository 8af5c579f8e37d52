"""A program behind a port, as Apache or puppetserver are: what it answers, and how it fails, can be changed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

Mood = Literal["answers", "hangs", "stalls", "babbles", "hangs up"]


@dataclass
class Program:
    """A server of one kind of answer.

    Attributes:
        mood: ``hangs``: takes connections and says nothing, not even in TLS; ``stalls``: says nothing once asked;
            ``babbles``: speaks no HTTP; ``hangs up``: closes when asked.
        asked: request lines and Host headers, in order.
        clients: common names of the certificates shown, empty where none was.
    """

    address: str
    port: int
    status: int = 200
    body: str = "running"
    mood: Mood = "answers"
    asked: list[tuple[str, str]] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    context: ssl.SSLContext | None = None

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.mood == "hangs":
                await asyncio.sleep(60)
                return
            if self.context is not None:
                await writer.start_tls(self.context)
                subject = (writer.get_extra_info("ssl_object").getpeercert() or {}).get("subject", ())
                self.clients.append(dict(pair[0] for pair in subject).get("commonName", ""))
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            hosts = [line.partition(": ")[2] for line in head if line.lower().startswith("host:")]
            self.asked.append((head[0], ", ".join(hosts)))
            if self.mood == "stalls":
                await asyncio.sleep(60)
            elif self.mood == "babbles":
                writer.write(b"220 welcome\r\n\r\n")
            elif self.mood == "answers":
                length = len(self.body.encode())
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: {length}\r\n\r\n{self.body}".encode())
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running(program: Program) -> AsyncIterator[Program]:
    """Serve until the block ends."""
    talks: set[asyncio.Task[None]] = set()

    async def kept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        try:
            await program.talk(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            talks.discard(task)

    server = await asyncio.start_server(kept, program.address, program.port)
    try:
        yield program
    finally:
        server.close()
        for one in talks:
            one.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
