"""The only way a tool is run: argument list, timeout, clean environment, no shell."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muster.kernel.errors import Misconfigured, Unavailable

_PR_SET_PDEATHSIG = 1
_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")


@dataclass(frozen=True)
class Finished:
    """What a tool left behind; output is decoded with replacement and never longer than 1 MiB each."""

    status: int
    stdout: str
    stderr: str


def clean_environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Return the few variables a tool may see, with messages in English."""
    kept = {k: os.environ[k] for k in _KEPT if k in os.environ}
    return {"LC_ALL": "C.UTF-8", **kept, **extra}


async def run(
    arguments: Sequence[str | Path],
    *,
    timeout_s: float,
    environment: Mapping[str, str] = {},
    directory: Path | None = None,
    stdin: bytes | None = None,
) -> Finished:
    """Run a tool to its end and return what it said; a non-zero status is returned, not raised.

    ``stdin`` must be of our own making, or checked and written anew: a tool may take it for commands.

    Raises:
        Misconfigured: the tool is not installed or may not be run.
        Unavailable: it did not finish in time; its whole process group was killed.
    """
    command = [str(a) for a in arguments]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(environment),
            cwd=directory,
            start_new_session=True,
        )
    except OSError as e:
        raise Misconfigured(f"Running {command[0]} failed: {e.strerror or e}") from e
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate(stdin)
    except TimeoutError:
        raise Unavailable(f"{command[0]} did not finish within {timeout_s:g} s and was killed") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return Finished(process.returncode or 0, _text(out), _text(err))


def end_with_parent() -> None:
    """Ask the kernel to end this process with TERM when its parent dies, however that dies; for ``preexec_fn``.

    Source: prctl(2), PR_SET_PDEATHSIG. Elsewhere than on Linux it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _text(raw: bytes) -> str:
    return raw[: 1 << 20].decode("utf-8", "replace")
