"""Where documents lie: written there, or compared with what lies there."""

from __future__ import annotations

import difflib
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from muster.derived.output import Document, Output
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.files import make_directory, write_atomically
from muster.kernel.names import shown

# Of a file, or of one in directories: names come from members and services.
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,255}(?:/[A-Za-z0-9_.@-]{1,255}){0,6}\Z")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


@dataclass(frozen=True)
class Difference:
    """What writing a document would change.

    Attributes:
        text: the modes where they would change, then a unified diff from what lies there; empty when nothing would change.
    """

    file: Path
    text: str

    @property
    def differs(self) -> bool:
        return bool(self.text)


def put(output: Output, documents: Sequence[Document], place: Path, *, dry_run: bool, quiet: bool = False) -> None:
    """Write the documents in their order, or say what writing them would change.

    Raises:
        Unavailable: there is something that is no file, and nothing was written; or the disk refuses, or would, and what
            was written before stays.
    """
    pairs = _files(output, documents, place)
    for document, file in pairs:
        if not dry_run:
            if output.in_directory:
                make_directory(file.parent)
            write_atomically(file, document.text, mode=document.mode)
            if not quiet:
                click.echo(f"Wrote {file}")
            continue
        if not output.in_directory and not file.parent.is_dir():
            raise Unavailable(f"Writing {file} would fail: {file.parent} is no directory")
        same = not _difference(file, document)
        if not quiet:
            click.echo(f"Would write {file}: {'nothing would change' if same else f'{len(document.text)} bytes'}")


def differences(output: Output, documents: Sequence[Document], place: Path) -> list[Difference]:
    """Return what writing the documents to the place would change, a file each.

    Raises:
        OSError: what lies there cannot be read.
        Unavailable: there is something that is no file.
    """
    return [Difference(file, _difference(file, document)) for document, file in _files(output, documents, place)]


def leftovers(words: Iterable[str], documents: Sequence[Document], place: Path) -> list[Path]:
    """Return what lies below the directories of outputs and is no document: of an earlier tree, as of a member that left.

    Whatever else somebody keeps beside these directories is not looked at, and links are not followed.
    """
    known = {_below(place, d.name) for d in documents}
    found = (Path(directory, name) for word in words for directory, _, names in os.walk(place / word) for name in names)
    return sorted(file for file in found if file not in known)


def shown_difference(text: str) -> str:
    """Return a diff as it may stand on a terminal, which obeys what somebody else may have written into the file."""
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def _files(output: Output, documents: Sequence[Document], place: Path) -> list[tuple[Document, Path]]:
    pairs = [(d, _below(place, d.name) if output.in_directory else place) for d in documents]
    for _, file in pairs:
        _refuse_special(file)
    return pairs


def _below(place: Path, name: str) -> Path:
    if not _NAME.match(name) or {".", ".."} & set(name.split("/")):
        raise Rejected(f"{shown(name)} is no path below {place}")
    return place / name


def _refuse_special(file: Path) -> None:
    """Refuse a pipe, socket or device: reading may never end, and writing would put a file in its place.

    Raises:
        Unavailable: it is one.
    """
    try:
        mode = file.stat().st_mode
    except OSError:
        # Whoever reads or writes it says why.
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Unavailable(f"{file} is no file but a pipe, socket or device; name another place with --output")


def _lies(file: Path) -> str | None:
    try:
        # Not read as text: that would take CR LF for a line's end, and hide that it is not ours.
        return file.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return None


def _difference(file: Path, document: Document) -> str:
    lies = _lies(file)
    before, after = _LINE.findall(lies or ""), _LINE.findall(document.text)
    name = "/dev/null" if lies is None else str(file)
    lines = difflib.unified_diff(before, after, name, str(file), fromfiledate="", tofiledate="rendered")
    changed = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    return _other_mode(file, document) + changed


def _other_mode(file: Path, document: Document) -> str:
    """Return in git's words which mode a file has and would get; empty where they are the same, or there is no file."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        return ""
    return f"old mode 100{mode:03o}\nnew mode 100{document.mode:03o}\n" if mode != document.mode else ""
