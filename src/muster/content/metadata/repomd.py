"""``repomd.xml``: which files are a yum repository's metadata, and which version of it this is.

Source: docs/facts/content-and-boot.md §9.1 for what clients make of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.markup import Record, records
from muster.content.metadata.names import PROOFS, Algorithm, checksum, is_inside, whole_number
from muster.kernel.names import shown

LIMIT_BYTES = 4 << 20
_LIMIT_FILES = 1000
_LIMIT_REVISION = 256
_KIND = re.compile(r"[!-~]{1,128}\Z")
_TIMESTAMP = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?\Z")
_NUMBER = re.compile(r"[0-9]{1,18}\Z")
_WANTED = {
    "revision": frozenset[str](),
    "data": frozenset({"checksum", "location", "timestamp", "size", "open-size"}),
}


@dataclass(frozen=True, slots=True)
class Named:
    """A file that a repomd names.

    Attributes:
        kind: as it is written: ``primary``, ``primary_db``, ``group_gz``, ``updateinfo``, ...
        href: the path below the repository, plain text: in a URL it has to be quoted.
        digest: hex, lower case.
        size: of the file as it is, in bytes; None where the repomd does not say it.
        opened_size: of what is packed in it.
    """

    kind: str
    href: str
    algorithm: Algorithm
    digest: str
    size: int | None
    opened_size: int | None

    @property
    def is_proven(self) -> bool:
        """Whether bytes of this digest are those that were meant; md5, sha1 and sha224 tell slips alone."""
        return self.algorithm in PROOFS


@dataclass(frozen=True, slots=True)
class Repomd:
    """What a repomd says.

    Attributes:
        revision: often seconds since 1970 or a counter, and may be any text, or empty.
        timestamp: the latest of its files, seconds since 1970; 0 where none has one.
        files: in the order of the document.
        elsewhere: kinds of those that lie on another server (``xml:base``): clients fetch them there, and never here.
    """

    revision: str
    timestamp: float
    files: tuple[Named, ...]
    elsewhere: tuple[str, ...] = ()

    @property
    def order_key(self) -> tuple[int, float]:
        """What is larger in a newer version, as far as a repomd alone tells.

        The revision, -1 where it is no whole number of at most 18 digits; then the time of the latest file.

        An emptied repository has revision 0 in Pulp, and one that was rolled back has an older one: neither is an error.
        """
        return int(self.revision) if _NUMBER.match(self.revision) else -1, self.timestamp


def read(body: bytes, *, of: str = "repomd.xml") -> Repomd:
    """Return what a repomd says; ``of`` is what an error calls it.

    Raises:
        Malformed: larger than 4 MiB, no such XML, more than 1000 files, or a file without a place inside the
            repository or without a checksum of its algorithm's length.
    """
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    revisions: list[str] = []
    files: list[Named] = []
    elsewhere: list[str] = []
    timestamp = 0.0
    for record in records([body], "repomd", _WANTED, of=of, limit_records=_LIMIT_FILES + 1):
        if record.name == "revision":
            revisions.append(record.text)
            continue
        kind = record.attributes.get("type", "")
        if not _KIND.match(kind):
            raise Malformed.reading(of, f"{shown(kind)!r} is no kind of metadata")
        timestamp = max(timestamp, _timestamp(record, kind, of))
        place = record.fields.get("location")
        if place is not None and "xml:base" in place.attributes:
            elsewhere.append(kind)
        else:
            files.append(_named(record, kind, of))
    if len(revisions) > 1 or any(len(r) > _LIMIT_REVISION for r in revisions):
        raise Malformed.reading(of, f"it has several revisions, or one longer than {_LIMIT_REVISION} characters")
    return Repomd("".join(revisions), timestamp, tuple(files), tuple(elsewhere))


def _named(record: Record, kind: str, of: str) -> Named:
    place, said = record.fields.get("location"), record.fields.get("checksum")
    href = place.attributes.get("href", "") if place is not None else ""
    if not is_inside(href):
        raise Malformed.reading(of, f"the location of {kind}, {shown(href)!r}, is no path inside the repository")
    proof = checksum(said.attributes.get("type", ""), said.text) if said is not None else None
    if proof is None:
        raise Malformed.reading(of, f"{kind} has no checksum that is one")
    return Named(kind, href, *proof, _size(record, "size", of), _size(record, "open-size", of))


def _size(record: Record, name: str, of: str) -> int | None:
    found = record.fields.get(name)
    if found is None:
        return None
    size = whole_number(found.text)
    if size is None:
        raise Malformed.reading(of, f"{shown(found.text)!r} is no size")
    return size


def _timestamp(record: Record, kind: str, of: str) -> float:
    found = record.fields.get("timestamp")
    if found is None:
        return 0.0
    if not _TIMESTAMP.match(found.text):
        raise Malformed.reading(of, f"{shown(found.text)!r} is no time of {kind}")
    return float(found.text)
