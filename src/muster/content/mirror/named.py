"""The packages that a version of a repository names, with their paths, read from its own lists on the disk."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from muster.content import kinds
from muster.content.kinds import Contents, Kind
from muster.content.manifest import Manifest
from muster.content.metadata.names import PROOFS
from muster.content.metadata.primary import Package
from muster.content.staging import listed
from muster.kernel.errors import Unavailable


class Disk(Protocol):
    """Where its files lie, by their SHA-256."""

    async def path(self, sha256: str) -> Path | None: ...

    async def read(self, sha256: str) -> bytes | None: ...


class Named(NamedTuple):
    """What a version names.

    Attributes:
        packages: those that can be had, by path below the repository.
        weak: how many have no digest that proves anything (sha1 and weaker).
        unclear: the paths that are there with different bytes.
    """

    packages: dict[str, Package]
    weak: int
    unclear: tuple[str, ...] = ()


async def named(disk: Disk, path: str, manifest: Manifest) -> Named:
    """Return what a version of the repository at a path names; all of its files lie on the disk.

    Raises:
        Unavailable: one does not, or is damaged.
        Malformed: a list is none.
    """
    kind = kinds.of(path)
    body = await disk.read(manifest.digest)
    if body is None:
        raise Unavailable(f"What names the files of {path} is gone from this disk, or is damaged")
    return await named_in(disk, kind, kind.read(body), manifest, path)


async def named_in(disk: Disk, kind: Kind, contents: Contents, manifest: Manifest, what: str) -> Named:
    """As :func:`named`, of what its entry says; ``what`` is what errors call it."""
    lists: dict[str, tuple[str, Path]] = {}
    for file in contents.files:
        if file.lists and file.lists not in lists and file.href in manifest.files:
            at = await disk.path(manifest.files[file.href])
            if at is None:
                raise Unavailable(f"{file.href} of {what} is gone again from this disk, or is damaged")
            lists[file.lists] = (file.href, at)
    # Of others than files the rest is no packages.
    others = contents.left if not contents.files else ()
    return await asyncio.to_thread(_named, kind, list(lists.values()), others)


def _named(kind: Kind, lists: Sequence[tuple[str, Path]], others: Iterable[Package]) -> Named:
    """Return what the index of a version has (:func:`muster.content.index.write`), and how many it leaves out."""
    found: dict[str, Package | None] = {}
    weak: set[str] = set()
    for one in itertools.chain(others, listed(kind, lists)):
        if one.algorithm not in PROOFS:
            weak.add(one.href)
        elif found.setdefault(one.href, one) != one:
            found[one.href] = None
    clear = {href: one for href, one in found.items() if one is not None}
    return Named(clear, len(weak - found.keys()), tuple(sorted(found.keys() - clear.keys())))
