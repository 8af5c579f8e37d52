"""The addresses HAProxy listens on: free before a configuration is in force, taken by HAProxy afterwards."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Collection

from muster.balancer.haproxy.layout import Layout
from muster.kernel.errors import Misconfigured, Unavailable


def refuse_taken(layout: Layout, ours: Collection[tuple[str, int]]) -> None:
    """Refuse a listener somebody else has, before HAProxy tries it; ``ours`` are those HAProxy has now.

    ``haproxy -c`` binds nothing. A reload that finds a port taken tries for two seconds, with the listeners of the
    worker in force closed: 61 of 640 calls failed when it was measured.

    Raises:
        Misconfigured: another program has it.
    """
    for host, port in layout.listeners:
        if (host, port) in ours or ("", port) in ours:
            continue
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind((host, port))
            except OSError as e:
                if e.errno == errno.EADDRINUSE and not any(p == port for _, p in ours):
                    raise Misconfigured(
                        f"HAProxy cannot listen on {host or '*'} port {port}: it is in use by another program"
                    ) from e


async def connect_to_each(layout: Layout) -> None:
    """Connect once to every listener.

    Raises:
        Unavailable: one takes no connection.
    """
    for host, port in layout.listeners:
        target = host or "127.0.0.1"
        try:
            async with asyncio.timeout(2.0):
                _, writer = await asyncio.open_connection(target, port)
        except (OSError, TimeoutError) as e:
            raise Unavailable(f"HAProxy runs but {target} port {port} takes no connection: {e}") from e
        writer.close()
