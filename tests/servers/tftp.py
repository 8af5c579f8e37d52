"""TFTP servers to ask: ours, on a thread of its own, and Debian's tftpd-hpa; on a loopback address or in a namespace."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from muster.kernel.process import clean_environment, end_with_parent
from muster.netboot.tftp.metrics import TFTPMetrics
from muster.netboot.tftp.server import Statistics, TFTPServer
from muster.netboot.tftp.settings import TFTPSettings
from muster.netboot.tftp.told import TransferEnded
from tests.servers.available import sbin
from tests.servers.namespaces import Host
from tests.servers.tftp_client import asked, opened_at

ADDRESS = "127.0.0.69"
_LONGEST_START_S = 10.0


@dataclass
class Serving:
    """A server that runs. ``told`` grows on the server's thread."""

    address: str
    port: int
    told: list[TransferEnded] = field(default_factory=list)
    server: TFTPServer | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    @property
    def place(self) -> tuple[str, int]:
        return self.address, self.port

    @property
    def statistics(self) -> Statistics:
        """What it has done, once it has heard the last ACKs of clients that are done."""
        assert self.server is not None
        limit = time.monotonic() + 1.0
        while self.server.statistics.live and time.monotonic() < limit:
            time.sleep(0.01)
        return self.server.statistics

    def outcome(self, name: str, *, within_s: float = 10.0) -> TransferEnded:
        """Wait for what the server says of a request for that name, the last one."""
        limit = time.monotonic() + within_s
        while time.monotonic() < limit:
            for one in reversed(list(self.told)):
                if one.name == name:
                    return one
            time.sleep(0.01)
        raise AssertionError(f"the server says nothing of {name}: {self.told}")

    def stop(self) -> None:
        """Stop it as its program does: what is under way goes on for as long as it may."""
        assert self.server is not None
        assert self._loop is not None
        asyncio.run_coroutine_threadsafe(self.server.stop(), self._loop).result(60)

    def slept(self, seconds: float) -> None:
        """Hold the server's loop, as something that blocks would."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(time.sleep, seconds)

    def lag(self) -> float:
        """Return how many seconds the loop took to come to something new."""
        assert self._loop is not None
        begun, come = time.monotonic(), threading.Event()
        self._loop.call_soon_threadsafe(come.set)
        assert come.wait(30)
        return time.monotonic() - begun


@contextlib.contextmanager
def ours(
    root: Path,
    *,
    host: Host | None = None,
    address: str = ADDRESS,
    metrics: TFTPMetrics | None = None,
    handed: Sequence[socket.socket] = (),
    **settings: object,
) -> Iterator[Serving]:
    """Yield our server; its settings are :class:`TFTPSettings`'."""
    told: list[TransferEnded] = []
    settings = {"addresses": [host.address if host else address], "port": 0, "drain_s": 1.0, **settings}
    ready, ends = threading.Event(), threading.Event()
    failed: list[BaseException] = []
    served = Serving(host.address if host else address, 0, told)

    async def run() -> None:
        told_of = TFTPSettings(root, **settings)  # type: ignore[arg-type]
        server = TFTPServer(told_of, told=told.append, metrics=metrics, handed=handed)
        async with server:
            served.server, served.port, served._loop = server, server.places[0][1], asyncio.get_running_loop()
            ready.set()
            while not ends.is_set():
                await asyncio.sleep(0.02)

    def thread() -> None:
        try:
            if host is not None:
                host.enter()
            asyncio.run(run())
        except BaseException as e:  # what stopped it is the test's to know
            failed.append(e)
        finally:
            ready.set()

    running = threading.Thread(target=thread, name="tftp server")
    running.start()
    try:
        assert ready.wait(_LONGEST_START_S)
        if failed:
            raise failed[0]
        yield served
    finally:
        ends.set()
        running.join()
    if failed:
        raise failed[0]


@contextlib.contextmanager
def tftpd_hpa(
    root: Path, *, host: Host | None = None, address: str = ADDRESS, more: tuple[str, ...] = ()
) -> Iterator[Serving]:
    """Yield Debian's tftpd-hpa, which changes its root to the directory."""
    server = sbin("in.tftpd")
    assert server is not None
    at = host.address if host else address
    (root / ".ready").write_bytes(b"")
    port = _free_port(at) if host is None else 6969
    command = [server, "-L", "--secure", "--user", "root", "--address", f"{at}:{port}", *more, str(root)]
    process = subprocess.Popen(
        host.command(*command) if host else command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, env=clean_environment(), preexec_fn=end_with_parent, start_new_session=True,
    )  # fmt: skip
    try:
        limit = time.monotonic() + _LONGEST_START_S
        opened: Callable[[], socket.socket] = functools.partial(opened_at, at, host)
        while not _answers((at, port), opened):
            assert time.monotonic() < limit, "tftpd-hpa did not come up"
            assert process.poll() is None, "tftpd-hpa ended"
        yield Serving(at, port)
    finally:
        # Each transfer is a process of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait()


def _answers(place: tuple[str, int], opened: Callable[[], socket.socket]) -> bool:
    with opened() as sock:
        sock.settimeout(0.3)
        try:
            return asked(sock, place, ".ready")[:2] == b"\0\3"
        except OSError:
            return False


def _free_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 0))
        port: int = sock.getsockname()[1]
        return port
