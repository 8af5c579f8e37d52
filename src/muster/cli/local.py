"""A whole cluster on this host's loopback addresses: its file, its certificates, its processes.

Members listen on 127.0.0.11 and up, the balancer on 127.0.0.1, and the balancer's own connections come from 127.0.0.10, so
that members can tell it from everybody else, as on separate hosts.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from muster.kernel.clock import SystemClock
from muster.kernel.errors import Conflict, Denied, Unavailable
from muster.kernel.files import make_directory, write_atomically
from muster.kernel.process import clean_environment, end_with_parent
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.bundles import BundleRequest, paths, write

ADDRESS = "smartproxy.muster.test"
DOMAIN = "muster.test"
FOREMAN = "foreman.muster.test"
PUPPET_ADMIN = "admin.muster.test"
_BALANCER_SOURCE = "127.0.0.10"
_BIND = "127.0.0.1"
_FIRST_MEMBER = 11
_PREFERRED = {"smartproxy": 9090, "anaconda": 8000, "metrics": 9404}
_PUPPETCA_PORT = 8141
_READY_TIMEOUT_S = 30.0
_RESTART_PAUSE_S = 1.0
_LETTING_GO_S = 2.0
_LONGEST_RUN = 70


@dataclass(frozen=True)
class Plan:
    """What a local cluster will be.

    Attributes:
        features: the ``features`` section of its cluster file.
        ports: listen port by service; members listen on the same numbers on their own addresses.
        store_password_file: where the password of the store's user stands; None: the store needs none.
        puppet_ca: whether the members are a Puppet CA, too, with an EC key for speed.
    """

    directory: Path
    members: int
    ports: Mapping[str, int]
    features: Mapping[str, Any]
    store_url: str
    puppet_ca: bool = False
    store_password_file: Path | None = None

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.yaml"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def run(self) -> Path:
        return run_directory(self.directory)

    @property
    def administrator(self) -> Path:
        """The ``ssldir`` of the host that may sign and revoke."""
        return self.directory / "administrator" / "ssl"

    @property
    def names(self) -> list[str]:
        return [f"proxy{n:02d}.{DOMAIN}" for n in range(1, self.members + 1)]

    def member_address(self, index: int) -> str:
        return f"127.0.0.{_FIRST_MEMBER + index}"

    def document(self) -> dict[str, Any]:
        """Return the cluster file's content."""
        ports = {s: {"listen_port": self.ports[s], "member_port": self.ports[s]} for s in ("smartproxy", "anaconda")}
        off: dict[str, Any] = {s: {"enabled": False} for s in ("http", "https", "puppet", "puppetca")}
        features, more = dict(self.features), {}
        password = self.store_password_file
        if self.puppet_ca:
            off["puppetca"] = {"listen_port": self.ports["puppetca"], "balance": "random"}
            more["authority"] = {
                "port": self.ports["puppetca"],
                "autosign": ["hostnames", "tokens"],
                "administrators": [PUPPET_ADMIN],
            }
            features.setdefault("puppetca", {"autosigner": "hostnames"})
        return {
            "schema": 1,
            "cluster": "local",
            "address": ADDRESS,
            "store": {"url": self.store_url} | ({"password_file": str(password)} if password else {}),
            "foreman": {"trusted_hosts": [FOREMAN]},
            "members": [{"id": i + 1, "name": n, "address": self.member_address(i)} for i, n in enumerate(self.names)],
            "balancers": [
                {
                    "name": "local",
                    "address": _BALANCER_SOURCE,
                    "bind": _BIND,
                    "metrics_port": self.ports["metrics"],
                    "maxconn": 1000,
                }
            ],
            "profile": "current",
            # What Muster itself serves; Apache, Pulp and puppetserver are not part of a local cluster.
            "services": {**ports, **off},
            "features": features,
            **more,
            "edge": {"drain_s": 3},
        }

    def describe(self) -> list[str]:
        """Return the plan in sentences."""
        return [
            f"directory      {self.directory}",
            f"cluster file   {self.cluster_file}",
            f"members        {', '.join(self.names)} on {self.member_address(0)} and up",
            f"balancer       {_BIND}, ports {', '.join(f'{k} {v}' for k, v in self.ports.items())}",
            f"store          {self.store_url.split('@')[-1]}",
        ]


def run_directory(directory: Path) -> Path:
    """Return where the cluster's sockets and running state live: ``run`` below it, unless that is too long for a socket.

    A Unix socket's address holds 108 bytes, so a deep directory gets a private one below the temporary directory.
    """
    run = directory.absolute() / "run"
    if len(str(run)) <= _LONGEST_RUN:
        return run
    digest = hashlib.sha256(str(run).encode()).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"muster-{os.getuid()}-{digest}"


def planned(
    directory: Path,
    *,
    members: int = 3,
    ports: Mapping[str, int] | None = None,
    features: Mapping[str, Any] | None = None,
    store_url: str | None = None,
    store_password_file: Path | None = None,
    puppet_ca: bool = False,
) -> Plan:
    """Return a plan with ports that are free now; given ports are taken as they are."""
    directory = directory.absolute()
    addresses = [_BIND, *(f"127.0.0.{_FIRST_MEMBER + i}" for i in range(members))]
    chosen: dict[str, int] = {}
    wanted = {**_PREFERRED, **({"puppetca": _PUPPETCA_PORT} if puppet_ca else {})}
    for name, preferred in wanted.items():
        given = (ports or {}).get(name)
        chosen[name] = given or _free(addresses, preferred, set(chosen.values()))
    features = features if features is not None else {"dns": {"provider": "memory"}}
    url = store_url or f"sqlite:///{directory / 'store.db'}"
    password_file = store_password_file.absolute() if store_password_file is not None else None
    return Plan(directory, members, chosen, features, url, puppet_ca, password_file)


def _free(addresses: Sequence[str], preferred: int, taken: set[int]) -> int:
    if preferred not in taken and all(_is_free(a, preferred) for a in addresses):
        return preferred
    for _ in range(200):
        with socket.socket() as s:
            s.bind((addresses[0], 0))
            port: int = s.getsockname()[1]
        if port not in taken and all(_is_free(a, port) for a in addresses):
            return port
    raise Unavailable("No port is free on all loopback addresses of the local cluster")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((address, port))
        except OSError:
            return False
    return True


def prepare(plan: Plan) -> None:
    """Write the cluster file and whatever certificates are missing; an existing CA is kept."""
    for directory in (plan.directory, plan.run, plan.directory / "log"):
        make_directory(directory, mode=0o700)
    write_atomically(plan.cluster_file, yaml.safe_dump(plan.document(), sort_keys=False), mode=0o600)
    now = SystemClock().now()
    ca_file, _ = ca_paths(plan.pki)
    ca = ClusterCA.open(plan.pki) if ca_file.exists() else ClusterCA.create(plan.pki, "local", now=now)
    wanted = [BundleRequest("member", name, (ADDRESS,), (plan.member_address(i),)) for i, name in enumerate(plan.names)]
    wanted += [BundleRequest("client", FOREMAN), BundleRequest("balancer", "balancer")]
    for request in wanted:
        if not paths(plan.pki, request.kind, request.common_name).certificate.exists():
            write(ca.issue(request, now=now), plan.pki)


@dataclass
class Child:
    """One process of the local cluster, kept running."""

    name: str
    arguments: Sequence[str]
    log: Path
    restarts: int = -1
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False

    async def start(self) -> None:
        # Processes of the cluster must not die of the terminal's Ctrl-C before they are asked in order.
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "muster", *self.arguments,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment(), start_new_session=True,
                # A supervisor that is killed cannot stop them any more.
                preexec_fn=end_with_parent,
            )  # fmt: skip
        self.restarts += 1

    async def keep_running(self, say: Callable[[str], None]) -> None:
        while not self.stopping:
            assert self.process is not None  # noqa: S101 - started before it is kept
            status = await self.process.wait()
            if self.stopping:
                return
            say(f"{self.name} ended with {_status(status)}; starting it again")
            await asyncio.sleep(_RESTART_PAUSE_S)
            await self.start()

    async def stop(self, patience_s: float = 15.0) -> None:
        self.stopping = True
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        try:
            async with asyncio.timeout(patience_s):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()

    def tail(self) -> str:
        try:
            return self.log.read_text("utf-8", "replace")[-600:].strip()
        except OSError:
            return ""


def _status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit code {status}"


@dataclass
class LocalCluster:
    """A running local cluster. Use :func:`running`."""

    plan: Plan
    members: list[Child]
    balancer: Child
    sayings: list[str] = field(default_factory=list)

    def say(self, sentence: str) -> None:
        self.sayings.append(f"{time.strftime('%H:%M:%S')} {sentence}")

    @property
    def children(self) -> list[Child]:
        return [*self.members, self.balancer]

    @property
    def url(self) -> str:
        return f"https://{_BIND}:{self.plan.ports['smartproxy']}"


@contextlib.asynccontextmanager
async def running(plan: Plan) -> AsyncIterator[LocalCluster]:
    """Yield the cluster when every member is ready and the balancer passes a call through; stop it on leaving.

    The plan is prepared, and the caller holds :func:`only_one`.

    Raises:
        Unavailable: a process did not come up; the sentence has the end of its log.
    """
    if plan.puppet_ca:
        await _founded(plan)
    shared = ["--cluster", str(plan.cluster_file), "--pki", str(plan.pki)]
    log = plan.directory / "log"
    members = [Child(n, ["serve", *shared, "--member", n], log / f"{n.split('.')[0]}.log") for n in plan.names]
    balancer = Child("balancer", ["balance", *shared, "--run", str(plan.run)], log / "balancer.log")
    cluster = LocalCluster(plan, members, balancer)
    keepers: list[asyncio.Task[None]] = []
    try:
        await asyncio.gather(*(c.start() for c in cluster.children))
        await _ready(cluster)
        await _taken_in(cluster)
        keepers = [asyncio.create_task(c.keep_running(cluster.say), name=c.name) for c in cluster.children]
        yield cluster
    finally:
        for child in cluster.children:
            child.stopping = True
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*(c.stop() for c in cluster.members))
        await cluster.balancer.stop()


async def _founded(plan: Plan) -> None:
    """Make the Puppet CA and its administrator's certificate, unless an earlier run did."""
    from muster.app.settings import cluster_store, loaded
    from muster.authority.authority import opened
    from muster.authority.ledger.ledger import Ledger
    from muster.authority.moves.founding import Founding, founded
    from muster.authority.own import host_files, key_place, lay_out

    settings = loaded(plan.cluster_file)
    if settings.authority is None:
        return
    key_file = plan.pki / "puppet-ca" / "ca_key.pem"
    async with cluster_store(settings) as store:
        if await Ledger(store, "local").chain() is None:
            founding = Founding(f"Puppet CA: {ADDRESS}", "ec-p256", 3650, key_file)
            await founded(store, settings.authority, founding, member="local")
        if not key_place(plan.administrator, PUPPET_ADMIN).exists():
            async with opened(store, settings.authority, member="local", home=key_file.parent) as ca:
                made = await host_files(ca, PUPPET_ADMIN, [PUPPET_ADMIN])
                lay_out(
                    plan.administrator, PUPPET_ADMIN, made, bundle=ca.chain_pem, lists=(await ca.lists.served()).pem
                )


async def _ready(cluster: LocalCluster) -> None:
    from muster.foreman import smart_proxy
    from muster.kernel.errors import MusterError
    from muster.pki.context import client_context

    context = client_context(cluster.plan.pki / "ca.pem")
    port = cluster.plan.ports["smartproxy"]
    targets = [(c, f"https://{cluster.plan.member_address(i)}:{port}/") for i, c in enumerate(cluster.members)]
    targets.append((cluster.balancer, cluster.url))
    deadline = time.monotonic() + _READY_TIMEOUT_S
    for child, url in targets:
        last = "no answer"
        async with smart_proxy.opened(url, context=context, server_name=ADDRESS, timeout_s=2.0) as proxy:
            while True:
                if child.process is not None and child.process.returncode is not None:
                    raise Unavailable(f"{child.name} ended at start: {child.tail()}")
                try:
                    answer = await proxy.ask("GET", "/health/ready?service=smartproxy")
                    last = answer.text
                    if answer.status == 200:
                        break
                except MusterError as e:
                    last = str(e)
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"{child.name} is not ready after {_READY_TIMEOUT_S:g} s ({last}): {child.tail()}"
                    )
                await asyncio.sleep(0.05)


async def _taken_in(cluster: LocalCluster) -> None:
    """Wait until HAProxy holds no member down: it may have started first and met nobody."""
    from muster.balancer.haproxy.sockets import RuntimeSocket
    from muster.kernel.errors import MusterError

    runtime = RuntimeSocket(cluster.plan.run / "runtime.sock")
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            down = [f"{s.backend}/{s.server}" for s in await runtime.servers() if s.status.startswith("DOWN")]
        except MusterError as e:
            down = [str(e)]
        if not down:
            return
        if time.monotonic() > deadline:
            raise Unavailable(f"HAProxy still holds down after {_READY_TIMEOUT_S:g} s: {', '.join(down)}")
        await asyncio.sleep(0.1)


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the right to run a local cluster in this directory; taken before anything in it is written.

    Raises:
        Conflict: another process has it.
        Denied: the directory of its sockets belongs to somebody else.
    """
    directory = directory.absolute()
    run = run_directory(directory)
    for needed in (directory, run):
        make_directory(needed, mode=0o700)
    if run.stat().st_uid != os.getuid():
        raise Denied(f"{run} belongs to somebody else; remove it or use another --dir")
    # The kernel lets go of the lock with the process, however that ends; the record beside it says whose it is.
    held = os.open(run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LETTING_GO_S
        while not _locked(held):
            refuse_second(directory)
            if time.monotonic() > deadline:
                raise Conflict(f"A local cluster is starting or stopping in {directory}")
            time.sleep(0.02)
        record = run / "up.json"
        write_atomically(record, json.dumps({"pid": os.getpid(), "started": _started(os.getpid())}))
        try:
            yield
        finally:
            record.unlink(missing_ok=True)
    finally:
        os.close(held)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_second(directory: Path) -> None:
    """Raise Conflict when a local cluster runs in the directory."""
    if (pid := recorded(directory)) is not None:
        raise Conflict(f"A local cluster already runs in {directory} (process {pid}); muster down stops it")


def recorded(directory: Path) -> int | None:
    """Return the process that keeps the local cluster in this directory, None when none does."""
    try:
        record = json.loads((run_directory(directory) / "up.json").read_text())
        pid = int(record["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A number alone may belong to another process by now; number and start time together do not.
    return pid if _started(pid) == record.get("started") else None


def _started(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A killed process keeps its number until its parent has read its exit status, which may take long.
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None
