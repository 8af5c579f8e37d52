"""The packages that a version of a repository names, with their paths, read from its own lists on the disk."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from muster.content import kinds
from muster.content.index import Index
from muster.content.kinds import Contents, Kind
from muster.content.manifest import REPOMD, Manifest
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import PROOFS
from muster.content.metadata.primary import Package, unheard
from muster.content.mirror import tree
from muster.content.mirror.tree import Disk
from muster.content.staging import listed
from muster.kernel.errors import Unavailable

# Where the index has none of the first of a list it has none of the others.
_LOOKED_UP = 100


class Named(NamedTuple):
    """What a version names.

    Attributes:
        packages: those that can be had, by path below the repository.
        weak: how many have no digest that proves anything (sha1 and weaker).
        left_out: paths that nobody can be given: they mean something else to some, lead elsewhere, or are there with
            different bytes.
        unclear: of these the paths that are there with different bytes.
    """

    packages: dict[str, Package]
    weak: int
    left_out: frozenset[str]
    unclear: tuple[str, ...] = ()


class _List(NamedTuple):
    """A list that lies on the disk.

    Attributes:
        above: what its paths are below.
        is_indexed: what is in it counts where the index of the version has it.
    """

    name: str
    at: Path
    above: str = ""
    is_indexed: bool = False


async def named(disk: Disk, path: str, manifest: Manifest) -> Named:
    """Return what a version of the repository at a path names; all of its files lie on the disk.

    Raises:
        Unavailable: one does not, or is damaged.
        Malformed: a list is none.
    """
    kind = kinds.of(path)
    return await named_in(disk, kind, kind.read(await _read(disk, manifest.digest, path)), manifest, path)


async def named_in(disk: Disk, kind: Kind, contents: Contents, manifest: Manifest, what: str) -> Named:
    """As :func:`named`, of what its entry says; ``what`` is what errors call it."""
    lists = await _lists(disk, kind, contents, manifest, what)
    planted = await tree.read(disk, manifest)
    for place in tree.nested(planted, manifest):
        within = kind.read(await _read(disk, manifest.files[f"{place}/{REPOMD}"], f"{place} of {what}"))
        lists += await _lists(disk, kind, within, manifest, what, place)
    index = await disk.path(manifest.packages) if any(one.is_indexed for one in lists) and manifest.packages else None
    # Of others than files the rest is no packages.
    others = contents.left if not contents.files else ()
    left_out = contents.left_out if not contents.files else ()
    found = await asyncio.to_thread(_named, kind, lists, others, left_out, index)
    for href, one in (await tree.found(disk, manifest, planted.images)).items():
        found.packages.setdefault(href, Package(href, one.size, one.algorithm, one.digest))
    return found


async def has_sources(disk: Disk, kind: Kind, contents: Contents, manifest: Manifest, what: str) -> bool | None:
    """Return whether source packages belong to a version; None: it has no list of any. Raises as :func:`named`."""
    lists = [one for one in await _lists(disk, kind, contents, manifest, what) if one.is_indexed]
    index = await disk.path(manifest.packages) if manifest.packages else None

    def looked_up() -> bool | None:
        if not lists:
            return None
        with contextlib.ExitStack() as stack:
            opened = stack.enter_context(contextlib.closing(Index.opened(index))) if index is not None else None
            said = [found for one in lists if (found := _is_in(kind, one, opened)) is not None]
        return any(said) if said else None

    return await asyncio.to_thread(looked_up)


async def _read(disk: Disk, sha256: str, what: str) -> bytes:
    body = await disk.read(sha256)
    if body is None:
        raise Unavailable(f"What names the files of {what} is gone from this disk, or is damaged")
    return body


async def _lists(
    disk: Disk, kind: Kind, contents: Contents, manifest: Manifest, what: str, above: str = ""
) -> list[_List]:
    """Return the lists of a repository, of several that list the same the first; ``above``: where it lies in a tree."""
    lists: dict[str, _List] = {}
    for file in contents.files:
        of, href = file.lists or kind.sources(file.href), f"{above}/{file.href}" if above else file.href
        if of and of not in lists and href in manifest.files:
            at = await disk.path(manifest.files[href])
            if at is None:
                raise Unavailable(f"{href} of {what} is gone again from this disk, or is damaged")
            lists[of] = _List(file.href, at, above, is_indexed=not file.lists)
    return list(lists.values())


def _named(
    kind: Kind,
    lists: Sequence[_List],
    others: Iterable[Package],
    others_left_out: Iterable[str],
    index: Path | None,
) -> Named:
    """Return what the index of a version has (:func:`muster.content.index.write`), and how many it leaves out."""
    found: dict[str, Package | None] = {}
    weak: set[str] = set()
    left_out = set(others_left_out)
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(contextlib.closing(Index.opened(index))) if index is not None else None
        all_of_them = (_counting(kind, one, opened, left_out.add) for one in lists)
        for one in itertools.chain(others, *all_of_them):
            if one.algorithm not in PROOFS:
                weak.add(one.href)
            elif found.setdefault(one.href, one) != one:
                found[one.href] = None
    clear = {href: one for href, one in found.items() if one is not None}
    unclear = tuple(sorted(found.keys() - clear.keys()))
    return Named(clear, len(weak - found.keys()), frozenset({*left_out, *unclear}), unclear)


def _counting(kind: Kind, one: _List, index: Index | None, left_out: Callable[[str], None]) -> Iterator[Package]:
    """Yield the packages of a list that belong to the version."""
    if not one.is_indexed:
        yield from _packages(kind, one, left_out)
    elif index is not None and _is_in(kind, one, index):
        for package in _packages(kind, one):
            if package.algorithm not in PROOFS or index.find(package.href) is not None:
                yield package


def _is_in(kind: Kind, one: _List, index: Index | None) -> bool | None:
    """Return whether what a list lists is in an index; None: it lists nothing that could be."""
    with contextlib.suppress(Malformed):
        first = [p for p in itertools.islice(_packages(kind, one), _LOOKED_UP) if p.algorithm in PROOFS]
        return any(index is not None and index.find(p.href) is not None for p in first) if first else None
    # What is no list is in no index.
    return False


def _packages(kind: Kind, one: _List, left_out: Callable[[str], None] = unheard) -> Iterator[Package]:
    """Yield what a list lists, where that lies in a tree; ``left_out`` hears the paths that nobody can be given."""

    def within(href: str) -> str:
        return f"{one.above}/{href}" if one.above else href

    for package in listed(kind, [(one.name, one.at)], lambda href: left_out(within(href))):
        yield package._replace(href=within(package.href))
