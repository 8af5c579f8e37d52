"""Commands that a person runs, or a shell reads from a file: every word quoted, long ones broken at their options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from muster.derived import consumer
from muster.derived.output import Document, Trial
from muster.kernel.errors import Rejected

_PLAIN = re.compile(r"[^\x00-\x1f\x7f]*\Z")
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")
_SAID = re.compile(r"[A-Za-z0-9 ,.:/_()-]{1,300}\Z")
_LONG = 100


class Variable(str):
    """A word that the environment holds, by its name: what must not stand in a file that people copy."""

    __slots__ = ()


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


def needed(name: Variable, why: str) -> str:
    """Return the line that ends a script, with a sentence, where the environment lacks the variable or has it empty."""
    if not _SAID.match(why):
        raise Rejected(f"{why!r} cannot stand in a command")
    return f': {_quoted(name)[:-2]}:?{why}}}"'


def script(head: Iterable[str], commands: Sequence[str]) -> str:
    """Return a file that a shell reads: remarks, then commands; it ends at the first one that fails."""
    remarks = [f"# {line}" if line else "#" for line in head]
    return "\n".join(["#!/bin/sh", *remarks, "set -eu", "", *commands]) + "\n"


def scripted(name: str, head: Iterable[str], commands: Sequence[str]) -> Document:
    """Return the document of a script, which may be run as it lies there."""
    return Document(name, script(head, commands), "sh", 0o755)


async def _read(directory: Path, documents: Sequence[Document]) -> None:
    shell = consumer.found("sh", "install a shell")
    for document in documents:
        await consumer.accepted([shell, "-n", directory / document.name])


READ_BY_SH = Trial("sh", "Have sh read it, without running any of it.", _read)
"""How scripts are checked: their programs are elsewhere."""


def _quoted(word: str) -> str:
    if isinstance(word, Variable):
        if not _NAME.match(word):
            raise Rejected(f"{str(word)!r} is no name of a variable")
        return f'"${{{word}}}"'
    if not _PLAIN.match(word):
        raise Rejected(f"{word!r} cannot stand in a command: it holds a control character")
    return shlex.quote(word)
