"""The program ``oscap``, of OpenSCAP: reports and guides as pages. Where it is not installed, they are answered 501.

It is run within bounds of time, processor, memory and output, on documents that were read here before.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

from muster.kernel import process
from muster.kernel.errors import MusterError, Rejected, Unsupported
from muster.kernel.names import shown

TIMEOUT_S = 120.0
_MEMORY_BYTES = 4 << 30
LARGEST_PAGE_BYTES = 64 << 20
_PROFILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,511}")
_LONGEST_WORDS = 300
_AT_ONCE = 2


class Unreadable(MusterError):
    """What was to be shown could not be."""

    status = 500


def lack() -> str:
    """Return why no page can be made on this host; empty: one can."""
    absent = [name for name in ("oscap", "prlimit") if shutil.which(name) is None]
    if not absent:
        return ""
    of = "openscap-scanner (Debian 12: openscap-scanner; EL: openscap-scanner)" if "oscap" in absent else "util-linux"
    return f"{absent[0]} is not installed on this member; it is in the package {of}"


def profile(text: str) -> str:
    """Return the id of a profile.

    Raises:
        Rejected: it is none.
    """
    if not _PROFILE.fullmatch(text):
        raise Rejected(f"{shown(text)} is no id of a profile")
    return text


class Oscap:
    """Runs it. Concurrency: two at a time; the others wait."""

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def report(self, file: Path, page: Path) -> None:
        """Write a report as a page.

        Raises:
            Unsupported: the program is not installed.
            Unreadable: it made no page of it.
            Unavailable: it took too long.
        """
        await self._run("report", "--output", page, file)

    async def guide(self, file: Path, of: str | None, page: Path) -> None:
        """Write the guide to a content, or to one of its profiles, as a page; as :meth:`report`."""
        chosen = ("--profile", profile(of)) if of else ()
        await self._run("guide", *chosen, "--output", page, file)

    async def _run(self, what: str, *more: str | Path) -> None:
        if why := lack():
            raise Unsupported(why)
        bounds = (
            "--core=0",
            f"--as={_MEMORY_BYTES}",
            f"--fsize={LARGEST_PAGE_BYTES}",
            f"--cpu={round(self._timeout_s)}",
        )
        async with self._slots:
            done = await process.run(
                ["prlimit", *bounds, "oscap", "xccdf", "generate", what, *more], timeout_s=self._timeout_s
            )
        if done.status:
            words = " ".join((done.stderr or done.stdout).split())[:_LONGEST_WORDS]
            raise Unreadable(f"oscap made no {what} of it: {words or f'it ended with {done.status}'}")
