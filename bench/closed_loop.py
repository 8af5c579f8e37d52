"""Closed-loop load: a fixed number of callers, each asking again as soon as it was answered.

``wrk`` and ``ab`` are used when they are installed, because a generator in C leaves the second core to the server; else
:mod:`bench.load` with a schedule it cannot keep, which is the same loop at a lower rate.
"""

from __future__ import annotations

import re
import shutil
import time
from dataclasses import dataclass, replace

from bench import load
from bench.processes import Credentials, Running, cpu_seconds
from muster.cli.local.plan import ADDRESS
from muster.kernel.errors import Unavailable
from muster.kernel.process import run

_KEPT_CONNECTIONS = 32
_NEW_AT_ONCE = 8
_TIMEOUT_S = 30
# Far beyond what any server here answers, so that every caller of bench.load is always late and never waits.
_FLOOD_PER_S = 50_000.0


@dataclass(frozen=True)
class Round:
    """One round against one server.

    Attributes:
        cpu_us: CPU time of the server's process tree per request.
        requests: how many were answered.
    """

    per_second: float
    cpu_us: float
    requests: int


def missing_tools(*needed: str) -> list[str]:
    """Return a sentence for each generator this machine lacks, of those that are needed; none named: all."""
    packages = {"wrk": "wrk", "ab": "apache2-utils"}
    return [
        f"{tool} is missing (Debian's package {package}); bench.load took its place, so req/s are its own limit"
        for tool, package in packages.items()
        if shutil.which(tool) is None and tool in (needed or packages)
    ]


async def kept_connections(
    server: Running,
    scheme: str,
    seconds: float,
    credentials: Credentials,
    path: str = "/version",
    connections: int = _KEPT_CONNECTIONS,
) -> Round:
    """Ask for one path on kept-alive connections.

    At the end as many requests are under way, and count for nothing; of a slow server that is a share.

    Raises:
        Unavailable: the generator failed or an answer was not 200.
    """
    before = cpu_seconds(server.pid)
    if shutil.which("wrk"):
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", f"--timeout={_TIMEOUT_S}s"]
        said = await _said([*command, server.url(scheme, path)], seconds)
        if "Non-2xx" in said or "Socket errors" in said:
            raise Unavailable(f"wrk against {server.url(scheme, path)} saw failures: {said.strip()[-300:]}")
        count, per_second = int(_number(r"(\d+) requests in", said)), _number(r"Requests/sec:\s+([\d.]+)", said)
    else:
        target = replace(_target(server, scheme, credentials), path=path)
        begun = time.perf_counter()
        wanted = 2500 * seconds / _FLOOD_PER_S
        count = _counted(await load.keep_alive(target, _FLOOD_PER_S, wanted, connections, timeout_s=_TIMEOUT_S))
        per_second = count / (time.perf_counter() - begun)
    if not count:
        raise Unavailable(f"{server.url(scheme, path)} gave no answer within {seconds:g} s")
    return Round(per_second, (cpu_seconds(server.pid) - before) / count * 1e6, count)


async def new_tls_connections(server: Running, count: int, credentials: Credentials) -> Round:
    """Ask ``GET /version`` with a new mutual-TLS connection for each call, 8 at once.

    Raises:
        Unavailable: the generator failed or an answer was not 200.
    """
    before = cpu_seconds(server.pid)
    if shutil.which("ab"):
        url = server.url("https")
        command = ["ab", "-q", "-n", str(count), "-c", str(_NEW_AT_ONCE), "-E", str(credentials.combined), url]
        said = await _said(command, count / 50)
        if _number(r"Failed requests:\s+(\d+)", said) or "Non-2xx" in said:
            raise Unavailable(f"ab against {url} saw failures: {said.strip()[-300:]}")
        per_second = _number(r"Requests per second:\s+([\d.]+)", said)
    else:
        target = _target(server, "https", credentials)
        begun = time.perf_counter()
        made = await load.new_connections(
            target, _FLOOD_PER_S, count / _FLOOD_PER_S, _NEW_AT_ONCE, timeout_s=_TIMEOUT_S
        )
        per_second = _counted(made) / (time.perf_counter() - begun)
    return Round(per_second, (cpu_seconds(server.pid) - before) / count * 1e6, count)


def _target(server: Running, scheme: str, credentials: Credentials) -> load.Target:
    if scheme == "http":
        return load.Target(server.address, server.http_port, ADDRESS, None)
    files = (credentials.ca, credentials.certificate, credentials.key)
    return load.Target(server.address, server.https_port, ADDRESS, *files)


def _counted(operations: list[load.Operation]) -> int:
    found = load.summary(operations)
    if found.failed:
        raise Unavailable(f"bench.load saw failures: {found.as_row()}")
    return found.served


async def _said(command: list[str], expected_s: float) -> str:
    finished = await run(command, timeout_s=expected_s + 30)
    if finished.status != 0:
        raise Unavailable(f"{command[0]} ended with exit code {finished.status}: {finished.stderr.strip()[-300:]}")
    return finished.stdout


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise Unavailable(f"The load generator's output has no {pattern}: {text.strip()[-300:]}")
    return float(found[1])
