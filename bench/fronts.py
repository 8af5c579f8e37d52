"""Servers that have the same files: a Pulp, a member in front of it, and nginx as a file server and as a proxy."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from bench import load, nginx, processes
from bench.processes import Credentials, Running
from muster.cli.demo.bind import free_port
from muster.cli.local.plan import ADDRESS, Plan
from muster.kernel.errors import Unavailable
from muster.kernel.files import write_atomically
from muster.pki.bundles import paths as bundle_paths

if TYPE_CHECKING:
    from tests.servers.pulp import Pulp

Scheme = Literal["http", "https"]

SCHEMES: dict[Scheme, str] = {"http": "plain", "https": "TLS"}

MUSTER = "Muster"
WORKERS_2 = "Muster, 2 workers"
PULP = "pulp-content"
STATIC = "nginx, static, 1 worker"
STATIC_2 = "nginx, static, 2 workers"
PROXY = "nginx, proxy, 1 worker"

CONNECTIONS_PER_ADDRESS = 4096
"""What members here allow: all clients of a benchmark have one address."""

_REPOSITORY = "bench"
_LARGE = "large.iso"
_SMALL_BYTES = 10_000
_ANSWER_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class File:
    """A file that every server has."""

    name: str
    digest: str
    size: int

    @property
    def published(self) -> str:
        """Where Pulp has it, and whoever is in front of Pulp."""
        return f"/pulp/content/{_REPOSITORY}/{self.name}"

    @property
    def stored(self) -> str:
        """Where nginx has it, which serves the directory of Pulp's own files, and whoever is in front of that nginx."""
        return f"{nginx.STATIC}{self.digest[:2]}/{self.digest[2:]}"


@dataclass(frozen=True)
class Front:
    """A server under measurement.

    Attributes:
        caller: what asks it; holds the CA of its certificate.
        path: where it has a file.
        backend: process id of what is behind it; None: it is no proxy.
        database: process id of the database that is asked for each file; None: none is.
        schemes: what it speaks.
    """

    name: str
    server: Running
    caller: Credentials
    path: Callable[[File], str]
    backend: int | None = None
    database: int | None = None
    schemes: Sequence[Scheme] = ("http", "https")

    def target(self, scheme: Scheme, file: File) -> load.Target:
        port, ca = (self.server.http_port, None) if scheme == "http" else (self.server.https_port, self.caller.ca)
        return load.Target(self.server.address, port, ADDRESS, ca, path=self.path(file))


@dataclass(frozen=True)
class Fronts:
    """What there is to compare.

    Attributes:
        member: in front of Pulp.
        peers: of it, Pulp included.
        quick: a member in front of an nginx that serves files itself, so that its own share is no longer hidden behind
            Pulp's; then its peers, that nginx and a member with two workers included. Empty without nginx.
    """

    member: Front
    peers: Sequence[Front]
    quick: Sequence[Front]

    @property
    def all(self) -> Sequence[Front]:
        return [self.member, *self.peers]

    @property
    def proxy(self) -> Front | None:
        return next((front for front in self.peers if front.name == PROXY), None)


def filled(pulp: Pulp, source: Path, *, large_mb: int, small: int) -> tuple[File, list[File]]:
    """Let Pulp serve a large file and so many small ones."""
    from tests.servers import origins, pulp_api

    numbers = random.Random(large_mb)
    contents = {f"small-{n}.rpm": numbers.randbytes(_SMALL_BYTES) for n in range(small)}
    contents[_LARGE] = numbers.randbytes(1_000_000) * large_mb
    origins.files(source, contents)
    repository = pulp_api.repository(pulp.api, "file", _REPOSITORY)
    repository.sync_from((source / "PULP_MANIFEST").as_uri()).publish()
    files = {n: File(n, hashlib.sha256(data).hexdigest(), len(data)) for n, data in contents.items()}
    return files.pop(_LARGE), list(files.values())


async def started(stack: contextlib.AsyncExitStack, directory: Path, pulp: Pulp, file: File) -> Fronts:
    """Start everything in front of Pulp, nginx only where it is installed; return when all of it has the file."""
    content, database = pulp.pid("content"), pulp.database.pid
    beside = f"{pulp.address}:{pulp.content_port}"
    plan, member = await _member(stack, directory / "cluster", beside)
    caller = processes.credentials(plan)
    ours = Front(MUSTER, member, caller, lambda f: f.published, content, database)
    itself = Running(content, pulp.address, pulp.content_port, 0, 0.0)
    peers = [Front(PULP, itself, caller, lambda f: f.published, database=database, schemes=("http",))]
    quick = []
    if nginx.missing() is None:
        media = pulp.directory / "media" / "artifact"
        one = await file_server(stack, directory / "nginx-1", plan, beside, media, workers=1)
        two = await file_server(stack, directory / "nginx-2", plan, beside, media, workers=2)
        static = Front(STATIC, one, caller, lambda f: f.stored)
        peers += [static, replace(static, name=STATIC_2, server=two), replace(ours, name=PROXY, server=one)]
        origin = f"{one.address}:{one.http_port}"
        proxy = await file_server(stack, directory / "nginx-3", plan, origin, None, workers=1)
        other, second = await _member(stack, directory / "other", origin)
        in_front = replace(static, name=PROXY, server=proxy, backend=one.pid)
        more, third = await _member(stack, directory / "workers", origin, workers=2)
        quick = [
            replace(in_front, name=MUSTER, server=second, caller=processes.credentials(other)), in_front, static,
            replace(in_front, name=WORKERS_2, server=third, caller=processes.credentials(more)),
        ]  # fmt: skip
    for front in (ours, *peers, *quick):
        for scheme in front.schemes:
            await answers(front.target(scheme, file))
    return Fronts(ours, peers, quick)


async def _member(
    stack: contextlib.AsyncExitStack, directory: Path, beside: str, *, workers: int = 1
) -> tuple[Plan, Running]:
    """Run a cluster's only member in front of the content application at this host and port."""
    plan, (member,) = await members(stack, directory, {"pulp_content_url": f"http://{beside}", "workers": workers})
    return plan, member


async def members(
    stack: contextlib.AsyncExitStack, directory: Path, content: Mapping[str, Any], *, count: int = 1
) -> tuple[Plan, list[Running]]:
    """Run all members of a cluster with this section ``content``."""
    plan = processes.prepared(directory, members=count)
    ports: dict[Scheme, int] = {}
    while len(set(ports.values())) < len(SCHEMES):
        ports = {scheme: free_port(plan.member_address(0)) for scheme in SCHEMES}
    document = yaml.safe_load(plan.cluster_file.read_text())
    document["content"] = {"services": list(SCHEMES), **content}
    document["services"] |= {scheme: {"member_port": port} for scheme, port in ports.items()}
    document["edge"]["connections_per_address"] = CONNECTIONS_PER_ADDRESS
    write_atomically(plan.cluster_file, yaml.safe_dump(document, sort_keys=False), mode=0o600)
    running = [await stack.enter_async_context(processes.member(plan, index)) for index in range(count)]
    return plan, [replace(one, http_port=ports["http"], https_port=ports["https"]) for one in running]


async def file_server(
    stack: contextlib.AsyncExitStack, directory: Path, plan: Plan, backend: str, root: Path | None, *, workers: int
) -> Running:
    """Run an nginx with a certificate of that cluster, which serves a directory and passes other calls to the backend."""
    bundle = bundle_paths(plan.pki, "member", plan.names[0])
    running = nginx.running(
        directory, address=plan.member_address(1), workers=workers, root=root, backend=backend,
        certificate=bundle.certificate, key=bundle.key,
    )  # fmt: skip
    return await stack.enter_async_context(running)


async def answers(target: load.Target) -> None:
    """Return once the target answers well, which is some time after its port does.

    Raises:
        Unavailable: it had not within 30 s.
    """
    deadline = time.monotonic() + _ANSWER_TIMEOUT_S
    while (found := load.summary(await load.new_connections(target, 10, 0.1))).failed:
        if time.monotonic() > deadline:
            raise Unavailable(f"{target.host}:{target.port}{target.path} does not answer well: {found.as_row()}")
        await asyncio.sleep(0.1)
