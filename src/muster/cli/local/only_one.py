"""One local cluster in a directory, and whose it is."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from muster.cli.local.plan import run_directory
from muster.kernel.errors import Conflict, Denied
from muster.kernel.files import make_directory, write_atomically

_LETTING_GO_S = 2.0


@contextlib.contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Hold the right to run a local cluster in this directory; taken before anything in it is written.

    Raises:
        Conflict: another process has it.
        Denied: the directory of its sockets belongs to somebody else.
    """
    directory = directory.absolute()
    run = run_directory(directory)
    for needed in (directory, run):
        make_directory(needed, mode=0o700)
    if run.stat().st_uid != os.getuid():
        raise Denied(f"{run} belongs to somebody else; remove it or use another --dir")
    # The kernel lets go of the lock with the process, however that ends; the record beside it says whose it is.
    held = os.open(run / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + _LETTING_GO_S
        while not _locked(held):
            refuse_second(directory)
            if time.monotonic() > deadline:
                raise Conflict(f"A local cluster is starting or stopping in {directory}")
            time.sleep(0.02)
        record = run / "up.json"
        write_atomically(record, json.dumps({"pid": os.getpid(), "started": _started(os.getpid())}))
        try:
            yield
        finally:
            record.unlink(missing_ok=True)
    finally:
        os.close(held)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def refuse_second(directory: Path) -> None:
    """Raise Conflict when a local cluster runs in the directory."""
    if (pid := recorded(directory)) is not None:
        raise Conflict(f"A local cluster already runs in {directory} (process {pid}); muster down stops it")


def recorded(directory: Path) -> int | None:
    """Return the process that keeps the local cluster in this directory, None when none does."""
    try:
        record = json.loads((run_directory(directory) / "up.json").read_text())
        pid = int(record["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    # A number alone may belong to another process by now; number and start time together do not.
    return pid if _started(pid) == record.get("started") else None


def _started(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        # A killed process keeps its number until its parent has read its exit status, which may take long.
        return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        return None
