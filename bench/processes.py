"""The processes that are measured: a member, a cluster and the bare peer, with their CPU time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from muster.cli.demo.bind import free_port
from muster.cli.local.child import Child
from muster.cli.local.files import prepare
from muster.cli.local.plan import FOREMAN, Plan, planned
from muster.kernel.errors import Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.process import clean_environment

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_READY_TIMEOUT_S = 20.0
_DESCRIPTORS = 65_536


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        started_in_s: from the spawn to the first whole answer.
    """

    pid: int
    address: str
    http_port: int
    https_port: int
    started_in_s: float

    def url(self, scheme: str, path: str = "/version") -> str:
        return f"{scheme}://{self.address}:{self.https_port if scheme == 'https' else self.http_port}{path}"


@dataclass(frozen=True)
class Credentials:
    """What a caller proves itself with, and the two files in one, as ``ab`` wants them."""

    ca: Path
    certificate: Path
    key: Path
    combined: Path


def cpu_seconds(pid: int) -> float:
    """Return user and system time of the process and all its descendants, the finished ones included."""
    total = 0.0
    for one in _tree(pid):
        fields = _stat(one)
        if fields is not None:
            total += sum(int(f) for f in fields[11:15]) / _TICKS_PER_S
    return total


def rss_mb(pid: int) -> float:
    """Return the resident memory of the process in units of 10^6 bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES / 1e6


def tree_rss_mb(pid: int) -> float:
    """Return the resident memory of the process and all its descendants; what they share counts once for each."""
    total = 0.0
    for one in _tree(pid):
        with contextlib.suppress(OSError):
            total += rss_mb(one)
    return total


def descriptors() -> int:
    """Return how many this process, and what it starts from now on, may have: from here on the hard limit, or 65 536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return _DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def _tree(pid: int) -> list[int]:
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _stat(pid: int) -> list[str] | None:
    """The fields after the command's name, which may itself hold spaces: state is number 0, utime number 11."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


def prepared(directory: Path, *, members: int = 1, features: Mapping[str, Any] | None = None) -> Plan:
    """Write a local cluster's file and certificates; its members stop at once instead of draining for balancers."""
    plan = planned(directory, members=members, features=features)
    prepare(plan)
    document = {**plan.document(), "edge": {"drain_s": 0}}
    write_atomically(plan.cluster_file, yaml.safe_dump(document, sort_keys=False), mode=0o600)
    return plan


def credentials(plan: Plan) -> Credentials:
    directory = plan.pki / "clients" / FOREMAN
    certificate, key = directory / "cert.pem", directory / "key.pem"
    combined = plan.directory / "caller.pem"
    write_atomically(combined, certificate.read_bytes() + key.read_bytes(), mode=0o600)
    return Credentials(plan.pki / "ca.pem", certificate, key, combined)


@contextlib.asynccontextmanager
async def member(plan: Plan, index: int = 0) -> AsyncIterator[Running]:
    """Run ``muster serve`` for one of the plan's members, as an administrator would, with its access log in a file.

    Raises:
        Unavailable: it did not answer; the sentence has the end of its log.
    """
    name = plan.names[index]
    arguments = ["serve", "--cluster", str(plan.cluster_file), "--pki", str(plan.pki), "--member", name]
    if index:
        # The first keeps what it writes among the certificates, which are everybody's here.
        arguments += ["--state", str(plan.directory / "state" / name)]
    child = Child("member", arguments, plan.directory / "log" / f"member{index or ''}.log")
    started = time.perf_counter()
    await child.start()
    assert child.process is not None
    try:
        address, http_port = plan.member_address(index), plan.ports["anaconda"]
        await answered(address, http_port, child.process, child.log)
        took = time.perf_counter() - started
        yield Running(child.process.pid, address, http_port, plan.ports["smartproxy"], took)
    finally:
        await child.stop()


@contextlib.asynccontextmanager
async def bare(
    plan: Plan, modules: tuple[str, ...], *, protocol: Literal["uvicorn", "muster"] = "uvicorn"
) -> AsyncIterator[Running]:
    """Run the peer: bare uvicorn behind our acceptor around an application of three lines (:mod:`bench.bare`).

    With ``protocol="muster"`` the HTTP protocol is ours, too.
    """
    address = plan.member_address(1)
    ports = [free_port(address) for _ in range(2)]
    bundle = plan.pki / "members" / plan.names[0]
    given = {
        "address": address,
        "http_port": ports[0],
        "https_port": ports[1],
        "certificate": str(bundle / "cert.pem"),
        "key": str(bundle / "key.pem"),
        "ca": str(plan.pki / "ca.pem"),
        "modules": modules,
        "protocol": protocol,
    }
    log = plan.directory / "log" / f"bare-{protocol}.log"
    started = time.perf_counter()
    with log.open("ab") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.bare", json.dumps(given),
            stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=out, env=clean_environment(),
        )  # fmt: skip
    try:
        await answered(address, ports[0], process, log)
        yield Running(process.pid, address, ports[0], ports[1], time.perf_counter() - started)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def answered(address: str, port: int, process: asyncio.subprocess.Process, log: Path) -> None:
    """Return once ``GET /version`` is answered.

    Raises:
        Unavailable: the process ended, or it took more than 20 s; with the end of its log.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if (await fetched(address, port)).startswith(b"HTTP/1.1 200"):
                return
        if process.returncode is not None or time.monotonic() > deadline:
            raise Unavailable(f"{address}:{port} did not answer: {log.read_text('utf-8', 'replace')[-800:]}")
        await asyncio.sleep(0.005)


async def with_store(server: Running) -> None:
    """Return once the member has made or met its store's schema, which it does beside serving.

    Raises:
        Unavailable: it had not within 20 s.
    """
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while b"muster_store_up 1.0" not in await fetched(server.address, server.http_port, "/metrics"):
        if time.monotonic() > deadline:
            raise Unavailable(f"{server.address}:{server.http_port} does not say that its store is up")
        await asyncio.sleep(0.05)


async def fetched(address: str, port: int, path: str = "/version") -> bytes:
    """Return the raw answer to one plain GET."""
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(address, port)
        try:
            writer.write(f"GET {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n".encode())
            return await reader.read()
        finally:
            writer.close()
