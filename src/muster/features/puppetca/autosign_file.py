"""A puppetserver's ``autosign.conf`` on this host, in which the cluster's list has a part of its own.

Source: docs/facts/puppet-ca.md §4: one entry a line, ``#`` begins a comment, an executable file is a program.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from muster.kernel.errors import Misconfigured, MusterError, Unavailable
from muster.kernel.files import fingerprint, read_bounded, replace_for_readers
from muster.kernel.log import logger

_log = logger("features")

BEGIN = "# Muster's names; what is changed between these two lines is undone"
END = "# The end of Muster's names"
_LIMIT_BYTES = 4 << 20
_ANY_EXECUTES = 0o111


class AutosignFile:
    """One host's file.

    Attributes:
        trouble: why it does not say what the list says; empty when it does.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: tuple[object, ...] | None = None
        self.trouble = ""

    async def hold(self, names: Sequence[str]) -> None:
        """Make the file say these names in its part; when it does already, that costs a look.

        Raises nothing: the list was changed for every member, and this host may not be the one that signs. A failure is
        :attr:`trouble`, logged once, and the next call tries again.

        Concurrency: one call at a time.
        """
        try:
            found = self._look(names)
            if self._held != found:
                # What was written is read once more with the next call: somebody may have written since.
                self._held = None if await asyncio.to_thread(_hold, self._path, names) else found
        except MusterError as e:
            if str(e) != self.trouble:
                _log.error("A puppetserver's autosign list is stale", file=str(self._path), why=str(e))
            self.trouble = str(e)
        else:
            self.trouble = ""

    def _look(self, names: Sequence[str]) -> tuple[object, ...]:
        return (tuple(names), *fingerprint(self._path))


def merged(content: str, names: Sequence[str]) -> str:
    """Return a file's content with these names in our part, which comes last where there is none yet; pure.

    Raises:
        Misconfigured: where our part begins or ends cannot be said.
    """
    lines = content.split("\n")
    bounds = [n for n, line in enumerate(lines) if line.strip() in (BEGIN, END)]
    ours = [BEGIN, *names, END]
    if not bounds:
        if not names:
            return content
        rest = content if not content or content.endswith("\n") else f"{content}\n"
        return rest + "".join(f"{line}\n" for line in ours)
    if [lines[n].strip() for n in bounds] != [BEGIN, END]:
        raise Misconfigured(
            f"not exactly one line {BEGIN!r} and after it one line {END!r}: which names are Muster's cannot be said"
        )
    first, last = bounds
    return "\n".join([*lines[:first], *ours, *lines[last + 1 :]])


def _hold(path: Path, names: Sequence[str]) -> bool:
    """Return whether the file had to be written."""
    try:
        before = path.stat()
    except FileNotFoundError:
        before = None
    except OSError as e:
        raise Unavailable(f"Reading the autosign list {path} failed: {e.strerror or e}") from e
    if before is not None and before.st_mode & _ANY_EXECUTES:
        raise Misconfigured(f"{path} is executable: puppetserver runs it as a program and reads no names from it")
    # Bytes that are no UTF-8 are somebody else's, too, and stay what they are.
    content = "" if before is None else _read(path)
    try:
        wanted = merged(content, names)
    except Misconfigured as e:
        raise Misconfigured(f"{path} has {e}") from e
    if wanted == content:
        return False
    replace_for_readers(path, wanted.encode("utf-8", "surrogateescape"))
    return True


def _read(path: Path) -> str:
    return read_bounded(path, what="the autosign list", limit_bytes=_LIMIT_BYTES).decode("utf-8", "surrogateescape")
