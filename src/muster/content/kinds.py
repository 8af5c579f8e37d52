"""The kinds of repositories of which all members answer one version: how each is found, read, and what belongs to it.

What is followed is a path at Pulp: of yum the repository, of deb one suite, ``…/dists/SUITE``, whose packages lie beside
``dists``. The path alone says of which kind it is. Of what members mirror themselves a word in it does
(:mod:`muster.content.mirror.paths`); repositories of files and of images are followed there alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from muster.content import manifest
from muster.content.metadata import image, packages, primary, pulp_manifest, release, repomd, sources
from muster.content.metadata.names import Algorithm
from muster.content.metadata.primary import Package

_DISTS = "/dists/"
# What apt and installers fetch by themselves. The rest, Contents above all, is large and asked for by few: it is given as
# packages are, from a Pulp that has it.
_LISTS = re.compile(r"(?:.*/)?(?:Packages|Sources|Translation-[^/.]+|Release)(?:\.[a-z0-9]+)?\Z")
_PACKAGES = re.compile(r"(?P<of>(?:.*/)?Packages)(?:\.xz|\.gz|\.bz2|\.zst|)\Z")
_SOURCES = re.compile(r"(?P<of>(?:.*/)?Sources)(?:\.xz|\.gz|\.bz2|\.zst|)\Z")
# The smallest first; what is not packed at all is the most to read.
_PACKED = (".xz", ".gz", ".bz2", ".zst", "")
_LARGEST_BYTES = 128 << 20
# The store has it for a key, and PostgreSQL no longer ones than 2,700 bytes.
_LONGEST_PATH = 1024
# A component has a Release of its own for each architecture; what lies there is no suite.
_COMPONENTS = re.compile(r"(?:binary-[^/]+|source)\Z")
# ``content.mirror.paths`` says the same; what lies there imports this file.
_MIRRORED = re.compile(
    r"(?P<at>/pulp/content/muster/[^/]+/(?P<kind>yum|deb|file|container)/[^/]+)(?:/(?P<below>.*))?\Z", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class File:
    """A file that a version names.

    Attributes:
        href: the path below the repository, plain text.
        size: None where it is not said.
        digest: hex; None: what is said of it proves nothing, so it is what Pulp has under that name.
        lists: what packages are listed in it, empty: none. Of several that list the same one is read.
        is_optional: it is named, be it there or not.
        also: other names of the same bytes.
    """

    href: str
    size: int | None
    algorithm: Algorithm
    digest: str | None
    lists: str = ""
    is_optional: bool = False
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What the entry of a version says.

    Attributes:
        revision: -1 where it is no number.
        timestamp: what is larger in a newer version of the same revision.
        files: what has to lie on a disk; of those that list the same packages, what is read best comes first.
        left: files that Pulp gives, as it gives packages; their paths are below the repository.
    """

    revision: int
    timestamp: float
    files: tuple[File, ...]
    left: tuple[Package, ...] = ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One of them.

    Attributes:
        entries: what tells that there is a repository: the first that is there names its version by its digest.
        beside: what else belongs to the version, without a digest that says so.
        read: returns what an entry says.
        entry: returns which of the entries a body is.
        packages: tells the packages of a list, unpacked; the name is what errors call it.
        home: returns what the paths of packages are relative to.
        names_alone: files of one version have the names that those of another had, and are told apart by nothing: which
            version a client has decides.
        is_made: the entry is made of what an origin said, and names all else by its digest.
        sources: returns what source packages are listed in a file, by its path, as ``File.lists`` does of packages; they
            belong to a version where its index has them.
        has_trees: it may be the root of an installation tree.
    """

    entries: tuple[str, ...]
    beside: tuple[str, ...]
    read: Callable[[bytes], Contents]
    entry: Callable[[bytes], str]
    packages: Callable[[Iterable[bytes], str], Iterator[Package]]
    home: Callable[[str], str]
    names_alone: bool
    is_made: bool = False
    sources: Callable[[str], str] = lambda _: ""
    has_trees: bool = False

    @property
    def plain(self) -> frozenset[str]:
        """What every version has at most one of, and no digest in its name."""
        return frozenset((*self.entries, *self.beside))

    def plain_at(self, below: str) -> str:
        """Return which of these a path is, be it of a repository within the tree around this one; empty: none of them.

        Of what is mirrored such a repository is a part. Elsewhere it is followed as one of its own.
        """
        if below in self.plain:
            return below
        return next((name for name in sorted(self.plain) if below.endswith(f"/{name}")), "") if self.has_trees else ""


def of(path: str) -> Kind:
    """Return of which kind a repository is."""
    if (mirrored := _MIRRORED.match(path)) is not None:
        return _MIRRORED_KINDS[mirrored["kind"]]
    return _DEB if _DISTS in path else _YUM


def plain() -> frozenset[str]:
    """Return what versions of any kind have under one name: small files."""
    return _YUM.plain | _DEB.plain | _FILE.plain | _CONTAINER.plain


def begun(path: str) -> tuple[str, str] | None:
    """Return the repository that a path is an entry of, and the entry's name; None: it is none, or its path is too long."""
    for kind in (_YUM, _DEB, _FILE, _CONTAINER):
        for name in kind.entries:
            at = path.removesuffix(f"/{name}")
            if at != path and 0 < len(at) <= _LONGEST_PATH and of(at) is kind and _may_be(kind, at):
                return at, name
    return None


def _may_be(kind: Kind, at: str) -> bool:
    """Whether a path of this kind is one at which a repository of it may be."""
    if kind is _DEB:
        return _home(at) != at and not _COMPONENTS.match(at.rpartition("/")[2])
    mirrored = _MIRRORED.match(at)
    return mirrored is None or mirrored["below"] is None


def _home(suite: str) -> str:
    """Return what ``dists`` lies in; the path itself, where that is no suite."""
    if (mirrored := _MIRRORED.match(suite)) is not None:
        # The suite's own name may hold the word.
        return mirrored["at"] if (mirrored["below"] or "").startswith(_DISTS[1:]) else suite
    return suite.rpartition(_DISTS)[0]


def _yum(body: bytes) -> Contents:
    said = repomd.read(body)
    files = tuple(
        File(n.href, n.size, n.algorithm, n.digest if n.is_proven else None, n.kind if n.kind == "primary" else "")
        for n in said.files
        # A repomd cannot say what itself is, nor what signs it.
        if n.href not in _YUM.plain
    )
    return Contents(*said.order_key, files)


def _deb(body: bytes) -> Contents:
    said = release.read(body)
    files: list[File] = []
    left: list[Package] = []
    for listed in said.files:
        if listed.href in _DEB.plain:
            # apt-ftparchive lists the file that it is writing, as it is at that moment.
            continue
        algorithm, digest = listed.proof
        if listed.size > _LARGEST_BYTES or not _LISTS.match(listed.href):
            left.append(Package(listed.href, listed.size, algorithm, digest))
            continue
        named = _PACKAGES.match(listed.href)
        # The SHA-256 is what a file is kept under; by the other one it has to be found.
        place = listed.href[: listed.href.rfind("/") + 1]
        by_hash = (f"{place}by-hash/SHA512/{listed.sha512}",) if listed.sha512 else ()
        files.append(
            File(
                listed.href,
                listed.size,
                algorithm,
                digest,
                named["of"] if named else "",
                is_optional=True,
                also=by_hash,
            )
        )
    files.sort(key=_order)
    return Contents(-1, said.date, tuple(files), tuple(left))


def _order(file: File) -> int:
    of = file.lists or _sources(file.href)
    return _PACKED.index(file.href.removeprefix(of)) if of else 0


def _sources(href: str) -> str:
    found = _SOURCES.match(href)
    return found["of"] if found is not None else ""


def _deb_packages(pieces: Iterable[bytes], of: str) -> Iterator[Package]:
    return sources.files(pieces, of=of) if _sources(of) else packages.packages(pieces, of=of)


def _file(body: bytes) -> Contents:
    # It names itself, where whoever wrote it ran twice.
    listed = (one for one in pulp_manifest.packages(body) if one.href != manifest.PULP_MANIFEST)
    return Contents(-1, 0.0, (), tuple(listed))


def _container(body: bytes) -> Contents:
    files = []
    for hex_digest, (media, size) in sorted(image.Tags.read(body).manifests.items()):
        href = f"manifests/sha256:{hex_digest}"
        # What an image consists of its manifest lists, as if that were a list of packages.
        files.append(File(href, size, "sha256", hex_digest, href if media in image.IMAGES else ""))
    return Contents(-1, 0.0, tuple(files))


_YUM = Kind(
    entries=(manifest.REPOMD,),
    beside=manifest.BESIDE,
    read=_yum,
    entry=lambda _: manifest.REPOMD,
    packages=lambda pieces, of: primary.packages(pieces, of=of),
    home=lambda path: path,
    names_alone=False,
    has_trees=True,
)
_DEB = Kind(
    entries=(manifest.IN_RELEASE, manifest.RELEASE),
    beside=("Release.gpg",),
    read=_deb,
    entry=lambda body: manifest.IN_RELEASE if release.is_signed(body) else manifest.RELEASE,
    packages=_deb_packages,
    home=_home,
    names_alone=True,
    sources=_sources,
)
_FILE = Kind(
    entries=(manifest.PULP_MANIFEST,),
    beside=(),
    read=_file,
    entry=lambda _: manifest.PULP_MANIFEST,
    packages=lambda pieces, of: iter(pulp_manifest.packages(b"".join(pieces), of=of)),
    home=lambda path: path,
    names_alone=True,
)
_CONTAINER = Kind(
    entries=(manifest.TAGS,),
    beside=(),
    read=_container,
    entry=lambda _: manifest.TAGS,
    packages=lambda pieces, of: iter(image.blobs(b"".join(pieces), of=of)),
    home=lambda path: path,
    names_alone=False,
    is_made=True,
)
_MIRRORED_KINDS = {"yum": _YUM, "deb": _DEB, "file": _FILE, "container": _CONTAINER}
