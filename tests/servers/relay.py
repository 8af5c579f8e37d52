"""Brings connections to what listens on a host of a segment, for tests that are not on it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

from muster.cli.demo.bind import free_port
from tests.servers.namespaces import Host


@contextlib.contextmanager
def running(host: Host, port: int, address: str) -> Iterator[int]:
    """Yield a port of an address here; whoever connects is connected to a port of that host, and ends when it ends."""
    ended = threading.Event()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, near := free_port(address)))
        listener.listen(200)
        listener.settimeout(0.2)
        thread = threading.Thread(target=_relayed, args=(listener, host, port, ended), name="relay", daemon=True)
        thread.start()
        try:
            yield near
        finally:
            ended.set()
            thread.join()


def _relayed(listener: socket.socket, host: Host, port: int, ended: threading.Event) -> None:
    other: dict[socket.socket, socket.socket] = {}

    def drop(one: socket.socket) -> None:
        peer = other.pop(one)
        del other[peer]
        one.close()
        peer.close()

    while not ended.is_set():
        for one in select.select([listener, *other], [], [], 0.1)[0]:
            if one is listener:
                near, _ = listener.accept()
                far = host.opened()
                far.settimeout(5)
                try:
                    far.connect((host.address, port))
                except OSError:
                    near.close()
                    far.close()
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                other[near], other[far] = far, near
            elif one in other:
                try:
                    heard = one.recv(65536)
                    if heard:
                        other[one].sendall(heard)
                except OSError:
                    heard = b""
                if not heard:
                    drop(one)
    for one in list(other):
        one.close()
