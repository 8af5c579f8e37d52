"""HAProxy's master process: started under supervision, told to read its file anew, until there is a worker of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.render import RuntimePaths
from muster.balancer.haproxy.sockets import MasterSocket, Process
from muster.balancer.haproxy.supervisor import Supervisor
from muster.kernel.clock import Clock
from muster.kernel.errors import Rejected, Unavailable

_POLL_S = 0.05
# After the master has read the file again, a worker that is not there by then will not come.
_GRACE_S = 1.5


class Master:
    """One HAProxy, from :meth:`start` to :meth:`end`; the engine's block sees to both.

    Attributes:
        supervisor: who keeps it running; None when it was not started.
        read_at: when it last read its file, by the clock's monotonic time; None before.
    """

    def __init__(
        self,
        paths: RuntimePaths,
        socket: MasterSocket,
        *,
        clock: Clock,
        reload_timeout_s: float,
        stop_timeout_s: float,
        before_restart: Callable[[], None],
    ) -> None:
        self.supervisor: Supervisor | None = None
        self.read_at: float | None = None
        self._paths = paths
        self._socket = socket
        self._clock = clock
        self._reload_timeout_s = reload_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._before_restart = before_restart
        self._stack = AsyncExitStack()

    async def start(self, binary: Path, *, take_over: Path | None = None) -> None:
        """Start it; whether there is a worker, :meth:`awake` knows.

        ``take_over``: the command socket of an HAProxy that hands its listening sockets over. It goes on serving, too.

        Raises:
            Misconfigured: the program cannot be run.
        """
        # Where that one is gone by then, HAProxy says so and binds for itself; its own reloads leave this away.
        from_another = ("-x", take_over) if take_over is not None else ()
        master = f"{self._paths.master_socket},mode,600"
        command = (binary, "-W", "-S", master, "-f", self._paths.config, *from_another)
        supervisor = Supervisor(
            command, clock=self._clock, stop_timeout_s=self._stop_timeout_s, before_restart=self._before_restart
        )
        self.supervisor = await self._stack.enter_async_context(supervisor)

    async def awake(self) -> None:
        """Return when there is a worker.

        Raises:
            Unavailable: HAProxy does not start, or shows none in time.
        """
        try:
            async with asyncio.timeout(self._reload_timeout_s):
                while not await self._workers():
                    if self.supervisor is not None and self.supervisor.restarts > 2:
                        raise Unavailable(f"HAProxy does not start: {self._last_words()}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Unavailable(f"HAProxy shows no worker after {self._reload_timeout_s:g} s") from None

    async def reload(self) -> None:
        """Have the file read anew, and return when there is a worker of it.

        Raises:
            Unavailable: HAProxy refused, or its new worker did not come.
        """
        before = await self.processes()
        old = {p.pid for p in before}
        self.note_reading()
        answer = await self._socket.reload(timeout_s=self._reload_timeout_s) if before else ""
        if "Success=0" in answer:
            raise Unavailable(f"HAProxy's reload failed: {binaries.alerts(answer) or self._last_words()}")
        reloads = max((p.reloads for p in before if p.type == "master"), default=0)
        await self._renewed(old, reloads)

    def note_reading(self) -> None:
        """Remember that it reads its file now."""
        self.read_at = self._clock.monotonic()

    async def end(self) -> None:
        """End it with its workers, unless it was not started."""
        self.supervisor = None
        await self._stack.aclose()

    async def processes(self) -> list[Process]:
        """Return what it says it runs, itself first; nothing when nobody answers."""
        try:
            return await self._socket.processes()
        except (Unavailable, Rejected):
            return []

    async def _renewed(self, old: set[int], reloads: int) -> None:
        """Return when there is a worker that was not there before."""
        gone_by: float | None = None
        try:
            async with asyncio.timeout(self._reload_timeout_s):
                while True:
                    now = await self.processes()
                    if any(p.type == "worker" and not p.is_old and p.pid not in old for p in now):
                        return
                    if any(p.type == "master" and p.reloads > reloads for p in now):
                        gone_by = gone_by or self._clock.monotonic() + _GRACE_S
                        if self._clock.monotonic() > gone_by:
                            break
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Unavailable(f"HAProxy shows no new worker {self._reload_timeout_s:g} s after the reload") from None
        raise Unavailable(f"HAProxy's new worker did not start: {self._last_words()}")

    async def _workers(self) -> list[Process]:
        return [p for p in await self.processes() if p.type == "worker" and not p.is_old]

    def _last_words(self) -> str:
        if self.supervisor is None:
            return "HAProxy does not run"
        return binaries.alerts("\n".join(list(self.supervisor.lines)[-10:])) or "it says nothing"
