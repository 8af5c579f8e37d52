"""A child process that is started again the moment it dies.

``kernel.process`` runs tools to their end; this one has none, so it is started here, with the same clean environment
and in a process group of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from muster.kernel.clock import Clock
from muster.kernel.errors import Misconfigured
from muster.kernel.log import logger
from muster.kernel.process import clean_environment, working_directory

log = logger("balancer")

# So many deaths within so many seconds are no accident: waiting then spares the machine.
_DEATHS = 5
_WINDOW_S = 10.0
_LONGEST_WAIT_S = 30.0
_LINES_KEPT = 50


class Supervisor:
    """Keeps one command running inside its ``async with`` block.

    Attributes:
        restarts: how often the process died and was started again.
        lines: the last lines it printed.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        clock: Clock,
        stop_timeout_s: float,
        before_restart: Callable[[], None] | None = None,
    ) -> None:
        self._before_restart = before_restart
        self._command = [str(word) for word in command]
        self._clock = clock
        self._stop_timeout_s = stop_timeout_s
        self._back_off_s = 0.0
        self._deaths: deque[float] = deque(maxlen=_DEATHS)
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self.restarts = 0
        self.lines: deque[str] = deque(maxlen=_LINES_KEPT)

    @property
    def pid(self) -> int | None:
        """The process now running, None between two."""
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def __aenter__(self) -> Self:
        self._process = await self._spawned()
        self._keeping = asyncio.create_task(self._keep(), name="haproxy supervisor")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        if self._process is not None:
            await self._stopped(self._process)

    async def _spawned(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=clean_environment(),
                cwd=working_directory(),
                start_new_session=True,
            )
        except OSError as e:
            raise Misconfigured(f"Starting {self._command[0]} failed: {e.strerror or e}") from e

    async def _keep(self) -> None:
        while True:
            process = self._process
            if process is not None:
                status = await self._followed(process)
                _signal_group(process, signal.SIGKILL)
                log.error("HAProxy died and is started again", pid=process.pid, status=status, restarts=self.restarts)
            wait_s = self._wait_s()
            if wait_s:
                await self._clock.sleep(wait_s)
            self.restarts += 1
            if self._before_restart is not None:
                self._before_restart()
            try:
                self._process = await self._spawned()
            except Misconfigured as e:
                self._process = None
                log.critical(str(e))

    async def _followed(self, process: asyncio.subprocess.Process) -> int:
        """Return the exit status; what the process prints meanwhile goes to the log."""
        reading = asyncio.create_task(self._read(process), name="haproxy output")
        try:
            return await process.wait()
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        rest = ""
        while process.stdout is not None and (chunk := await process.stdout.read(4096)):
            *lines, rest = (rest + chunk.decode("utf-8", "replace")).split("\n")
            rest = rest[-4096:]
            for line in lines:
                self.lines.append(line)
                _tell(line)

    def _wait_s(self) -> float:
        """Return how long to wait before the next start: nothing, or twice as long at every death while they follow."""
        now = self._clock.monotonic()
        lived_s = now - (self._deaths[-1] if self._deaths else now)
        self._deaths.append(now)
        storm = len(self._deaths) == _DEATHS and now - self._deaths[0] <= _WINDOW_S
        if storm or (self._back_off_s and lived_s - self._back_off_s < _WINDOW_S):
            self._back_off_s = min(_LONGEST_WAIT_S, 2 * self._back_off_s or 1.0)
        else:
            self._back_off_s = 0.0
        return self._back_off_s

    async def _stopped(self, process: asyncio.subprocess.Process) -> None:
        """End the process: softly, then firmly, then the whole group at once."""
        following = asyncio.create_task(self._read(process), name="haproxy output")
        try:
            for number, patience_s in ((signal.SIGUSR1, self._stop_timeout_s), (signal.SIGTERM, 2.0)):
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(number)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(patience_s):
                            await process.wait()
        finally:
            _signal_group(process, signal.SIGKILL)
            await process.wait()
            following.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await following


def _signal_group(process: asyncio.subprocess.Process, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _tell(line: str) -> None:
    if "[ALERT]" in line:
        log.warning("HAProxy says", words=line)
    elif "Health check for server" in line or "has no server available" in line:
        log.info("HAProxy says", words=line)
    else:
        log.debug("HAProxy says", words=line)
