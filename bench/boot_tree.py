"""A boot file that Foreman writes, until three members have it: by the balancer's answer, and on each disk."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from urllib.parse import urlencode

import yaml

from bench import processes
from bench.figures import Figure, Findings
from muster.cli.local.cluster import running
from muster.cli.local.plan import ADDRESS, Plan
from muster.kernel.errors import Unavailable
from muster.kernel.files import write_atomically
from muster.pki.context import client_context

_MEMBERS = 3
_LOOK_S = 0.0002
_WITHIN_S = 10.0
_PEER = "rsync to three directories"
_TEXT = "default linux\nlabel linux\n  kernel boot/linux\n  append initrd=boot/initrd.gz change={0}\n"


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return how long a change takes to stand on three members' disks, and to be acknowledged."""
    findings = Findings(f"POST /tftp/PXELinux/MAC through HAProxy to {_MEMBERS} members, one change after another")
    count = 60 if quick else 300
    theirs = _by_rsync(directory / "peer", 20 if quick else 60)
    async with contextlib.AsyncExitStack() as stack:
        for store, url in (("SQLite", ""), ("PostgreSQL", _postgresql(stack))):
            if not url and store != "SQLite":
                findings.notes.append("PostgreSQL was not measured: it is not on this machine")
                continue
            async with _cluster(directory / store.lower(), url) as plan:
                seen, told = await _changes(plan, count)
            findings.figures += [
                Figure(f"{store}: on all disks, p50", "ms", [_quantile(seen, 0.5)], _PEER, _at(theirs, 0.5)),
                Figure("on all disks, p99", "ms", [_quantile(seen, 0.99)], _PEER, _at(theirs, 0.99)),
                Figure("acknowledged, p50", "ms", [_quantile(told, 0.5)]),
                Figure("acknowledged, p99", "ms", [_quantile(told, 0.99)]),
            ]
    findings.notes.append(
        "the peer copies from and to this host's own disk, without ssh, and nobody waits until somebody serves it; "
        f"members, balancer and store share {os.cpu_count()} cores"
    )
    return findings


def _postgresql(stack: contextlib.AsyncExitStack) -> str:
    # Imported here: what runs without PostgreSQL does not need the tests beside it.
    from tests.servers import available, postgresql

    if available.postgresql_binaries() is None:
        return ""
    return stack.enter_context(postgresql.running()).fresh_database()


@contextlib.asynccontextmanager
async def _cluster(directory: Path, url: str) -> AsyncIterator[Plan]:
    plan = processes.prepared(directory, members=_MEMBERS, features={"tftp": {}})
    if url:
        document = yaml.safe_load(plan.cluster_file.read_text())
        document["store"] = {"url": url}
        write_atomically(plan.cluster_file, yaml.safe_dump(document), mode=0o600)
    async with running(plan):
        yield plan


async def _changes(plan: Plan, count: int) -> tuple[Sequence[float], Sequence[float]]:
    """Return, for each change, when the last member had it and when Foreman heard so, in ms."""
    shown = processes.credentials(plan)
    context = client_context(shown.ca, shown.certificate, shown.key)
    roots = [plan.state_of(n) / "netboot" for n in plan.names]
    seen: list[float] = []
    told: list[float] = []
    place = ("127.0.0.1", plan.ports["smartproxy"])
    for n in range(count):
        mac = f"52:54:00:00:{n // 256:02x}:{n % 256:02x}"
        path, text = f"pxelinux.cfg/01-{mac.replace(':', '-')}", _TEXT.format(n)
        files = [r / path for r in roots]
        begun = time.perf_counter()
        looking = asyncio.create_task(asyncio.to_thread(_all_have, files, text))
        body = urlencode({"pxeconfig": text}).encode()
        reader, writer = await asyncio.open_connection(*place, ssl=context, server_hostname=ADDRESS)
        try:
            writer.write(
                f"POST /tftp/PXELinux/{mac} HTTP/1.1\r\nhost: {ADDRESS}\r\ncontent-length: {len(body)}\r\n"
                "content-type: application/x-www-form-urlencoded\r\nconnection: close\r\n\r\n".encode()
                + body
            )
            answer = await reader.read(-1)
        finally:
            writer.close()
        told.append((time.perf_counter() - begun) * 1000)
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Unavailable(f"A boot file was not written: {answer[:300]!r}")
        seen.append((await looking - begun) * 1000)
    return seen, told


def _all_have(files: Sequence[Path], text: str) -> float:
    """Return when the last of these files is there."""
    limit, left = time.perf_counter() + _WITHIN_S, list(files)
    while left:
        left = [f for f in left if not _is(f, text)]
        if time.perf_counter() > limit:
            raise Unavailable(f"{left[0]} was not there within {_WITHIN_S:g} s")
        if left:
            time.sleep(_LOOK_S)
    return time.perf_counter()


def _is(file: Path, text: str) -> bool:
    try:
        return file.read_text() == text
    except OSError:
        return False


def _by_rsync(directory: Path, count: int) -> Sequence[float]:
    """Return how long it takes to write a file and copy it to three directories side by side, in ms; empty: no rsync."""
    rsync = shutil.which("rsync")
    if rsync is None:
        return ()
    source, targets = directory / "from", [directory / f"to{n}" for n in range(_MEMBERS)]
    for one in (source, *targets):
        (one / "pxelinux.cfg").mkdir(parents=True)
    found = []
    for n in range(count):
        begun = time.perf_counter()
        (source / "pxelinux.cfg" / f"{n}").write_text(_TEXT.format(n))
        copies = [subprocess.Popen([rsync, "-a", f"{source}/", f"{t}/"]) for t in targets]
        codes = [c.wait(30) for c in copies]
        if any(codes):
            raise Unavailable("rsync failed")
        found.append((time.perf_counter() - begun) * 1000)
    return found


def _at(values: Sequence[float], share: float) -> Sequence[float]:
    return [_quantile(values, share)] if values else ()


def _quantile(values: Sequence[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, round(share * (len(values) - 1)))]
