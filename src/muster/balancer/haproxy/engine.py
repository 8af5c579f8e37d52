"""HAProxy, supervised and steered: one configuration is in force, the one before it is never far.

A change goes: ``haproxy -c``, descriptor arithmetic, server state to a file, rename, reload, look for the new worker,
connect to every listener. Whatever fails, the configuration that worked is put back and the failure raised.

Source: docs/facts/balancer.md §1.5.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy import descriptors
from muster.balancer.haproxy.additions import Addition, additions, reweighed
from muster.balancer.haproxy.binary import Binary
from muster.balancer.haproxy.layout import Layout, gated_state, kept_state, steered
from muster.balancer.haproxy.render import RuntimePaths, generation
from muster.balancer.haproxy.sockets import MasterSocket, Process, RuntimeSocket
from muster.balancer.haproxy.supervisor import Supervisor
from muster.balancer.haproxy.version import HAProxyVersion
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.files import make_directory, read_bounded, write_atomically
from muster.kernel.log import logger

log = logger("balancer")

_POLL_S = 0.05
_REMEMBER_EVERY_S = 2.0
# After the master has read the file again, a worker that is not there by then will not come.
_GRACE_S = 1.5
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
    ) -> None:
        self.paths = paths
        self.runtime = RuntimeSocket(paths.runtime_socket)
        self.master = MasterSocket(paths.master_socket)
        self.last_error: str | None = None
        self.is_changing = False
        self._path = binary
        self._clock = clock or SystemClock()
        self._min_interval_s = min_interval_s
        self._reload_timeout_s = reload_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._descriptor_limit = descriptor_limit
        self._binary: Binary | None = None
        self._supervisor: Supervisor | None = None
        self._stack = AsyncExitStack()
        self._remembering: asyncio.Task[None] | None = None
        self._gated: set[tuple[str, str]] = set()
        self._good: str | None = None
        self._reloaded_at: float | None = None
        self._turn = asyncio.Lock()
        self._tickets = 0
        self._latest: tuple[int, str] = (0, "")
        self._anew = False
        self._outcome = _Outcome(0, None)

    @property
    def pid(self) -> int | None:
        """The master process, None when HAProxy does not run."""
        return self._supervisor.pid if self._supervisor else None

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
        return self._supervisor.restarts if self._supervisor else 0

    def newcomers(self) -> set[tuple[str, str]]:
        """Return backend and name of the servers added since the last call: they are drained until somebody says ready."""
        found, self._gated = self._gated, set()
        return found

    async def __aenter__(self) -> Self:
        make_directory(self.paths.run, mode=0o700)
        self._binary = await binaries.probed(self._path or binaries.found())
        await self._retire_leftover()
        if not self.paths.state.exists():
            write_atomically(self.paths.state, "1\n", mode=0o600)
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
                await self._save_state(Layout.of(self._good))
        await self._stack.aclose()

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
        await self._save_state(layout, newcomers)
        write_atomically(self.paths.config, text, mode=0o600)
        try:
            if self._supervisor is None:
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
        self._refuse_taken(layout)
        candidate = self.paths.run / f"candidate-{ticket}.cfg"
        write_atomically(candidate, text, mode=0o600)
        try:
            await binaries.checked(self._opened().path, candidate)
        finally:
            candidate.unlink(missing_ok=True)

    def _refuse_taken(self, layout: Layout) -> None:
        """Refuse a listener somebody else has, before HAProxy tries it.

        ``haproxy -c`` binds nothing. A reload that finds a port taken tries for two seconds, with the listeners of the
        worker in force closed: 61 of 640 calls failed when it was measured.
        """
        ours = set(Layout.of(self._good).listeners) if self._good is not None else set()
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
        if self._reloaded_at is None or (self._latest[1] == self._good and not self._anew):
            return
        wait_s = self._reloaded_at + self._min_interval_s - self._clock.monotonic()
        if wait_s > 0:
            await self._clock.sleep(wait_s)

    async def _started(self, layout: Layout) -> None:
        await self._awake(await self._supervised())
        await self._accepting(layout)
        self._reloaded_at = self._clock.monotonic()

    async def _awake(self, supervisor: Supervisor) -> None:
        """Return when there is a worker."""
        try:
            async with asyncio.timeout(self._reload_timeout_s):
                while not await self._workers():
                    if supervisor.restarts > 2:
                        raise Unavailable(f"HAProxy does not start: {_words(supervisor)}")
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise Unavailable(f"HAProxy shows no worker after {self._reload_timeout_s:g} s") from None

    async def _supervised(self) -> Supervisor:
        command = (self._opened().path, "-W", "-S", f"{self.paths.master_socket},mode,600", "-f", self.paths.config)
        supervisor = Supervisor(
            command, clock=self._clock, stop_timeout_s=self._stop_timeout_s, before_restart=self._before_restart
        )
        self._supervisor = await self._stack.enter_async_context(supervisor)
        return supervisor

    async def _reloaded(self, layout: Layout) -> None:
        before = await self._processes()
        old = {p.pid for p in before}
        self._reloaded_at = self._clock.monotonic()
        answer = await self.master.reload(timeout_s=self._reload_timeout_s) if before else ""
        if "Success=0" in answer:
            raise Unavailable(f"HAProxy's reload failed: {binaries.alerts(answer) or self._last_words()}")
        reloads = max((p.reloads for p in before if p.type == "master"), default=0)
        await self._renewed(old, reloads)
        await self._accepting(layout)

    async def _renewed(self, old: set[int], reloads: int) -> None:
        """Return when there is a worker that was not there before."""
        gone_by: float | None = None
        try:
            async with asyncio.timeout(self._reload_timeout_s):
                while True:
                    now = await self._processes()
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

    async def _accepting(self, layout: Layout) -> None:
        """Connect once to every listener."""
        for host, port in layout.listeners:
            target = host or "127.0.0.1"
            try:
                async with asyncio.timeout(2.0):
                    _, writer = await asyncio.open_connection(target, port)
            except (OSError, TimeoutError) as e:
                raise Unavailable(f"HAProxy runs but {target} port {port} takes no connection: {e}") from e
            writer.close()

    async def _restore(self) -> None:
        """Serve the last configuration that worked, or none when there was none."""
        if self._good is None:
            self.paths.config.unlink(missing_ok=True)
            self._supervisor = None
            await self._stack.aclose()
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
            await self._save_state(Layout.of(text))
        supervisor = await self._supervised()
        self._good = text
        try:
            # Without a worker an apply would ask nobody to reload, then take the one that starts late for its own.
            await self._awake(supervisor)
        except Unavailable as e:
            self.last_error = str(e)
            log.critical("The configuration of the last run does not start", reason=str(e))
            return
        log.info("The configuration of the last run is served", generation=self.generation)

    async def _retire_leftover(self) -> None:
        """End an HAProxy that an earlier run of ours left behind: two on one port would share its connections."""
        for process in await self._processes():
            if process.type == "master" and _runs(process.pid, self.paths.config):
                log.warning("An HAProxy of an earlier run is stopped", pid=process.pid)
                await _ended(process.pid)

    async def _remember(self) -> None:
        """Keep drains and weights on disk, so that they outlive a HAProxy that is killed."""
        known: frozenset[tuple[str, ...]] | None = None
        while True:
            await self._clock.sleep(_REMEMBER_EVERY_S)
            if self._good is None or self._turn.locked():
                continue
            async with self._turn:
                # An apply that came meanwhile saved the state for another configuration.
                in_force = Layout.of(self._good)
                try:
                    state = await self.runtime.state_file_content()
                    if steered(state) != known:
                        write_atomically(self.paths.state, kept_state(state, in_force, in_force), mode=0o600)
                        known = steered(state)
                except MusterError as e:
                    log.debug("Server states were not saved", reason=str(e))

    async def _save_state(self, layout: Layout, newcomers: Iterable[tuple[str, str]] = ()) -> None:
        """Keep for a configuration what it does not say itself, of the HAProxy that runs, else of the one before it."""
        kept: str | None = None
        if self._good is not None:
            try:
                kept = kept_state(await self.runtime.state_file_content(), layout, Layout.of(self._good))
            except Unavailable as e:
                log.warning("Server states were not saved; those remembered last are used", reason=str(e))
        if kept is None:
            kept = kept_state(self._remembered(), layout)
        write_atomically(self.paths.state, gated_state(kept, layout, sorted(newcomers)), mode=0o600)

    def _remembered(self) -> str:
        try:
            return self.paths.state.read_text("utf-8", "replace")
        except OSError:
            return ""

    async def _processes(self) -> list[Process]:
        try:
            return await self.master.processes()
        except (Unavailable, Rejected):
            return []

    async def _workers(self) -> list[Process]:
        return [p for p in await self._processes() if p.type == "worker" and not p.is_old]

    def _last_words(self) -> str:
        return _words(self._supervisor) if self._supervisor else "HAProxy does not run"

    def _opened(self) -> Binary:
        if self._binary is None:
            raise Unavailable("The engine is used outside its block")
        return self._binary


def _words(supervisor: Supervisor) -> str:
    return binaries.alerts("\n".join(list(supervisor.lines)[-10:])) or "it says nothing"


def _runs(pid: int, config: Path) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return os.fsencode(config) in words


async def _ended(pid: int) -> None:
    for number, patience_s in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            os.killpg(pid, number)
            async with asyncio.timeout(patience_s):
                await _gone(pid)
        if not _is_running(pid):
            return


async def _gone(pid: int) -> None:
    # No child of ours: the kernel tells nobody but its parent, so it is looked for.
    while _is_running(pid):
        await asyncio.sleep(_POLL_S)


def _is_running(pid: int) -> bool:
    # An orphan's exit status may wait seconds for its new parent; its ports are free as soon as it is dead.
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
