"""An HAProxy that would hand its sockets over, played by a thread on its command socket."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from muster.balancer.haproxy.handover import offered
from muster.kernel.errors import Misconfigured, Unavailable


def number(count: int) -> bytes:
    return count.to_bytes(4, sys.byteorder)


@contextlib.contextmanager
def answering(path: Path, answer: Callable[[socket.socket], None]) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line, contextlib.suppress(OSError):
                assert line.recv(100) == b"_getsocks\n"
                answer(line)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path
        finally:
            thread.join()


def test_it_says_where_it_listens_and_no_descriptor_stays_open(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        everywhere = stack.enter_context(socket.create_server(("0.0.0.0", 0)))
        six = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        others = (
            stack.enter_context(socket.socket(socket.AF_UNIX)),
            stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            stack.enter_context((tmp_path / "no socket").open("w")),
        )
        descriptors = [one.fileno() for one in (first, everywhere, six, *others)]

        def answer(line: socket.socket) -> None:
            line.sendall(number(len(descriptors)))
            for some in (descriptors[:2], descriptors[2:]):
                socket.send_fds(line, [b"\0" * 6 * len(some)], some)
                if some == descriptors[:2]:
                    assert line.recv(4)

        stack.enter_context(answering(tmp_path / "s", answer))
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert offered(tmp_path / "s") == {
            ("127.0.0.1", first.getsockname()[1]),
            ("", everywhere.getsockname()[1]),
            ("::1", six.getsockname()[1]),
        }
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


@pytest.mark.parametrize("said", [b"", number(0), b"\n", b"Unknown command", number(7)])
def test_one_that_hands_nothing_over_is_told_what_it_lacks(tmp_path: Path, said: bytes) -> None:
    with answering(tmp_path / "s", lambda line: line.sendall(said)), pytest.raises(Misconfigured, match="expose-fd"):
        offered(tmp_path / "s")


def test_nobody_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not say"):
        offered(tmp_path / "absent")
