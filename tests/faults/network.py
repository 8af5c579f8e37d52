"""A loopback network nobody else is on, so that packets can be dropped without anybody's noticing. Needs root."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000


async def alone(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Do the work in a network namespace of its own, and so everything it starts; the namespace ends with the last of it.

    A namespace belongs to a thread, so the work gets one, with a loop of its own.
    """
    with ThreadPoolExecutor(1) as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, _alone, work)


def _alone(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"unshare: {os.strerror(ctypes.get_errno())}")
    ip("link", "set", "lo", "up")
    return asyncio.run(work())


@contextlib.contextmanager
def dropped(address: str) -> Iterator[None]:
    """Drop every packet from and to an address of this thread's network within the block: nobody is told."""
    rules = [(side, address) for side in ("--source", "--destination")]
    for rule in rules:
        _iptables("--append", *rule)
    try:
        yield
    finally:
        for rule in rules:
            _iptables("--delete", *rule)


def ip(*arguments: str) -> None:
    _done("ip", *arguments)


def _iptables(change: str, *rule: str) -> None:
    _done("iptables", "--wait", change, "INPUT", *rule, "--jump", "DROP")


def _done(*command: str) -> None:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False, env=environment)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
