"""One file over TFTP from our server and from Debian's tftpd-hpa, by the same client, near and a millisecond away.

Server and client are in network namespaces; the millisecond is made by a process between them (``tests/servers/wire.py``),
which takes its share of the cores. tftpd-hpa knows no windows (RFC 7440), so its figures are those of one block at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Figure, Findings
from muster.kernel.errors import Unavailable
from muster.kernel.process import clean_environment, end_with_parent

if TYPE_CHECKING:
    from tests.servers.namespaces import Host

_NEAR_BYTES = 32_000_000
_FAR_BYTES = 2_000_000
_FAR_WINDOW_BYTES = 16_000_000
_BLKSIZE = 1428
_WINDOW = 16
_MANY = 50
_MANY_BYTES = 1_000_000
_PORT = 6969
_HPA = "tftpd-hpa, 1 block at a time"
_GOAL = "≥ 4 times of tftpd-hpa"

Fetch = Callable[[int, int], float]
"""Size in bytes and windowsize; returns seconds."""


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return MB/s at one block and at sixteen at a time, without and with delay, and of many clients at once."""
    # Imported here: what runs without these servers does not need the tests beside it.
    from tests.servers import available

    findings = Findings(f"TFTP: one file, blksize {_BLKSIZE}, by the tests' client; server and client in namespaces")
    for what in ("namespaces", "tftpd-hpa"):
        if (why := available.missing(what)) is not None:
            findings.notes.append(f"not measured: {why}")
            return findings
    root = directory / "root"
    root.mkdir()
    for size in {_NEAR_BYTES, _FAR_BYTES, _FAR_WINDOW_BYTES, _MANY_BYTES}:
        (root / f"file{size}").write_bytes(os.urandom(size))
    rounds = 3 if quick else 5
    try:
        await asyncio.to_thread(_near_and_far, findings, root, rounds)
    except (AssertionError, OSError) as e:
        raise Unavailable(f"TFTP was not measured: {e}") from e
    findings.notes += [
        "the client is Python's, and takes more of the time than either server where nothing is delayed",
        f"client, servers and the wire share {os.cpu_count()} cores; all is on one host",
    ]
    return findings


def _near_and_far(findings: Findings, root: Path, rounds: int) -> None:
    from tests.servers import namespaces
    from tests.servers.wire import Wire, wired

    with (
        namespaces.segment("tftp-bench", "machine", network="10.231.71") as hosts,
        _both(root, hosts) as (mine, theirs),
    ):
        for window in (1, _WINDOW):
            _compare(findings, f"near, window {window}", rounds, partial(mine, _NEAR_BYTES, window), _NEAR_BYTES,
                     partial(theirs, _NEAR_BYTES, 1), _NEAR_BYTES, "")  # fmt: skip
        _many(findings, rounds, mine, theirs)
    with wired(Wire(delay_s=0.0005), network="10.231.72") as hosts, _both(root, hosts) as (mine, theirs):
        for window in (1, _WINDOW):
            size = _FAR_BYTES if window == 1 else _FAR_WINDOW_BYTES
            _compare(findings, f"1 ms there and back, window {window}", rounds, partial(mine, size, window), size,
                     partial(theirs, _FAR_BYTES, 1), _FAR_BYTES, _GOAL if window > 1 else "")  # fmt: skip


def _compare(
    findings: Findings,
    name: str,
    rounds: int,
    mine: Callable[[], float],
    my_bytes: int,
    theirs: Callable[[], float],
    their_bytes: int,
    goal: str,
) -> None:
    ours: list[float] = []
    peer: list[float] = []
    mine()
    for _ in range(rounds):
        # The peer first: what it can is what ours is held against.
        peer.append(their_bytes / theirs() / 1e6)
        ours.append(my_bytes / mine() / 1e6)
    findings.figures.append(Figure(name, "MB/s", ours, _HPA, peer, goal))


def _many(findings: Findings, rounds: int, mine: Fetch, theirs: Fetch) -> None:
    """Fetch by many clients at once; between the first that is done and the last is how unlike they were served."""
    totals: dict[str, list[float]] = {"mine": [], "theirs": []}
    spread: dict[str, list[float]] = {"mine": [], "theirs": []}
    with ThreadPoolExecutor(_MANY) as threads:
        for _, (name, fetch) in itertools.product(range(rounds), (("theirs", theirs), ("mine", mine))):
            begun = time.monotonic()
            took = sorted(threads.map(lambda _, fetch=fetch: fetch(_MANY_BYTES, 1), range(_MANY)))
            totals[name].append(_MANY * _MANY_BYTES / (time.monotonic() - begun) / 1e6)
            spread[name].append(took[-1] / took[0])
    findings.figures += [
        Figure(f"near, {_MANY} clients at once, all", "MB/s", totals["mine"], "tftpd-hpa", totals["theirs"]),
        Figure(
            f"near, {_MANY} clients at once, slowest to quickest", "×", spread["mine"], "tftpd-hpa", spread["theirs"]
        ),
    ]


@contextlib.contextmanager
def _both(root: Path, hosts: list[Host]) -> Iterator[tuple[Fetch, Fetch]]:
    from tests.servers import tftp
    from tests.servers.tftp_client import fetched

    def fetch(port: int, size: int, window: int) -> float:
        options = [("blksize", str(_BLKSIZE)), *([("windowsize", str(window))] if window > 1 else [])]
        found = fetched((hosts[0].address, port), f"file{size}", options, host=hosts[1], keep=False, limit_s=300.0)
        if found.error is not None:
            raise Unavailable(f"file{size}: {found.error[1]}")
        return found.seconds

    with tftp.tftpd_hpa(root, host=hosts[0]) as theirs, _ours(root, hosts[0]):
        yield partial(fetch, _PORT + 1), partial(fetch, theirs.port)


@contextlib.contextmanager
def _ours(root: Path, host: Host) -> Iterator[None]:
    """Run ``muster netboot tftp``, as an administrator does."""
    options = ["--root", str(root), "--listen", f"{host.address}:{_PORT + 1}", "--json"]
    process = subprocess.Popen(
        host.command(sys.executable, "-m", "muster", "netboot", "tftp", *options),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=clean_environment(), preexec_fn=end_with_parent,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise Unavailable("muster netboot tftp did not start")
        yield
    finally:
        process.kill()
        process.communicate()
