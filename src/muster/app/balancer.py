"""One balancer from its settings to the end of its HAProxy."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from muster.app.offers import modelled
from muster.app.settings import cluster_store, loaded
from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy.binary import Binary
from muster.balancer.haproxy.engine import HAProxyEngine
from muster.balancer.haproxy.journal import Journal
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.haproxy.sockets import RuntimeSocket
from muster.balancer.model import Balancing
from muster.balancer.steering import Steering, note_refusal
from muster.balancer.watch import Watch, Watched, is_needed, watched
from muster.cluster.file import Balancer, ClusterFile
from muster.cluster.life import Life, Lives, lives_in
from muster.cluster.observations import Observation, told
from muster.cluster.steward import Steward
from muster.kernel import log
from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.kernel.files import fingerprint, make_directory, read_bounded, write_atomically
from muster.pki.context import Credentials
from muster.store.engine import Store

_log = log.logger("app")

_BEAT_S = 1.0
_LAST_BEAT_S = 2.0
# What was refused may be refused for a reason that passes: a port still taken, a full disk, a slow new worker.
_FIRST_WAIT_S = 5.0
_LONGEST_WAIT_S = 60.0
# The cluster file in force, kept beside HAProxy's configuration: whoever restarts on a bad one needs the good one.
_ACCEPTED = "cluster.accepted.yaml"


@dataclass(frozen=True)
class BalancerOptions:
    """The settings only a balancer's host knows.

    Attributes:
        run: directory of HAProxy's files and sockets.
        name: which balancer of the cluster file; None: its only one.
        haproxy: the executable; None: the one on PATH, else the wheel's.
        take_over: the command socket of an HAProxy that is not ours, whose listening sockets the first start takes over.
    """

    cluster_file: Path
    pki: Path
    run: Path
    name: str | None = None
    haproxy: Path | None = None
    take_over: Path | None = None


async def balance(options: BalancerOptions) -> None:
    """Run HAProxy until a signal: TERM and INT stop it, HUP looks at the cluster file at once and undoes edits by hand.

    A changed cluster file, check certificate or CA is put in force without losing a connection; what cannot be used is
    refused and the old one stays, also over a restart. HAProxy serves whether the store answers or not.

    Raises:
        InvalidSettings: the cluster file has problems, and no earlier one was ever in force here.
        Conflict: another balancer runs in the run directory; it and its HAProxy are left alone.
        MusterError: as :meth:`HAProxyEngine.apply`, of the first configuration.
    """
    loop = asyncio.get_running_loop()
    stop, wake = asyncio.Event(), asyncio.Event()

    def stopping() -> None:
        stop.set()
        wake.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping)
    log.follow_loop(loop)
    look = asyncio.Event()

    def looking() -> None:
        look.set()
        wake.set()

    loop.add_signal_handler(signal.SIGHUP, looking)
    try:
        make_directory(options.run, mode=0o700)
    except Unavailable as e:
        raise Unavailable(f"{e}; --run or MUSTER_RUN names another one, where muster status has to look, too") from e
    with _alone(options.run):
        await _run(options, stop, wake, look)


async def _run(options: BalancerOptions, stop: asyncio.Event, wake: asyncio.Event, look: asyncio.Event) -> None:
    cluster, refused, read = _usable(options)
    # Before an HAProxy of an earlier run is taken over: a name that is no balancer's must not cost it.
    cluster.balancer(options.name)
    async with cluster_store(cluster) as store:
        paths = RuntimePaths(options.run, (options.pki / "balancer").absolute())
        found = await binaries.probed(options.haproxy or binaries.found())
        with Journal(options.run) as journal:
            async with HAProxyEngine(paths, binary=found.path, take_over=options.take_over) as engine:
                process = BalancerProcess(options, cluster, read, store, paths, found, engine, journal)
                await process.open(refused)
                _log.info("Balancer runs", haproxy=engine.version, pid=engine.pid, generation=engine.generation)
                while not stop.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_BEAT_S):
                            await wake.wait()
                    wake.clear()
                    if not stop.is_set():
                        # Cleared before the beat: a HUP that comes meanwhile is for the next one.
                        asked = look.is_set()
                        look.clear()
                        await process.beat(asked=asked)
                await process.close()
        await process.leave()


@contextlib.contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Hold the run directory: a second balancer would end the HAProxy of the first, as one left behind by an earlier run."""
    descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Another muster balance runs in {run}; systemctl reload muster-balancer has it look at the cluster "
                "file now, --run gives this one a directory of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)


def _usable(options: BalancerOptions) -> tuple[ClusterFile, str, tuple[object, ...]]:
    """Return the cluster file, or the one that was in force last with why the present one cannot be used.

    With it comes what tells the file as it was read from a later one: seconds may pass until the first beat.
    """
    read = fingerprint(options.cluster_file)
    try:
        return loaded(options.cluster_file), "", read
    except MusterError as e:
        try:
            cluster = loaded(options.run / _ACCEPTED)
        except MusterError:
            raise e from None
        _log.critical("The cluster file cannot be used; the one in force last is", why=str(e))
        return cluster, str(e), read


@dataclass(frozen=True)
class _Refused:
    """A configuration that is not in force, and when it is tried again (``time.monotonic``).

    Attributes:
        anew: whether a file that it names changed, too.
    """

    why: str
    anew: bool
    wait_s: float
    again_at: float


@dataclass
class BalancerProcess:
    """One balancer: HAProxy, and the beats that steer it. Use :func:`balance`.

    Attributes:
        read: the fingerprint of the cluster file, taken before ``cluster`` was read from it.
    """

    options: BalancerOptions
    cluster: ClusterFile
    read: tuple[object, ...]
    store: Store
    paths: RuntimePaths
    binary: Binary
    engine: HAProxyEngine
    journal: Journal
    _lives: dict[str, Life] | None = None
    _known: tuple[object, ...] = ()
    _removed: frozenset[str] = frozenset()
    # Of those, who is not in the configuration in force.
    _left_out: frozenset[str] = frozenset()
    _modelled: tuple[ClusterFile, frozenset[str], Balancing, tuple[Watched, ...]] | None = None
    _refused: _Refused | None = None
    _store_beat: asyncio.Task[None] | None = None
    _following: asyncio.Task[None] | None = None
    _asked: bool = False
    _seen: Observation | None = None
    _steered_by: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.which = self.cluster.balancer(self.options.name)
        self.steering = Steering(self.options.run, self.engine.remember)
        self.watch = Watch(RuntimeSocket(self.paths.runtime_socket), lambda: self.engine.is_changing)
        self.steward = Steward(self.store, f"balancer {self.which.name} {os.getpid()}.{time.time_ns()}")

    async def open(self, refused: str = "") -> None:
        """Put the first configuration in force, or go on with the one of the last run.

        Args:
            refused: why ``cluster`` is not the cluster file's present content; empty when it is.

        Raises:
            MusterError: as :meth:`HAProxyEngine.apply`, when no earlier configuration is served.
        """
        self._known = (self.read, *self._files_on_disk()[1:])
        # Without the store nobody is known to be removed, and HAProxy serves; silence is a way to be without it.
        with contextlib.suppress(MusterError, TimeoutError):
            async with asyncio.timeout(_LAST_BEAT_S):
                self._lives = await Lives(self.store).all()
        self._removed = self._gone()
        try:
            await self.engine.apply(self._rendered(self.cluster, self.which))
            self._left_out = self._removed
            if not refused:
                self._remember_file()
        except MusterError as e:
            if self.engine.pid is None:
                # Nobody tells the store about a balancer that did not start.
                self._note(str(e))
                raise
            _log.critical("The configuration of the last run stays in force", why=str(e))
            refused = refused or str(e)
            with contextlib.suppress(MusterError):
                # HAProxy has the servers of that file, and only those can be steered.
                self.cluster = loaded(self.options.run / _ACCEPTED)
                self.which = self.cluster.balancer(self.options.name)
        if refused:
            self._refused = _Refused(refused, False, _FIRST_WAIT_S, time.monotonic() + _FIRST_WAIT_S)
        self._note(refused)

    async def close(self) -> None:
        await self.watch.close()
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following], timeout=_LAST_BEAT_S)
        if self._store_beat is not None:
            await asyncio.wait([self._store_beat], timeout=_LAST_BEAT_S)
            self._store_beat.cancel()
        with contextlib.suppress(MusterError, TimeoutError):
            async with asyncio.timeout(_LAST_BEAT_S):
                await self.steward.resign()

    async def leave(self) -> None:
        """Let the store know that this HAProxy has ended and holds no connection, so that nobody waits for it."""
        with contextlib.suppress(MusterError, TimeoutError):
            async with asyncio.timeout(_LAST_BEAT_S), self.store.write("observation-ended") as uow:
                await told(uow, Observation(self.which.name))

    async def beat(self, *, asked: bool = False) -> None:
        """Follow the files, steer HAProxy, and let the store know; never raises.

        ``asked`` also tries again what was refused, and undoes edits by hand.
        """
        self._asked = self._asked or asked
        # A reload waits for the one before, and for its worker; members must not be steered later for that, nor the store
        # take this balancer for silent.
        if self._following is None or self._following.done():
            self._following = asyncio.create_task(self._followed(), name="balancer's files")
            await asyncio.wait([self._following], timeout=_BEAT_S / 2)
        await self._watch()
        seen = await self._steered()
        # A store that hangs must not hold up the steering.
        if self._store_beat is None or self._store_beat.done():
            self._store_beat = asyncio.create_task(self._beat_in_store(seen), name="balancer's store beat")

    async def _followed(self) -> None:
        asked, self._asked = self._asked, False
        try:
            await self._follow(asked=asked)
            if asked:
                await self.engine.mend()
        except MusterError as e:
            _log.error("What was changed by hand could not be put back", why=str(e))
        except Exception:  # noqa: BLE001 - boundary: a beat with a bug must not end the balancer
            _log.exception("Following the files broke")

    async def _watch(self) -> None:
        """Have members watched where HAProxy alone would find too late that one hangs."""
        shown = Credentials(self.paths.ca, self.paths.check, None, self.cluster.foreman.ca_file)
        try:
            await self.watch.follow(self._in_force()[1], shown, self._known[1:])
        except MusterError as e:
            _log.debug("Members are not watched anew", why=str(e))

    async def _steered(self) -> Observation:
        versions = {name: life.version for name, life in (self._lives or {}).items()}
        if self.engine.is_changing and self._seen is not None:
            # Between two workers there is nobody to tell; what was seen last is told again, unless it was before a decision.
            if versions == self._steered_by:
                return self._seen
            return replace(self._seen, blind=True, trouble="HAProxy is being reloaded")
        self._steered_by = versions
        self.steering.gate(self.engine.newcomers())
        try:
            self._seen = await self.steering.beat(
                self.which.name, self._in_force()[0], self._lives, engine=f"HAProxy {self.engine.version}",
                generation=self.engine.generation or "", trouble=self._trouble(),
                totals=self.journal.totals,
            )  # fmt: skip
        except MusterError as e:
            _log.warning("HAProxy was not steered", why=str(e))
            self._seen = Observation(self.which.name, trouble=str(e), blind=True)
        return self._seen

    async def _beat_in_store(self, seen: Observation) -> None:
        try:
            async with self.store.write("observation") as uow:
                await told(uow, replace(seen, refused=self._refused.why if self._refused is not None else ""))
                lives = await lives_in(uow)
            self._lives = lives
            await self.steward.beat(self.cluster)
        except Unavailable as e:
            # Without the store nothing new is decided, and what was decided holds.
            _log.debug("Beat without store", why=str(e))
        except MusterError as e:
            _log.error("Beat failed", why=str(e))
        except Exception:  # noqa: BLE001 - boundary: a beat with a bug must not end the balancer
            _log.exception("Beat broke")

    async def _follow(self, *, asked: bool) -> None:
        now, gone, refused = self._files_on_disk(), self._gone(), self._refused
        changed = now != self._known or gone != self._removed
        due = refused is not None and (asked or time.monotonic() >= refused.again_at)
        if not (changed or due):
            return
        anew = self._known[1:] != now[1:] or (refused is not None and refused.anew)
        self._known, self._removed = now, gone
        try:
            cluster = loaded(self.options.cluster_file)
            which = cluster.balancer(self.options.name)
            await self.engine.apply(self._rendered(cluster, which), anew=anew)
            self.cluster, self.which, self._left_out = cluster, which, gone
            self._remember_file()
        except MusterError as e:
            wait_s = _FIRST_WAIT_S if changed or refused is None else min(2 * refused.wait_s, _LONGEST_WAIT_S)
            if changed or refused is None or refused.why != str(e):
                _log.error("New configuration refused; the old one stays in force", why=str(e), again_in_s=wait_s)
            self._refused = _Refused(str(e), anew, wait_s, time.monotonic() + wait_s)
        else:
            self._refused = None
        self._note(self._refused.why if self._refused is not None else "")

    def _note(self, why: str) -> None:
        """Keep on this host what the doctor must know also while the store is down, or this process."""
        with contextlib.suppress(MusterError, OSError):
            note_refusal(self.options.run, self.which.name, why)

    def _trouble(self) -> str:
        if self._refused is not None:
            return self._refused.why
        if self.engine.last_error:
            return self.engine.last_error
        return "haproxy.cfg was changed by hand; HUP puts it back" if self.engine.is_edited else ""

    def _gone(self) -> frozenset[str]:
        lives = self._lives or {}
        return frozenset(n for n, life in lives.items() if life.state == "removed")

    def _remember_file(self) -> None:
        with contextlib.suppress(MusterError, OSError):
            text = self.options.cluster_file.read_bytes()
            # What changed since it was read is refused or in force with the next beat, and remembered then.
            if self._files_on_disk() == self._known:
                write_atomically(self.options.run / _ACCEPTED, text, mode=0o600)

    def _in_force(self) -> tuple[Balancing, tuple[Watched, ...]]:
        """Return the model in force and whom to watch, made anew only when it changes: a large one takes milliseconds."""
        known = self._modelled
        if known is None or known[0] is not self.cluster or known[1] != self._left_out:
            balancing = modelled(self.cluster.without(self._left_out))
            members = watched(balancing, self.which) if is_needed(balancing) else ()
            known = self._modelled = (self.cluster, self._left_out, balancing, members)
        return known[2], known[3]

    def _rendered(self, cluster: ClusterFile, which: Balancer) -> str:
        self._join_issuers(cluster)
        return rendered(
            modelled(cluster.without(self._removed)),
            which=which,
            runtime=self.paths,
            version=self.binary.version,
            dual_stack=binaries.has_ipv6(),
        )

    def _join_issuers(self, cluster: ClusterFile) -> None:
        """Write the one file of those who may have issued Ruby members' certificates: HAProxy takes no two.

        Raises:
            Misconfigured: one of them cannot be read.
        """
        site = cluster.foreman.ca_file
        if site is None or all(m.kind == "muster" for m in cluster.members):
            return
        parts = [read_bounded(f, what="CA file").strip() + b"\n" for f in (self.paths.ca, site)]
        if not self.paths.site_ca.exists() or self.paths.site_ca.read_bytes() != b"".join(parts):
            write_atomically(self.paths.site_ca, b"".join(parts), mode=0o644)

    def _files_on_disk(self) -> tuple[object, ...]:
        site = self.cluster.foreman.ca_file
        return (
            fingerprint(self.options.cluster_file),
            fingerprint(self.paths.check),
            fingerprint(self.paths.ca),
            fingerprint(site) if site is not None else (),
        )
