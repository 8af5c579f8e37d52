"""Another HAProxy's listening sockets: which it would hand over to one that is started with ``-x``.

It is asked as HAProxy itself asks (seen of 2.6.12): ``_getsocks`` on its command socket, a number, then the descriptors. One
whose socket lacks ``expose-fd listeners`` closes without a word. HAProxy would then bind beside it where it may, and
connections that wait in the other's queues would be lost with it.
"""

from __future__ import annotations

import array
import os
import socket
import sys
from pathlib import Path

from muster.kernel.errors import Misconfigured, Unavailable

_TIMEOUT_S = 3.0
_INT = array.array("i").itemsize
_MOST = 20_000
# As many as HAProxy sends at once; with each come a few bytes about its interface and namespace.
_AT_ONCE = 253
_BYTES_AT_ONCE = 1 << 18


def offered(command_socket: Path) -> frozenset[tuple[str, int]]:
    """Return address (empty for all of IPv4) and port of every TCP socket that would be handed over.

    Raises:
        Misconfigured: none would.
        Unavailable: nobody answers there.
    """
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(_TIMEOUT_S)
            line.connect(str(command_socket))
            line.sendall(b"_getsocks\n")
            found = _received(line)
    except OSError as e:
        raise Unavailable(f"The HAProxy behind {command_socket} does not say what it listens on: {e}") from e
    if not found:
        raise Misconfigured(
            f"The HAProxy behind {command_socket} hands no port over: its stats socket needs expose-fd listeners, then a "
            "reload"
        )
    return found


def _received(line: socket.socket) -> frozenset[tuple[str, int]]:
    head = line.recv(_INT)
    wanted = int.from_bytes(head, sys.byteorder) if len(head) == _INT else 0
    found: set[tuple[str, int]] = set()
    got = 0
    while got < min(wanted, _MOST):
        _, descriptors, _, _ = socket.recv_fds(line, _BYTES_AT_ONCE, _AT_ONCE)
        if not descriptors:
            break
        for descriptor in descriptors:
            found.update(_place(descriptor))
        got += len(descriptors)
        # Only between two lots: after the last one it has hung up already.
        if got < wanted:
            line.sendall(got.to_bytes(_INT, sys.byteorder))
    return frozenset(found)


def _place(descriptor: int) -> set[tuple[str, int]]:
    """Return where a descriptor listens, and close it: only a look was wanted."""
    try:
        one = socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        return set()
    with one:
        if one.family not in (socket.AF_INET, socket.AF_INET6) or one.type != socket.SOCK_STREAM:
            return set()
        host, port = one.getsockname()[:2]
        return {("" if host == "0.0.0.0" else host, port)}
