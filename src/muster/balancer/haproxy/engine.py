"""HAProxy, supervised and steered: one configuration is in force, the one before it is never far.

A change goes: ``haproxy -c``, descriptor arithmetic, server state to a file, rename, reload, look for the new worker,
connect to every listener. Whatever fails, the configuration that worked is put back and the failure raised.

Source: docs/facts/balancer.md §1.5.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy import descriptors, handover, leftover, listeners
from muster.balancer.haproxy.additions import Addition, additions, reweighed
from muster.balancer.haproxy.binary import Binary
from muster.balancer.haproxy.layout import Layout
from muster.balancer.haproxy.master import Master
from muster.balancer.haproxy.render import RuntimePaths, generation
from muster.balancer.haproxy.sockets import MasterSocket, RuntimeSocket
from muster.balancer.haproxy.states import ServerStates
from muster.balancer.haproxy.version import HAProxyVersion
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically
from muster.kernel.log import logger

log = logger("balancer")

_REMEMBER_EVERY_S = 2.0
# 2.4 and 2.5 take servers without checks only.
_ADDS_CHECKED_SERVERS = HAProxyVersion(2, 6, 0)


@dataclass(frozen=True, slots=True)
class _Outcome:
    ticket: int
    error: MusterError | None


class HAProxyEngine:
    """One HAProxy, alive for as long as its ``async with`` block.

    On entry a configuration left by an earlier run is served at once, so that the data plane never waits for anybody.

    Attributes:
        runtime: the worker's command socket.
        master: the master's command socket.
        last_error: why the last start or apply failed; None when it did not.
        is_changing: whether one worker is about to follow another, so that what is said to either may be lost.

    Concurrency: any method may be called by several tasks; applies take turns.
    """

    def __init__(
        self,
        paths: RuntimePaths,
        *,
        binary: Path | None = None,
        clock: Clock | None = None,
        min_interval_s: float = 5.0,
        reload_timeout_s: float = 10.0,
        stop_timeout_s: float = 5.0,
        descriptor_limit: int | None = None,
        take_over: Path | None = None,
    ) -> None:
        self.paths = paths
        self.runtime = RuntimeSocket(paths.runtime_socket)
        self.master = MasterSocket(paths.master_socket)
        self.last_error: str | None = None
        self.is_changing = False
        self._path = binary
        self._clock = clock or SystemClock()
        self._min_interval_s = min_interval_s
        self._descriptor_limit = descriptor_limit
        self._take_over = take_over
        self._binary: Binary | None = None
        self._haproxy = Master(
            paths,
            self.master,
            clock=self._clock,
            reload_timeout_s=reload_timeout_s,
            stop_timeout_s=stop_timeout_s,
            before_restart=self._before_restart,
        )
        self._states = ServerStates(paths.state, self.runtime)
        self._remembering: asyncio.Task[None] | None = None
        self._gated: set[tuple[str, str]] = set()
        self._good: str | None = None
        self._turn = asyncio.Lock()
        self._tickets = 0
        self._latest: tuple[int, str] = (0, "")
        self._anew = False
        self._outcome = _Outcome(0, None)

    @property
    def pid(self) -> int | None:
        """The master process, None when HAProxy does not run."""
        return self._haproxy.supervisor.pid if self._haproxy.supervisor else None

    @property
    def version(self) -> str | None:
        """HAProxy's version, None before entry."""
        return str(self._binary.version) if self._binary else None

    @property
    def generation(self) -> str | None:
        """The hash of the configuration in force, None without one."""
        return generation(self._good) if self._good else None

    @property
    def restarts(self) -> int:
        """How often HAProxy died and was started again."""
        return self._haproxy.supervisor.restarts if self._haproxy.supervisor else 0

    def newcomers(self) -> set[tuple[str, str]]:
        """Return backend and name of the servers added since the last call: they are drained until somebody says ready."""
        found, self._gated = self._gated, set()
        return found

    async def __aenter__(self) -> Self:
        make_directory(self.paths.run, mode=0o700)
        self._binary = await binaries.probed(self._path or binaries.found())
        await leftover.retire(await self._haproxy.processes(), self.paths.config)
        self._states.begin()
        if self.paths.config.exists():
            await self._resume()
        self._remembering = asyncio.create_task(self._remember(), name="haproxy state")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._remembering is not None:
            self._remembering.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._remembering
        if self._good is not None:
            with contextlib.suppress(MusterError):
                await self._states.save(Layout.of(self._good), self._in_force())
        await self._haproxy.end()

    async def apply(self, text: str, *, anew: bool = False) -> None:
        """Put a configuration in force, or leave the present one and say why.

        ``anew`` also reloads when the text is the one in force: a file it names, such as the check certificate, changed.

        At most one reload happens per ``min_interval_s``; of several texts that wait, the last one wins and every
        caller gets its outcome.

        Raises:
            Rejected: HAProxy refuses the text; nothing was changed.
            Misconfigured: it needs more file descriptors than HAProxy may open; nothing was changed.
            Unavailable: the new worker did not come up; the configuration before is in force again.
        """
        self._tickets += 1
        ticket = self._tickets
        await self._vetted(text, ticket)
        self._latest = max(self._latest, (ticket, text))
        self._anew = self._anew or anew
        async with self._turn:
            if self._outcome.ticket < ticket:
                if not self._can_add(self._latest[1]) and not self._weights(self._latest[1]):
                    await self._wait_for_interval()
                await self._settle(*self._latest)
            if self._outcome.error is not None:
                raise self._outcome.error

    async def _settle(self, ticket: int, text: str) -> None:
        try:
            await self._put_in_force(text)
        except MusterError as e:
            self.last_error = str(e)
            self._outcome = _Outcome(ticket, e)
            log.warning("The balancer's configuration was not changed", reason=str(e), generation=self.generation)
        else:
            self.last_error = None
            self._outcome = _Outcome(ticket, None)

    async def _put_in_force(self, text: str) -> None:
        anew, self._anew = self._anew, False
        if text == self._good and self.pid is not None and not anew:
            return
        layout = Layout.of(text)
        if not anew and (await self._weighed(text) or (self._can_add(text) and await self._added(text))):
            return
        self.is_changing = True
        try:
            await self._replaced(text, layout)
        finally:
            self.is_changing = False

    async def _replaced(self, text: str, layout: Layout) -> None:
        newcomers = self._new_in_known_backends(layout)
        await self._states.save(layout, self._in_force(), newcomers)
        write_atomically(self.paths.config, text, mode=0o600)
        try:
            if self._haproxy.supervisor is None:
                await self._started(layout)
            else:
                await self._reloaded(layout)
        except MusterError:
            await self._restore()
            raise
        self._good = text
        self._gated |= newcomers
        log.info("The balancer's configuration is in force", generation=self.generation, servers=len(layout.servers))

    def _weights(self, text: str) -> Mapping[tuple[str, str], int]:
        """Return the new weights when nothing else is new."""
        return reweighed(self._good, text) if self._good is not None and self.pid is not None else {}

    async def _weighed(self, text: str) -> bool:
        """Set new weights without a reload; false when something else changed, too, or HAProxy refuses."""
        weights = self._weights(text)
        if not weights:
            return False
        try:
            for (backend, server), weight in weights.items():
                await self.runtime.weight(backend, server, weight)
            write_atomically(self.paths.config, text, mode=0o600)
        except MusterError as e:
            log.warning("HAProxy takes new weights only by a reload", reason=str(e))
            return False
        self._good = text
        log.info("Weights were changed without a reload", generation=self.generation, servers=len(weights))
        return True

    def _can_add(self, text: str) -> bool:
        """Whether only servers are new, and this HAProxy takes servers with checks while it runs."""
        if self._good is None or self.pid is None or self._opened().version < _ADDS_CHECKED_SERVERS:
            return False
        return bool(additions(self._good, text))

    async def _added(self, text: str) -> bool:
        """Add the new servers without a reload, drained; false, and nothing is changed, when HAProxy refuses one."""
        wanted = additions(self._good or "", text)
        done: list[Addition] = []
        try:
            for one in wanted:
                done.append(one)
                for command in one.commands:
                    await self.runtime.add(command)
            write_atomically(self.paths.config, text, mode=0o600)
        except MusterError as e:
            log.warning("HAProxy takes a new server only by a reload", reason=str(e))
            for one in reversed(done):
                for command in one.undoing:
                    with contextlib.suppress(MusterError):
                        await self.runtime.ask(command)
            return False
        self._good = text
        self._gated |= {(a.backend, a.server) for a in wanted}
        log.info("Servers were added without a reload", generation=self.generation, servers=len(wanted))
        return True

    def _new_in_known_backends(self, layout: Layout) -> set[tuple[str, str]]:
        if self._good is None:
            return set()
        before = Layout.of(self._good).servers
        backends = {backend for backend, _ in before}
        return {place for place in layout.servers if place not in before and place[0] in backends}

    async def _vetted(self, text: str, ticket: int) -> None:
        layout = Layout.of(text)
        complaint = descriptors.complaint_of(layout, self._descriptor_limit or descriptors.limit())
        if complaint is not None:
            raise complaint
        in_force = self._in_force()
        ours = set(in_force.listeners) if in_force is not None else set()
        if (other := self._handing_over()) is not None:
            ours |= await asyncio.to_thread(handover.offered, other)
        listeners.refuse_taken(layout, ours)
        candidate = self.paths.run / f"candidate-{ticket}.cfg"
        write_atomically(candidate, text, mode=0o600)
        try:
            await binaries.checked(self._opened().path, candidate)
        finally:
            candidate.unlink(missing_ok=True)

    @property
    def is_edited(self) -> bool:
        """Whether somebody changed the configuration file under HAProxy."""
        if self._good is None:
            return False
        try:
            return self.paths.config.read_text("utf-8", "replace") != self._good
        except OSError:
            return True

    async def mend(self) -> None:
        """Put the configuration in force back over a file somebody changed, and reload in case HAProxy read that one.

        Raises:
            Unavailable: as :meth:`apply`.
        """
        if self._good is not None and self.is_edited:
            log.warning("The balancer's configuration was changed by hand; it is put back", generation=self.generation)
            await self.apply(self._good, anew=True)

    def _before_restart(self) -> None:
        """Start what was in force, not what somebody wrote into the file since."""
        if self._good is not None and self.is_edited:
            with contextlib.suppress(MusterError):
                write_atomically(self.paths.config, self._good, mode=0o600)

    async def _wait_for_interval(self) -> None:
        read_at = self._haproxy.read_at
        if read_at is None or (self._latest[1] == self._good and not self._anew):
            return
        wait_s = read_at + self._min_interval_s - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    async def _started(self, layout: Layout) -> None:
        await self._haproxy.start(self._opened().path, take_over=self._handing_over())
        await self._haproxy.awake()
        await listeners.connect_to_each(layout)
        self._haproxy.note_reading()

    async def _reloaded(self, layout: Layout) -> None:
        await self._haproxy.reload()
        await listeners.connect_to_each(layout)

    async def _restore(self) -> None:
        """Serve the last configuration that worked, or none when there was none."""
        if self._good is None:
            self.paths.config.unlink(missing_ok=True)
            await self._haproxy.end()
            return
        write_atomically(self.paths.config, self._good, mode=0o600)
        try:
            await self._reloaded(Layout.of(self._good))
        except MusterError as e:
            log.critical("The configuration before could not be loaded again", reason=str(e))

    async def _resume(self) -> None:
        text = read_bounded(self.paths.config, what="balancer configuration").decode("utf-8", "replace")
        try:
            await self._vetted(text, 0)
        except MusterError as e:
            self.last_error = str(e)
            log.critical("The configuration of the last run is not used", reason=str(e))
            return
        with contextlib.suppress(MusterError):
            # Another version may have left more in it than may be restored.
            await self._states.save(Layout.of(text), self._in_force())
        await self._haproxy.start(self._opened().path, take_over=self._handing_over())
        self._good = text
        try:
            # Without a worker an apply would ask nobody to reload, then take the one that starts late for its own.
            await self._haproxy.awake()
        except Unavailable as e:
            self.last_error = str(e)
            log.critical("The configuration of the last run does not start", reason=str(e))
            return
        log.info("The configuration of the last run is served", generation=self.generation)

    async def _remember(self) -> None:
        """Keep drains and weights on disk, so that they outlive a HAProxy that is killed."""
        while True:
            await self._clock.sleep(_REMEMBER_EVERY_S)
            await self.remember()

    async def remember(self) -> bool:
        """Write down what servers were told, so that it outlives a HAProxy that is killed; return whether it does.

        Not while a configuration is put in force, which saves what servers were told itself.
        """
        if self._good is None or self._turn.locked():
            return False
        async with self._turn:
            return await self._states.remember(Layout.of(self._good))

    def _handing_over(self) -> Path | None:
        """Return the socket of the HAProxy whose ports are taken over, None once ours runs or that one is gone."""
        socket = self._take_over
        return socket if socket is not None and self._haproxy.supervisor is None and socket.is_socket() else None

    def _in_force(self) -> Layout | None:
        return Layout.of(self._good) if self._good is not None else None

    def _opened(self) -> Binary:
        if self._binary is None:
            raise Unavailable("The engine is used outside its block")
        return self._binary
