"""The only way a tool is run: argument list, timeout, clean environment, no shell.

A command that somebody gave us to run for them is no tool of ours: :func:`follow`.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import ctypes
import io
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from muster.kernel.errors import Misconfigured, Unavailable

_PR_SET_PDEATHSIG = 1
_KEPT = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
_LONGEST_LINE = 1 << 16
OUTPUT_LIMIT_BYTES = 1 << 20
"""How much of what a tool says is kept, of its output and of its errors each."""
_LOOK_EVERY_S = 0.5
_LOOK_KILLED_S = 0.005
# What the pipe and our own buffers can hold when a command ends.
_LEFT_BEHIND_BYTES = 1 << 20


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


def working_directory() -> Path | None:
    """Return where a tool is to run: None is here; where this account could not come back to, it is the root.

    Root's home for another account, or a directory that is gone: HAProxy 2.6 ends there before it reads its configuration
    ("Impossible to get back to initial directory").
    """
    try:
        return None if os.access(Path.cwd(), os.X_OK) else Path("/")
    except OSError:
        return Path("/")


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
    given = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    pipes = {"stdin": given, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    where = directory or working_directory()
    async with _running(command, timeout_s, env=clean_environment(environment), cwd=where, **pipes) as process:
        out, err, _ = await asyncio.gather(_kept(process.stdout), _kept(process.stderr), _fed(process.stdin, stdin))
        await process.wait()
    return Finished(process.returncode or 0, _text(out), _text(err))


async def _kept(stream: asyncio.StreamReader | None) -> bytes:
    """Read a stream to its end and return its beginning: what a tool says without end is not held."""
    out = bytearray()
    while stream is not None and (chunk := await stream.read(_LONGEST_LINE)):
        out += chunk[: max(0, OUTPUT_LIMIT_BYTES - len(out))]
    return bytes(out)


async def _fed(stream: asyncio.StreamWriter | None, given: bytes | None) -> None:
    if stream is None or given is None:
        return
    # A tool may end before it has read all.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stream.write(given)
        await stream.drain()
    stream.close()


async def follow(arguments: Sequence[str], *, timeout_s: float, heard: Callable[[str], None]) -> int:
    """Run somebody's own command to its end, pass on each line of its output as it comes, and return its status.

    It sees every variable of theirs: without their agent's socket or their ticket, ``ssh`` would log in nowhere. What it
    prints as output and as errors is one stream. A line longer than 64 Ki characters comes in pieces.

    Raises:
        Misconfigured, Unavailable: as :func:`run`.
    """
    async with (
        _pipe() as (output, into),
        _running(
            list(arguments), timeout_s, env=_theirs(), stdin=subprocess.DEVNULL, stdout=into, stderr=into
        ) as process,
    ):
        into.close()
        await _passed_on(process, output, heard)
        return await process.wait()


def _theirs() -> dict[str, str]:
    """Return this process's environment without what Muster put there for itself."""
    return {k: v for k, v in os.environ.items() if k != "PYDANTIC_DISABLE_PLUGINS"}


async def _passed_on(process: Process, output: asyncio.StreamReader, heard: Callable[[str], None]) -> None:
    """Pass lines on until the output ends, or the process did and only its children in the background hold the pipe."""
    # A progress bar ends its lines with CR alone.
    decoder = io.IncrementalNewlineDecoder(codecs.getincrementaldecoder("utf-8")("replace"), translate=True)
    pending, chunk, left_bytes = "", b".", _LEFT_BEHIND_BYTES
    while chunk and left_bytes > 0:
        try:
            async with asyncio.timeout(_LOOK_EVERY_S):
                chunk = await output.read(_LONGEST_LINE)
        except TimeoutError:
            if process.returncode is None:
                continue
            chunk = b""
        if process.returncode is not None:
            left_bytes -= len(chunk)
        *lines, pending = (pending + decoder.decode(chunk, final=not chunk)).split("\n")
        for line in lines:
            heard(line)
        if len(pending) >= _LONGEST_LINE:
            heard(pending)
            pending = ""
    if pending:
        heard(pending)


@contextlib.asynccontextmanager
async def _pipe() -> AsyncIterator[tuple[asyncio.StreamReader, IO[bytes]]]:
    """Hold a pipe: its end to read from here, and the one to give away."""
    # One of asyncio's own would stay open, past the loop's end, for as long as anybody holds its other end.
    out, into = os.pipe()
    with os.fdopen(into, "wb", buffering=0) as writing, os.fdopen(out, "rb", buffering=0) as reading:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), reading)
        try:
            yield reader, writing
        finally:
            transport.close()


@contextlib.asynccontextmanager
async def _running(command: list[str], timeout_s: float, **how: Any) -> AsyncIterator[Process]:
    """Hold a process running in a session of its own, of which nothing is left when the block ends before it."""
    try:
        process = await asyncio.create_subprocess_exec(*command, **how, start_new_session=True)
    except OSError as e:
        raise Misconfigured(f"Running {command[0]} failed: {e.strerror or e}") from e
    try:
        async with asyncio.timeout(timeout_s):
            yield process
    except TimeoutError:
        raise Unavailable(f"{command[0]} did not finish within {timeout_s:g} s and was killed") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await _buried(process)


async def _buried(process: Process) -> None:
    """Return when a killed process is gone and nothing is held for it.

    ``wait()`` would wait for the ends of its pipes, too: for who reads them no more they never come, nor while somebody whom
    it left behind has them open.
    """
    while process.returncode is None:
        await asyncio.sleep(_LOOK_KILLED_S)
    # There is no public way to close what is still open; who closes it twice does no harm.
    process._transport.close()  # type: ignore[attr-defined]


def end_with_parent() -> None:
    """Ask the kernel to end this process with TERM when its parent dies, however that dies; for ``preexec_fn``.

    Source: prctl(2), PR_SET_PDEATHSIG. Elsewhere than on Linux it does nothing.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
