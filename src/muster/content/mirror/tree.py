"""Installation trees: what of them belongs to a version of the repository at their root, read from the disk.

What a ``.treeinfo`` names by a checksum, or as an image, is given as packages are; repositories below the tree have their
metadata in the version, and their packages among its packages. The index of the version says what of that there is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from muster.content.index import Expected, Index
from muster.content.manifest import REPOMD, Manifest
from muster.content.metadata import treeinfo
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.treeinfo import Checksum
from muster.kernel.errors import Unavailable
from muster.kernel.names import shown

# What installers ask for first comes first, and counts.
FILES = (".treeinfo", "treeinfo")


class Disk(Protocol):
    """Where its files lie, by their SHA-256."""

    async def path(self, sha256: str) -> Path | None: ...

    async def read(self, sha256: str) -> bytes | None: ...


@dataclass(frozen=True)
class Tree:
    """What a version's ``.treeinfo`` names, besides the repository at its root.

    Attributes:
        images: paths, without those of metadata; with each what its bytes are, None: that is not said.
        repositories: paths.
        outside: what leads out of the tree.
        why: why it could not be read, in which case it names nothing.
    """

    images: Mapping[str, Checksum | None] = field(default_factory=dict)
    repositories: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    why: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to fetch."""
        return bool(self.images or self.repositories)


async def read(disk: Disk, manifest: Manifest) -> Tree:
    """Return what the tree of a version consists of; of one that is none, nothing.

    Raises:
        Unavailable: it is gone from the disk, or is damaged.
    """
    images: dict[str, Checksum | None] = {}
    repositories: dict[str, None] = {}
    outside: dict[str, None] = {}
    for name in FILES:
        if name not in manifest.files:
            continue
        body = await disk.read(manifest.files[name])
        if body is None:
            raise Unavailable(f"{name} is gone again from this disk, or is damaged")
        try:
            said = treeinfo.read(body, of=name)
        except Malformed as e:
            return Tree(why=str(e))
        for href in (*said.checksums, *said.images):
            # What repomd.xml is, it says of the day on which the tree was made.
            if not _is_metadata(href, manifest):
                images.setdefault(href, said.checksums.get(href))
        repositories |= dict.fromkeys(said.repositories)
        outside |= dict.fromkeys(said.outside)
    return Tree(images, tuple(repositories), tuple(outside))


def _is_metadata(href: str, manifest: Manifest) -> bool:
    return href in manifest.files or href in FILES or f"/{href}".rpartition("/")[0].endswith("/repodata")


def nested(tree: Tree, manifest: Manifest) -> tuple[str, ...]:
    """Return which of a tree's repositories a version has."""
    return tuple(one for one in tree.repositories if f"{one}/{REPOMD}" in manifest.files)


async def found(disk: Disk, manifest: Manifest, hrefs: Iterable[str]) -> dict[str, Expected]:
    """Return what the index of a version says of paths, without those of which it says nothing.

    Raises:
        Unavailable: it is gone from the disk, or is damaged.
    """
    wanted = list(hrefs)
    if not wanted or not manifest.packages:
        return {}
    at = await disk.path(manifest.packages)
    if at is None:
        raise Unavailable("The index of a version is gone again from this disk, or is damaged")
    return await asyncio.to_thread(_looked_up, at, wanted)


def _looked_up(at: Path, hrefs: Iterable[str]) -> dict[str, Expected]:
    with contextlib.closing(Index.opened(at)) as index:
        return {href: one for href in hrefs if (one := index.find(href)) is not None}


async def absent(disk: Disk, manifest: Manifest, tree: Tree) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return which images and which repositories of its tree a version does not have; raises as :func:`found`."""
    there = await found(disk, manifest, tree.images)
    has = nested(tree, manifest)
    return (
        tuple(href for href in tree.images if href not in there),
        tuple(one for one in tree.repositories if one not in has),
    )


async def left_out(disk: Disk, manifest: Manifest, tree: Tree) -> tuple[str, ...]:
    """Return what of its tree a version does not have, and why, in words; raises as :func:`found`."""
    images, repositories = await absent(disk, manifest, tree)
    return (
        *([f"what the tree consists of ({tree.why})"] if tree.why else []),
        *(f"{shown(href)} (the origin does not have it)" for href in images),
        *(f"{shown(one)} (the origin has no repository there)" for one in repositories),
        *(f"{shown(one)} (not below the tree: what lies elsewhere is a repository of its own)" for one in tree.outside),
    )
