"""Publishes older content under a newer revision, for clients that would not go back to an older one.

Only what names the version is written anew, and of that only what says how new it is: of yum the revision of ``repomd.xml``,
of deb the ``Date`` of ``Release``. A ``Valid-Until`` stays what the origin said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from xml.parsers import expat

from muster.cluster.mirror import Mirrored
from muster.content.kept import Kept
from muster.content.manifest import IN_RELEASE, RELEASE, REPOMD, Manifest
from muster.content.metadata import release, repomd
from muster.content.metadata.malformed import Malformed
from muster.content.mirror.publications import Publication
from muster.content.mirror.tree import FILES
from muster.kernel.errors import Rejected, Unavailable

_SIGNED = {"yum": (f"{REPOMD}.asc",), "deb": (IN_RELEASE, "Release.gpg")}
# What an installation tree may say of the file that is written anew.
_CHECKSUM = re.compile(rb"[ \t]*repodata/repomd\.xml[ \t]*[=:]")
_DATE = re.compile(rb"date[ \t]*:", re.IGNORECASE)


async def republished(
    mirrored: Mirrored, publication: Publication, kept: Kept, *, now: float, above: float = -1.0
) -> Publication:
    """Return a publication of the same content whose parts are newer than they are; it lies on the disk, too.

    Their revision, or date, is ``now`` in whole seconds, and more than ``above`` and than what they have. What a
    ``treeinfo`` says of ``repomd.xml`` is taken out of it. apt takes no ``Release`` of a day to come, so ``now`` is to be
    that, and ``above`` no later. ``made_at`` is for the caller to say.

    Raises:
        Rejected: it is signed, and no signature would fit; or files or images, which have no revision.
        Unavailable: the disk refused, or has not all of it.
        Full: there is no room.
    """
    if mirrored.kind in ("file", "container"):
        what = "files" if mirrored.kind == "file" else "images"
        raise Rejected(
            f"{publication.repository} is a repository of {what}: it has no revision, and clients take what they get; "
            "promote the older publication instead"
        )
    before: dict[str, tuple[Manifest, bytes]] = {}
    for part, digest in publication.parts.items():
        manifest = await _manifest(kept, digest, publication, part)
        if signature := next((name for name in _SIGNED[mirrored.kind] if name in manifest.files), None):
            raise Rejected(
                f"{_called(publication, part)} is signed ({signature}): with another "
                f"{'revision' if mirrored.kind == 'yum' else 'date'} the signature would not fit any more"
            )
        entry = await kept.read(manifest.digest)
        if entry is None:
            raise Unavailable(f"What names the version of {_called(publication, part)} is not on this disk")
        before[part] = manifest, entry
    rewritten = _yum if mirrored.kind == "yum" else _deb
    made = {part: rewritten(manifest, body, now, above) for part, (manifest, body) in before.items()}
    parts: dict[str, str] = {}
    for part, one in made.items():
        manifest, files = one.manifest, dict(one.manifest.files)
        files[one.entry] = await kept.add_bytes(one.body)
        if mirrored.kind == "yum":
            files |= await _trees(kept, manifest.files)
        parts[part] = await kept.add_bytes(replace(manifest, files=files).written())
    return replace(publication, parts=parts, of=publication.digest, made_at=0.0)


@dataclass(frozen=True)
class _Made:
    """A part's entry as it is written anew; the manifest still names the older one."""

    manifest: Manifest
    entry: str
    body: bytes


def _yum(manifest: Manifest, body: bytes, now: float, above: float) -> _Made:
    revision = _newer(now, above, manifest.revision)
    return _Made(replace(manifest, revision=revision), REPOMD, with_revision(body, revision))


def _deb(manifest: Manifest, body: bytes, now: float, above: float) -> _Made:
    date = _newer(now, above, manifest.timestamp)
    return _Made(replace(manifest, timestamp=float(date)), RELEASE, with_date(body, date))


def _newer(now: float, *others: float) -> int:
    return max(int(now), *(int(one) + 1 for one in others))


def with_revision(body: bytes, revision: int) -> bytes:
    """Return a ``repomd.xml`` with another revision, and every other byte as it was.

    Raises:
        Malformed: it is none.
        Rejected: there is no place in it where a revision could stand.
    """
    before = repomd.read(body)
    start, end = _place(body)
    made = b"%b<revision>%d</revision>%b" % (body[:start], revision, body[end:])
    try:
        is_it = repomd.read(made) == replace(before, revision=str(revision))
    except Malformed:
        is_it = False
    if not is_it:
        raise Rejected("The repomd.xml is written in a way in which its revision cannot be replaced")
    return made


def _place(body: bytes) -> tuple[int, int]:
    """Return where the revision begins and ends, or twice where one can stand."""
    parser = expat.ParserCreate()
    depth = 0
    # Where the root's first child may stand, and where the element begins and ends; what comes next tells ends.
    first, start, end = -1, -1, -1
    waits = ""

    def came() -> None:
        nonlocal first, end, waits
        if waits == "first":
            first = parser.CurrentByteIndex
        elif waits == "end":
            end = parser.CurrentByteIndex
        waits = ""

    def begins(name: str, _: dict[str, str]) -> None:
        nonlocal depth, start, waits
        came()
        depth += 1
        if depth == 1:
            waits = "first"
        elif depth == 2 and name == "revision":
            start = parser.CurrentByteIndex

    def ends(name: str) -> None:
        nonlocal depth, waits
        came()
        if depth == 2 and name == "revision":
            waits = "end"
        depth -= 1

    parser.StartElementHandler, parser.EndElementHandler = begins, ends
    # Text, comments and all else.
    parser.DefaultHandler = lambda _: came()
    parser.Parse(body, True)
    return (start, end) if start >= 0 else (first, first)


def with_date(body: bytes, date: int) -> bytes:
    """Return a ``Release`` with another date, and every other byte as it was.

    Raises:
        Malformed: it is none.
        Rejected: it is signed where it stands, or its date cannot be replaced.
    """
    before = release.read(body)
    if release.is_signed(body):
        raise Rejected("The Release is signed where it stands: with another date the signature would not fit any more")
    line = f"Date: {format_datetime(datetime.fromtimestamp(date, UTC), usegmt=True)}".encode()
    lines = body.split(b"\n")
    at = next((number for number, one in enumerate(lines) if _DATE.match(one)), None)
    if at is None:
        at = next(number for number, one in enumerate(lines) if one.strip())
        lines.insert(at, line)
    else:
        lines[at] = line
    made = b"\n".join(lines)
    try:
        is_it = release.read(made) == replace(before, date=float(date))
    except Malformed:
        is_it = False
    if not is_it:
        raise Rejected("The Release is written in a way in which its date cannot be replaced")
    return made


async def _trees(kept: Kept, files: Mapping[str, str]) -> dict[str, str]:
    """Return the files that say what ``repomd.xml`` is, without that."""
    found: dict[str, str] = {}
    for name in FILES:
        body = await kept.read(files[name]) if name in files else None
        lines = body.split(b"\n") if body is not None else []
        if any(_CHECKSUM.match(line) for line in lines):
            found[name] = await kept.add_bytes(b"\n".join(line for line in lines if not _CHECKSUM.match(line)))
    return found


async def _manifest(kept: Kept, digest: str, publication: Publication, part: str) -> Manifest:
    body = await kept.read(digest)
    manifest = Manifest.read(body) if body is not None else None
    if manifest is None or not await kept.has(*manifest.needed):
        raise Unavailable(f"Not all metadata of {_called(publication, part)} are on this disk")
    return manifest


def _called(publication: Publication, part: str) -> str:
    return f"{publication.repository}, {part}" if part else publication.repository
