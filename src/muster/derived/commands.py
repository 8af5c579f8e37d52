"""Commands that a person runs, or a shell reads from a file: every word quoted, long ones broken at their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from muster.kernel.errors import Rejected

_PLAIN = re.compile(r"[^\x00-\x1f\x7f]*\Z")
_LONG = 100


def command(*words: str) -> str:
    """Return one command as a line of a shell; one that is long goes on at its options, a line each.

    Raises:
        Rejected: a word holds a line's end or another control character.
    """
    quoted = [_quoted(one) for one in words]
    line = " ".join(quoted)
    if len(line) <= _LONG:
        return line
    pieces: list[str] = []
    for one in quoted:
        # An option keeps what belongs to it, up to the next one.
        if pieces and not one.startswith("--"):
            pieces[-1] += f" {one}"
        else:
            pieces.append(one)
    return " \\\n  ".join(pieces)


def script(head: Iterable[str], commands: Sequence[str]) -> str:
    """Return a file that a shell reads: remarks, then commands; it ends at the first one that fails."""
    remarks = [f"# {line}" if line else "#" for line in head]
    return "\n".join(["#!/bin/sh", *remarks, "set -eu", "", *commands]) + "\n"


def _quoted(word: str) -> str:
    if not _PLAIN.match(word):
        raise Rejected(f"{word!r} cannot stand in a command: it holds a control character")
    return shlex.quote(word)
