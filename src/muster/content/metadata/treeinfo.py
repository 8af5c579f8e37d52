"""``.treeinfo`` and ``treeinfo``: the files of an installation tree that have checksums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import PROOFS, Algorithm, checksum, is_inside
from muster.kernel.names import shown

LIMIT_BYTES = 1 << 20
_LIMIT_FILES = 10_000


class Checksum(NamedTuple):
    """What a file's bytes are.

    Attributes:
        digest: hex, lower case.
    """

    algorithm: Algorithm
    digest: str

    @property
    def is_proven(self) -> bool:
        """Whether bytes of this digest are those that were meant; md5, sha1 and sha224 tell slips alone."""
        return self.algorithm in PROOFS


def checksums(body: bytes, *, of: str = "treeinfo") -> Mapping[str, Checksum]:
    """Return path to checksum for the section ``checksums``, in its order; empty where there is no such section.

    The other sections are passed over: their entries may be anything. ``of`` is what an error calls the file.

    Raises:
        Malformed: larger than 1 MiB, no UTF-8, without any section, more than 10 000 files, or in that section a line that
            is no entry, a path that does not lead inside the tree or is there twice, or a checksum that is none.
    """
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    try:
        text = body.decode()
    except UnicodeDecodeError as e:
        raise Malformed.reading(of, f"it is not UTF-8 at byte {e.start}") from None
    section = None
    found: dict[str, Checksum] = {}
    # Not configparser: its pattern for an entry reads a long line again and again.
    for line in text.split("\n"):
        entry = line.strip()
        if not entry or entry[0] in "#;":
            continue
        if entry[0] == "[" and entry[-1] == "]":
            section = entry[1:-1].strip()
        elif section == "checksums":
            _add(found, entry, of)
    if section is None:
        raise Malformed.reading(of, "it has no section")
    return found


def _add(found: dict[str, Checksum], entry: str, of: str) -> None:
    path, _, value = entry.partition("=")
    path = path.rstrip()
    algorithm, _, digest = value.partition(":")
    proof = checksum(algorithm.strip(), digest.strip())
    if not is_inside(path):
        raise Malformed.reading(of, f"{shown(path)!r} is no path inside the tree")
    if proof is None:
        raise Malformed.reading(of, f"{shown(path)!r} has no checksum that is one")
    if path in found or len(found) == _LIMIT_FILES:
        raise Malformed.reading(of, f"{shown(path)!r} is there twice, or it has more than {_LIMIT_FILES} files")
    found[path] = Checksum(*proof)
