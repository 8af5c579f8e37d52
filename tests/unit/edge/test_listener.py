"""A port that cannot be had is said with what to do about it."""

from __future__ import annotations

import errno
import socket

import pytest

from muster.edge.listener import bound, remedy
from muster.kernel.errors import Misconfigured


def test_a_port_that_another_program_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"port {port} failed: Address already in use; ss -ltnp names"):
            bound("127.0.0.1", port)


@pytest.mark.parametrize(
    ("number", "port", "said"),
    [
        (errno.EACCES, 443, "CAP_NET_BIND_SERVICE"),
        (errno.EACCES, 8443, ""),
        (errno.EADDRINUSE, 443, "ss -ltnp"),
        (errno.EADDRNOTAVAIL, 443, ""),
    ],
)
def test_what_is_done_about_a_port(number: int, port: int, said: str) -> None:
    found = remedy(OSError(number, "x"), port)
    assert said in found
    assert bool(found) == bool(said)
