"""The programs that read derived documents: where they are on this host, and what they say of a document."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.process import Finished, run

# An ordinary user's PATH lacks the directories where distributions put servers.
_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin")
_LONGEST_COMPLAINT = 2000


def found(program: str, install: str, *, also: Sequence[str] = ()) -> Path:
    """Return the program of this host, looked for in PATH and where servers are installed.

    Raises:
        Unavailable: there is none; ``install`` says what to do.
    """
    search = os.pathsep.join([os.environ.get("PATH", ""), *_DIRECTORIES, *also])
    binary = shutil.which(program, path=search)
    if binary is None:
        raise Unavailable(f"No {program} in {search}: {install}")
    return Path(binary)


async def accepted(arguments: Sequence[str | Path], *, timeout_s: float = 10.0) -> Finished:
    """Return what a consumer said that found nothing wrong; the first argument is the program.

    Raises:
        Rejected: it ended with a status that is not zero; in its words.
        Unavailable: it did not answer in time, or was killed.
    """
    name = Path(arguments[0]).name
    said = await run(arguments, timeout_s=timeout_s)
    if said.status < 0:
        raise Unavailable(f"{' '.join(map(str, arguments))} was killed by signal {-said.status}")
    if said.status != 0:
        raise refusal(name, said)
    return said


def refusal(name: str, said: Finished) -> Rejected:
    """Return the consumer's complaint as one line."""
    lines = said.stderr.splitlines() or said.stdout.splitlines()
    words = "; ".join(line.strip() for line in lines if line.strip())
    return Rejected(f"{name} refuses it: {words[:_LONGEST_COMPLAINT] or f'status {said.status}'}")
