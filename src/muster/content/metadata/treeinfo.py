"""``.treeinfo`` and ``treeinfo``: what an installation tree consists of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import PROOFS, Algorithm, checksum, is_inside
from muster.kernel.names import shown

LIMIT_BYTES = 1 << 20
_LIMIT_FILES = 10_000
_LIMIT_LINES = 50_000
_LIMIT_REPOSITORIES = 50


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


@dataclass(frozen=True)
class Tree:
    """What a tree consists of, besides the repository at its root.

    Attributes:
        checksums: path to checksum for the section ``checksums``, in its order.
        images: the paths that ``images-…`` and ``stage2`` name.
        repositories: those of variants and add-ons, as paths, without the tree itself.
        outside: what of these two leads out of the tree, as it is written.
    """

    checksums: Mapping[str, Checksum]
    images: tuple[str, ...] = ()
    repositories: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()


def read(body: bytes, *, of: str = "treeinfo") -> Tree:
    """Return what a tree consists of; sections that say nothing of that are passed over: their entries may be anything.

    Raises:
        Malformed: as :func:`checksums`; more than 50 000 lines, or more than 10 000 images or 50 repositories.
    """
    said: dict[str, Checksum] = {}
    # Each once, in the order in which they stand there.
    images: dict[str, None] = {}
    repositories: dict[str, None] = {}
    outside: dict[str, None] = {}
    for section, entry in _entries(body, of):
        if section == "checksums":
            _add(said, entry, of)
            continue
        key, _, value = entry.partition("=")
        value = value.strip()
        if section == "stage2" or section.startswith("images-"):
            into, path = images, value
        elif section.startswith(("variant-", "addon-")) and key.strip() == "repository":
            into, path = repositories, value.removeprefix("./").removesuffix("/")
        else:
            continue
        if path not in ("", "."):
            (into if is_inside(path) else outside)[path] = None
        if len(images) > _LIMIT_FILES or len(repositories) > _LIMIT_REPOSITORIES or len(outside) > _LIMIT_FILES:
            raise Malformed.reading(
                of, f"it names more than {_LIMIT_FILES} images, or more than {_LIMIT_REPOSITORIES} repositories"
            )
    return Tree(said, tuple(images), tuple(repositories), tuple(outside))


def checksums(body: bytes, *, of: str = "treeinfo") -> Mapping[str, Checksum]:
    """Return path to checksum for the section ``checksums``, in its order; empty where there is no such section.

    The other sections are passed over: their entries may be anything. ``of`` is what an error calls the file.

    Raises:
        Malformed: larger than 1 MiB, no UTF-8, without any section, more than 50 000 lines, more than 10 000 files, or in
            that section a line that is no entry, a path that does not lead inside the tree or is there twice, or a checksum
            that is none.
    """
    found: dict[str, Checksum] = {}
    for section, entry in _entries(body, of):
        if section == "checksums":
            _add(found, entry, of)
    return found


def _entries(body: bytes, of: str) -> Iterator[tuple[str, str]]:
    """Yield the lines that say something, each with its section.

    Raises:
        Malformed: it is no such file.
    """
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    if body.count(b"\n") > _LIMIT_LINES:
        raise Malformed.reading(of, f"it has more than {_LIMIT_LINES} lines")
    try:
        text = body.decode()
    except UnicodeDecodeError as e:
        raise Malformed.reading(of, f"it is not UTF-8 at byte {e.start}") from None
    section = None
    # Not configparser: its pattern for an entry reads a long line again and again.
    for line in text.split("\n"):
        entry = line.strip()
        if not entry or entry[0] in "#;":
            continue
        if entry[0] == "[" and entry[-1] == "]":
            section = entry[1:-1].strip()
        elif section is not None:
            yield section, entry
    if section is None:
        raise Malformed.reading(of, "it has no section")


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
