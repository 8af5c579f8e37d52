"""An HAProxy that an earlier run of ours left behind: two on one port would share its connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from muster.balancer.haproxy.sockets import Process
from muster.kernel.log import logger

log = logger("balancer")

_POLL_S = 0.05


async def retire(processes: Iterable[Process], config: Path) -> None:
    """End the masters among these that serve this configuration, with their workers."""
    for process in processes:
        if process.type == "master" and _runs(process.pid, config):
            log.warning("An HAProxy of an earlier run is stopped", pid=process.pid)
            await _ended(process.pid)


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
