"""A whole local cluster as `muster up` runs it: real members, a real HAProxy, gone with the block.

Everything is done to it as an operator would: through the command line, through files, or with signals to processes that
descend from the `muster up` started here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from bench.load import Operation, Target, keep_alive, new_connections, summary, tls_context
from sqlalchemy.engine import make_url

from muster.app.offers import modelled
from muster.app.settings import loaded, store_to_read
from muster.balancer.haproxy.sockets import MasterSocket, RuntimeSocket, ServerState
from muster.cli.credentials import credentials
from muster.cli.local.only_one import recorded
from muster.cli.local.plan import ADDRESS, DOMAIN, FOREMAN
from muster.cli.status.here import balancer_here
from muster.observed.status import said_in, status_of
from muster.observed.survey import surveyed
from tests.servers.client import Answer, Connection, Place, request, tls_client

T = TypeVar("T")

# How long anything may take that happens by itself; a limit for a broken cluster, no promise.
PATIENCE_S = 40.0
_COMMAND_S = 90.0
READY = "/health/ready?service=smartproxy"


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    def __str__(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass(frozen=True)
class Reply:
    """What a member or the balancer answered."""

    status: int
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Local:
    """A local cluster's directory and ways to reach what runs in it."""

    directory: Path
    ports: dict[str, int]
    members: int

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.yaml"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def run(self) -> Path:
        return self.directory / "run"

    @property
    def names(self) -> list[str]:
        return [f"proxy{n:02d}.{DOMAIN}" for n in range(1, self.members + 1)]

    @property
    def runtime(self) -> RuntimeSocket:
        return RuntimeSocket(self.run / "runtime.sock")

    @property
    def master(self) -> MasterSocket:
        return MasterSocket(self.run / "master.sock")

    def target(self, path: str = READY, member: str | None = None, **more: Any) -> Target:
        """Return the smartproxy service as Foreman reaches it: through the balancer, or on one member."""
        bundle = self.pki / "clients" / FOREMAN
        host = "127.0.0.1" if member is None else f"127.0.0.{11 + self.names.index(member)}"
        ca, cert, key = self.pki / "ca.pem", bundle / "cert.pem", bundle / "key.pem"
        return Target(host, self.ports["smartproxy"], ADDRESS, ca, cert, key, path, **more)

    async def ask(self, path: str, member: str | None = None, **more: Any) -> Reply:
        """Make one call of Foreman's on a connection of its own; raises OSError without an answer."""
        target = self.target(path, member, **more)
        return await asyncio.to_thread(_asked, target)

    def as_foreman(
        self, method: str, path: str, form: Mapping[str, str], *, member: int | None = None, timeout_s: float = 60
    ) -> Answer:
        """Call as Foreman does, with its certificate: through the balancer, or one member, by its place among them."""
        place = Place("127.0.0.1" if member is None else f"127.0.0.{11 + member}", self.ports["smartproxy"])
        bundle = self.pki / "clients" / FOREMAN
        tls = tls_client(self.pki / "ca.pem")
        tls.load_cert_chain(bundle / "cert.pem", bundle / "key.pem")
        headers = {"Connection": "close"} | ({"Content-Type": "application/x-www-form-urlencoded"} if form else {})
        with Connection(place, tls=tls, server_name=ADDRESS, timeout_s=timeout_s) as connection:
            connection.send(request(method, path, headers, urlencode(form).encode()))
            return connection.answer()

    async def cli(self, *arguments: str, cwd: Path | None = None) -> Said:
        """Run a command on this cluster and return what it said."""
        return await asyncio.to_thread(muster, *arguments, local=self, cwd=cwd)

    async def servers(self, backend: str = "smartproxy") -> dict[str, ServerState]:
        """Return what HAProxy thinks of each member."""
        return {s.server: s for s in await self.runtime.servers() if s.backend == backend}

    def log(self, name: str) -> str:
        return (self.directory / "log" / f"{name.split('.')[0]}.log").read_text("utf-8", "replace")

    @property
    def supervisor(self) -> int:
        """The process of `muster up`."""
        pid = recorded(self.directory)
        assert pid is not None, "no local cluster runs"
        return pid

    def pid_of(self, member: str) -> int | None:
        """Return the member's process, None while there is none."""
        return self._child(b"serve", member.encode())

    @property
    def balance_pid(self) -> int | None:
        """The process of `muster balance`."""
        return self._child(b"balance")

    def _child(self, *words: bytes) -> int | None:
        for pid in children(self.supervisor):
            if not is_running(pid):
                continue
            with contextlib.suppress(OSError):
                line = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                if all(word in line for word in words):
                    return pid
        return None

    async def is_steady(self) -> bool:
        """Whether every member serves, reports to the store and is up in the balancer."""
        with contextlib.suppress(OSError, Exception):
            states = await self.runtime.servers()
            mine = [s for s in states if not s.backend.endswith("_panic")]
            if not mine or not all(s.status == "UP" for s in mine):
                return False
            status = await self.status()
            return bool(status["ready"]) and all(
                m["said"] is not None and not m["said"]["silent"] and m["said"]["state"] == "ready"
                for m in status["members"]
            )
        return False

    async def serves(self, *features: str) -> bool:
        """Whether it is steady, and every member says by itself that it has these features."""
        if not await self.is_steady():
            return False
        told = [(await self.ask("/features", name)).json for name in self.names]
        return all({*features} <= {*has} for has in told)

    async def status(self) -> dict[str, Any]:
        """Return what `muster status --json` says, asked for in this process: one of its own costs half a second of CPU.

        For who waits and asks again and again; what the command itself says, its own tests look at.
        """
        cluster = await asyncio.to_thread(loaded, self.cluster_file)
        balancing = modelled(cluster)
        answers = await surveyed(balancing, credentials(self.pki, cluster))
        async with store_to_read(cluster) as store, store.read() as uow:
            says = await said_in(uow, cluster)
        return status_of(cluster, balancing, answers, says, await balancer_here(self.run))


@contextlib.contextmanager
def running(
    *,
    members: int = 3,
    store_url: str | None = None,
    options: Sequence[str] = (),
    directory: Path | None = None,
    more_ports: Sequence[str] = (),
    ports: Mapping[str, int] | None = None,
) -> Iterator[Local]:
    """Hold a cluster running in a directory of its own; on free ports, or, where nobody else is, on those given."""
    # Short: HAProxy's sockets are below it, and a socket's path has little room.
    home = directory or Path(tempfile.mkdtemp(prefix="muster-e2e-"))
    try:
        given = [*(_store_options(home, store_url) if store_url else []), *options]
        with _up(home, members, given, more_ports, ports) as local:
            yield local
    finally:
        if directory is None and not os.environ.get("MUSTER_E2E_KEEP"):
            shutil.rmtree(home, ignore_errors=True)


def _store_options(home: Path, url: str) -> list[str]:
    """The options for a store's URL; a password in it goes into a file, since arguments are everybody's to read."""
    password = make_url(url).password
    if password is None:
        return ["--store", url]
    file = home / "store.password"
    file.write_text(f"{password}\n")
    file.chmod(0o600)
    return ["--store", url.replace(f":{password}@", "@"), "--store-password-file", str(file)]


@contextlib.contextmanager
def _up(
    home: Path, members: int, options: Sequence[str], more_ports: Sequence[str], ports: Mapping[str, int] | None
) -> Iterator[Local]:
    local = Local(home, {}, members)
    said = Said(-1, "", "")
    for _ in range(3):
        # Others on this machine look for free ports, too: what was free may be taken a moment later.
        local = Local(home, dict(ports) if ports else free_ports(members, more_ports), members)
        said = muster("up", "--detach", "--dir", str(home), *up_options(local), *options)
        if said.code == 0 or "in use" not in str(said):
            break
    assert said.code == 0, said
    started = descendants(local.supervisor)
    try:
        yield local
    finally:
        if (pid := recorded(home)) is not None:
            started |= descendants(pid)
            os.kill(pid, signal.SIGCONT)
            said = muster("down", "--dir", str(home))
            assert said.code == 0, said
        end(started)


def up_options(local: Local) -> list[str]:
    """Return the options of `muster up` that give this cluster its size and ports."""
    return ["--members", str(local.members), *(w for k, v in local.ports.items() for w in ("--port", f"{k}={v}"))]


def muster(*arguments: str, local: Local | None = None, cwd: Path | None = None) -> Said:
    """Run `muster` with the arguments and return what it said."""
    done = subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_COMMAND_S,
        check=False,
        cwd=cwd,
        env=environment(local),
    )
    return Said(done.returncode, done.stdout, done.stderr)


def environment(local: Local | None = None) -> dict[str, str]:
    """Return the environment of a command: this one's, and where the cluster is."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MUSTER_")}
    if local is None:
        return {**kept, "COLUMNS": "400"}
    places = {"MUSTER_CLUSTER": local.cluster_file, "MUSTER_PKI": local.pki, "MUSTER_RUN": local.run}
    return {**kept, "COLUMNS": "400", **{k: str(v) for k, v in places.items()}}


def free_ports(members: int, more: Sequence[str] = ()) -> dict[str, int]:
    """Return ports that are free on every address of such a cluster, below those the kernel gives to clients."""
    found: list[int] = []
    addresses = ["127.0.0.1", *(f"127.0.0.{11 + i}" for i in range(members))]
    names = ("smartproxy", "anaconda", "metrics", *more)
    while len(found) < len(names):
        port = random.SystemRandom().randrange(11_000, 32_000)
        if port not in found and all(_is_free(a, port) for a in addresses):
            found.append(port)
    return dict(zip(names, found, strict=True))


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def descendants(pid: int) -> set[tuple[int, str]]:
    """Return the process and everything below it, each with its start time: a number alone may be given again."""
    found = {(pid, _started(pid))}
    for child in children(pid):
        found |= descendants(child)
    return {(p, s) for p, s in found if s}


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    """Return those that still run."""
    return {(p, s) for p, s in processes if _started(p) == s and is_running(p)}


def end(processes: set[tuple[int, str]]) -> None:
    """Kill what is left of processes started here."""
    for pid, _ in alive(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether the process exists and is more than an exit status nobody has read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def until(question: Callable[[], Awaitable[T]], what: str, patience_s: float = PATIENCE_S) -> T:
    """Ask again and again and return the first answer that is true."""
    limit = time.monotonic() + patience_s
    while not (answer := await question()):
        assert time.monotonic() < limit, f"after {patience_s:g} s still not: {what}"
        await asyncio.sleep(0.1)
    return answer


def shown(what: str, operations: Sequence[Operation], fault_at: float | None = None) -> None:
    """Print a test's row; with the moment of the fault also how long the trouble lasted."""
    found = summary(operations)
    after = f"; recovered {found.recovery_s(fault_at):.2f} s after the fault" if fault_at is not None else ""
    say(f"{what}: {found.as_row()}{after}")


def say(sentence: str) -> None:
    sys.stdout.write(f"\n  {sentence}")


@dataclass
class Load:
    """Clients at work; what they saw is complete after the block."""

    new: list[Operation]
    kept: list[Operation]


@contextlib.asynccontextmanager
async def load(
    local: Local,
    *,
    new: float = 30.0,
    kept: float = 20.0,
    connections: int = 8,
    before_s: float = 1.0,
    after_s: float = 1.0,
) -> AsyncIterator[Load]:
    """Keep clients at work around the block: new connections and kept ones, so many requests a second.

    New ones ask who answers them; 404 is how a draining member says so, and as whole an answer as any. Kept ones ask what
    Foreman asks.
    """
    stop = asyncio.Event()
    seen = Load([], [])
    target = local.target(READY, accepted=frozenset({404}))
    clients = (
        [keep_alive(local.target("/version"), kept, 300.0, connections, stop=stop, seen=seen.kept.append)]
        if kept
        else []
    )
    clients += [new_connections(target, new, 300.0, stop=stop, seen=seen.new.append)] if new else []
    # No task group: it would wrap what the test itself says into a group.
    work = asyncio.gather(*clients)
    try:
        await asyncio.sleep(before_s)
        yield seen
        await asyncio.sleep(after_s)
    finally:
        stop.set()
        await work


def _asked(target: Target) -> Reply:
    from http.client import HTTPSConnection
    from urllib.parse import urlencode

    context = tls_context(target)
    assert context is not None
    body = urlencode(target.form) if target.form is not None else None
    headers = {"Host": target.server_name, "Accept": "application/json", "Connection": "close"}
    if body is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    with socket.create_connection((target.host, target.port), 10.0) as raw:
        connection = HTTPSConnection(target.server_name, target.port, timeout=10.0)
        connection.sock = context.wrap_socket(raw, server_hostname=target.server_name)
        with contextlib.closing(connection):
            connection.request(target.method, target.path, body, headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.read().decode("utf-8", "replace"))


def presented_serial(local: Local, member: str) -> int:
    """Return the serial number of the certificate a member presents now."""
    from cryptography import x509

    target = local.target(member=member)
    context = tls_context(target)
    assert context is not None
    with (
        socket.create_connection((target.host, target.port), 10.0) as raw,
        context.wrap_socket(raw, server_hostname=target.server_name) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_pem_x509_certificate(ssl.DER_cert_to_PEM_cert(der).encode()).serial_number


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError:
            return False
    return True


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
