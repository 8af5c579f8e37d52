"""``python -m tests.faults.hostile``: clients that mean no good, in a process of their own, from one address.

What they send is small: it shows that something is counted and bounded, not how much a machine can bear.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ssl
import sys
from collections.abc import Sequence

_GET = b"GET /features HTTP/1.1\r\nHost: x\r\n\r\n"
_POST = b"POST /dns/ HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"

KINDS: dict[str, Sequence[bytes]] = {
    "requests without reading replies": [_GET * 300] * 4,
    "headers without an end": [b"GET / HTTP/1.1\r\n", *[b"X-Header-%d: %b\r\n" % (n, b"x" * 900) for n in range(60)]],
    "many headers": [b"GET / HTTP/1.1\r\n", b"".join(b"X-%d: y\r\n" % n for n in range(5000))],
    "a body that stops": [_POST + b"Content-Length: 900000\r\n\r\n", b"fqdn=" + b"x" * 100_000],
    "a body in small chunks": [_POST + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000],
    "trailers": [_POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"".join(b"X-%d: y\r\n" % n for n in range(5000))],
    "nothing": [],
    "half a request": [_GET[:20]],
}


async def held(host: str, port: int, source: str, tls: ssl.SSLContext | None, parts: Sequence[bytes]) -> None:
    """Connect, send, read nothing, and stay until the other side ends it."""
    ended = asyncio.Event()

    class Silent(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transport.pause_reading()  # type: ignore[attr-defined]

        def connection_lost(self, exc: Exception | None) -> None:
            ended.set()

    with contextlib.suppress(OSError, asyncio.CancelledError):
        transport, _ = await asyncio.get_running_loop().create_connection(
            Silent, host, port, ssl=tls, server_hostname="x" if tls else None, local_addr=(source, 0)
        )
        try:
            for part in parts:
                if transport.is_closing():
                    break
                transport.write(part)
                await asyncio.sleep(0)
            await ended.wait()
        finally:
            transport.abort()


async def attack(host: str, port: int, source: str, connections: int, seconds: float, *, plain: bool) -> None:
    tls: ssl.SSLContext | None = None
    if not plain:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    kinds = list(KINDS.values())
    tasks = []
    for n in range(connections):
        tasks.append(asyncio.create_task(held(host, port, source, tls, kinds[n % len(kinds)])))
        # In half the time: what is measured is what they hold, and not this process' own work.
        await asyncio.sleep(seconds / 2 / connections)
    await asyncio.sleep(seconds / 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sink(host: str, port: int, certificate: str, key: str) -> None:
    """A server that shakes hands and keeps nothing: beside it one sees what the attackers' own work costs this machine."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        writer.close()

    async with await asyncio.start_server(swallow, host, port, ssl=tls) as server:
        await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.hostile", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--source", default="127.0.0.200")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--sink", nargs=2, metavar=("CERTIFICATE", "KEY"), help="be the server that keeps nothing")
    given = parser.parse_args()
    if given.sink:
        asyncio.run(sink(given.host, given.port, *given.sink))
        return 0
    asyncio.run(attack(given.host, given.port, given.source, given.connections, given.seconds, plain=given.plain))
    return 0


if __name__ == "__main__":
    sys.exit(main())
