"""Tells dnsmasq that its files are others now, and returns when it has read them.

dnsmasq reads a new file at once and says nothing of it. So a file that only it reads, the sentinel, is written after the
others: it takes news in their order, and when it has read that one, it has read all. What was removed or changed it forgets
when it is reloaded or started anew; then it reads the sentinel, too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from muster.features.dhcp.contract import Unreached
from muster.features.dhcp.dnsmasq.held import SENTINEL
from muster.features.dhcp.inotify import READ, Watch, watching
from muster.kernel.errors import Misconfigured, Unavailable
from muster.kernel.files import write_atomically

REQUEST = "reload-wanted"
"""The file in ``target_dir`` whose writing asks the host's service manager for a reload."""
_LOCK = ".lock"
_COMMENT = b"# dnsmasq reads this file after others, and so shows that it has read them.\n"
_PAUSE_S = 0.01
_REQUESTS = 3


class Server:
    """One dnsmasq on this host. Use :func:`opened`.

    Concurrency: one event loop; what changes something stands in a block of :meth:`alone`.
    """

    def __init__(self, target: Path, hosts: Path, pid_file: Path, *, by_signal: bool, timeout_s: float) -> None:
        self._target = target
        self._sentinel = hosts / SENTINEL
        self._pid_file = pid_file
        self._by_signal = by_signal
        self._timeout_s = timeout_s
        self._alone = asyncio.Lock()
        self.was_read = asyncio.Event()

    def reached(self) -> None:
        """Return when its process is there.

        Raises:
            Unreached, Misconfigured: as :func:`running`.
        """
        running(self._pid_file, is_to_be_signalled=self._by_signal)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold off all other members of this host while the block runs.

        Raises:
            Unreached: another one has been at it for too long, or dnsmasq is not there.
            Misconfigured: the directory is not ours to write.
        """
        async with self._alone:
            try:
                lock = os.open(self._target / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            except OSError as e:
                raise Misconfigured(f"Writing in {self._target} failed: {e.strerror or e}") from e
            try:
                deadline = time.monotonic() + 2 * self._timeout_s
                while not _locked(lock):
                    if time.monotonic() > deadline:
                        raise Unreached(
                            "Another member has been changing dnsmasq's files for too long; nothing was changed"
                        )
                    await asyncio.sleep(_PAUSE_S)
                self.reached()
                yield
            finally:
                os.close(lock)

    async def has_read(self) -> None:
        """Return when dnsmasq has read whatever new file there is.

        Raises:
            Unavailable: it has not within ``timeout_s``.
        """
        self.was_read.clear()
        await asyncio.to_thread(self._written)
        await self._seen("read", "is this directory one of its dhcp-hostsdir?")

    async def has_reloaded(self) -> None:
        """Return when dnsmasq has read all files anew.

        Raises:
            Unavailable: it could not be told to, or has not within ``timeout_s``.
        """
        # Else what it reads only now for an earlier call would be taken for this.
        await self.has_read()
        self.was_read.clear()
        if self._by_signal:
            await asyncio.to_thread(self._asked_to_reload)
            await self._seen("reloaded")
            return
        # A unit that is at it for the last request may not see this one.
        for _ in range(_REQUESTS - 1):
            await asyncio.to_thread(self._asked_to_reload)
            with suppress(Unavailable):
                await self._seen("reloaded", of=_REQUESTS)
                return
        await asyncio.to_thread(self._asked_to_reload)
        why = f"does a unit of this host start it anew when {self._target / REQUEST} is written?"
        await self._seen("reloaded", why, of=_REQUESTS)

    async def _seen(self, what: str, why: str = "", *, of: int = 1) -> None:
        """Return when the sentinel was read; wait for it for one part of as many as ``of``."""
        try:
            async with asyncio.timeout(self._timeout_s / of):
                await self.was_read.wait()
        except TimeoutError:
            said = f"dnsmasq has not {what} {self._sentinel.parent} within {self._timeout_s:g} s"
            raise Unavailable(f"{said}; {why}" if why else said) from None

    def _written(self) -> None:
        try:
            # In its place, not renamed: the watch of one who has it open must stay on it.
            fd = os.open(self._sentinel, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                os.fchmod(fd, 0o644)
                os.write(fd, _COMMENT)
            finally:
                os.close(fd)
        except OSError as e:
            raise Unavailable(f"Writing {self._sentinel} failed: {e.strerror or e}") from e

    def _asked_to_reload(self) -> None:
        if not self._sentinel.exists():
            self._written()
        if not self._by_signal:
            write_atomically(self._target / REQUEST, f"{time.time():.6f}\n")
            return
        process = _process(self._pid_file, is_to_be_signalled=True)
        try:
            signal.pidfd_send_signal(process, signal.SIGHUP)
        except PermissionError:
            raise Misconfigured("Members may not signal dnsmasq: it runs as another account") from None
        except OSError as e:
            raise Unavailable(f"Signalling dnsmasq failed: {e.strerror or e}") from e
        finally:
            os.close(process)


def running(pid_file: Path, *, is_to_be_signalled: bool) -> None:
    """Return when the process of a pid file is there.

    ``is_to_be_signalled``: then it must be seen to be dnsmasq's.

    Raises:
        Unreached: there is none.
        Misconfigured: the pid file cannot be read, or names another program.
    """
    os.close(_process(pid_file, is_to_be_signalled=is_to_be_signalled))


def _process(pid_file: Path, *, is_to_be_signalled: bool) -> int:
    """Return a descriptor of the process: held by it, nobody else can get its number meanwhile."""
    try:
        with pid_file.open("rb") as f:
            text = f.read(32).strip()
    except FileNotFoundError:
        raise Unreached(f"dnsmasq is not there: no pid file {pid_file}") from None
    except OSError as e:
        raise Misconfigured(f"Reading dnsmasq's pid file {pid_file} failed: {e.strerror or e}") from e
    if not (text.isdigit() and len(text) < 10 and int(text) > 1):
        # It is written in two steps.
        raise Unreached(f"dnsmasq's pid file {pid_file} has no number of a process")
    pid = int(text)
    try:
        process = os.pidfd_open(pid)
    except OSError as e:
        raise Unreached(f"dnsmasq is not there: its process {pid} is gone") from e
    try:
        name = Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        # systemd's ProtectProc hides other accounts' processes; that there is one of that number it does not hide.
        name = ""
    if (name and name != "dnsmasq") or (not name and is_to_be_signalled):
        os.close(process)
        raise Misconfigured(f"Process {pid} of {pid_file} is {name or 'hidden from members'}, not dnsmasq")
    return process


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@asynccontextmanager
async def opened(
    target: Path, hosts: Path, pid_file: Path, *, by_signal: bool, timeout_s: float
) -> AsyncIterator[Server]:
    """Yield the dnsmasq of this host, whether it runs or not.

    Args:
        target: the directory that the members of this host share with it.
        hosts: the directory in it that dnsmasq reads hosts from.
        pid_file: where dnsmasq writes its number.
        by_signal: whether it is reloaded by SIGHUP from here; else somebody is asked to, by :data:`REQUEST`.
        timeout_s: how long it may take to read.

    Raises:
        Misconfigured: this machine has no inotify, or there is no such directory.
    """
    server = Server(target, hosts, pid_file, by_signal=by_signal, timeout_s=timeout_s)
    if not hosts.is_dir():
        raise Misconfigured(f"There is no directory {hosts}, where dnsmasq reads hosts and members write them")
    with watching(server.was_read.set, READ) as watch:
        if watch is None:
            raise Misconfigured(
                "This machine has no inotify(7) left for members, and so nobody sees what dnsmasq reads"
            )
        _on(watch, hosts)
        yield server


def _on(watch: Watch, hosts: Path) -> None:
    with suppress(OSError):
        watch.on([hosts / SENTINEL])
