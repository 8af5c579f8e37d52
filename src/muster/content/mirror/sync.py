"""Fetches a repository from its origin as it is at one moment: all of it is here in the end, or nothing of it.

What a part of it consists of is what :mod:`muster.content.staging` makes of it, as it would of a Pulp's, and what a
``.treeinfo`` names below it (:mod:`muster.content.mirror.tree`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Container,
    Iterable,
    Mapping,
    MutableMapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeVar
from urllib.parse import quote

from muster.cluster.mirror import Mirrored
from muster.content import kinds
from muster.content.backend import Answer, once
from muster.content.call import Asked, Call
from muster.content.fill import Behind
from muster.content.kept import Differs, Full, Kept, Oversized
from muster.content.kinds import Contents, File, Kind
from muster.content.manifest import REPOMD, Manifest
from muster.content.metadata import release
from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import whole_number
from muster.content.metadata.primary import Package
from muster.content.metadata.treeinfo import Checksum
from muster.content.mirror import paths, tree
from muster.content.mirror.named import Named, has_sources, named_in
from muster.content.mirror.narrowing import Of, narrowed, of
from muster.content.mirror.noted import Noted
from muster.content.mirror.publications import Publication
from muster.content.mirror.tree import Tree
from muster.content.resume import resumed
from muster.content.staging import Staging, index_of
from muster.kernel import log
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable

_log = log.logger("content")

Item = TypeVar("Item")

Progress = Callable[[int, int, str], Awaitable[None]]
"""Hears how many bytes have come, of how many (0: nobody knows), and what is being done."""

# How often it is begun anew where the origin has changed meanwhile.
_TIMES = 3
# A file that comes with other bytes, or not at all, may come well from another mirror.
_TRIES = 2
_ENTRY_BYTES = 4 << 20
# How long an entry takes is the origin's to say, which has its own patience.
_ENTRY_S = 600.0
# So is the pace; what stalls has its own end.
_STAGE_S = 86_400.0
_TELL_S = 1.0
_LOOKED_AT = 256
# An origin that lists no directories says of what is not there that nobody may have it.
_ABSENT = (403, 404, 410)
_PLACE = "origin"


class Synchronised(NamedTuple):
    """What came of it.

    Attributes:
        publication: what the origin has; the last one, where that is the same.
        fetched: how many packages came, which were not here.
        fetched_bytes: how large these are.
        weak: how many packages have no digest that proves anything (sha1 and weaker): they are not to be had here. Not
            counted where nothing has changed and packages do not come with their metadata.
        left_out: paths that are named and nobody can be given (:class:`muster.content.mirror.named.Named`), counted as
            ``weak`` are.
        missed: what of an installation tree is not to be had here, and why.
    """

    publication: Publication
    fetched: int = 0
    fetched_bytes: int = 0
    weak: int = 0
    left_out: frozenset[str] = frozenset()
    missed: tuple[str, ...] = ()


async def _make_no_room(_: int) -> None:
    """There is as much as there is."""


async def synchronised(
    name: str,
    mirrored: Mirrored,
    origin: Asked,
    kept: Kept,
    packages: Kept,
    *,
    last: Publication | None,
    progress: Progress,
    connections: int,
    is_needed: Callable[[str], bool] = lambda _: False,
    make_room: Callable[[int], Awaitable[None]] = _make_no_room,
    sha256_of: MutableMapping[str, str] | None = None,
) -> Synchronised:
    """Fetch what the origin has now: metadata into ``kept`` and, of what is ``immediate``, packages into ``packages``.

    Where nothing has changed since ``last``, and all of that is still here, only the entries are asked for, and what lies
    beside them. Otherwise what is here already is not fetched again. ``connections`` packages are fetched at once.

    ``is_needed`` says of a file, by its SHA-256, that it stays also where this fails; ``make_room`` is told how many bytes
    of packages will come, before they do. ``sha256_of`` has the SHA-256 of packages of which metadata say another digest,
    as ``sha512:…``, and gets those of what comes; without it such packages are fetched each time.

    While it runs, no other run removes what this one found or brought. From when it returns on, that is for ``is_needed`` to
    say, and for whoever reclaims (:func:`muster.content.mirror.noted.is_relied_on`).

    Raises:
        Rejected: this is no repository of a kind that is mirrored.
        NotFound: there is none.
        Malformed: its metadata are broken.
        Differs, Oversized: a file is not what the metadata say of it.
        Full: there is no room.
        Unavailable: something did not come, or the origin changed again and again.
        MusterError: what the origin was asked failed; as with all of these, and with a cancellation, what this run added
            is removed again.
    """
    disks = Noted(kept), Noted(packages)
    names = sha256_of if sha256_of is not None else {}
    run = _Run(name, mirrored, origin, *disks, packages, last, progress, connections, make_room, names)
    try:
        try:
            found, needed = await run.whole()
        except BaseException:
            await _drop(disks, frozenset(), is_needed)
            raise
        await _drop(disks, needed, is_needed)
    finally:
        for disk in disks:
            disk.close()
    return found


async def _drop(disks: Iterable[Noted], needed: Container[str], is_needed: Callable[[str], bool]) -> None:
    for disk in disks:
        try:
            await disk.dropped(needed, is_needed)
        except MusterError as e:
            # What became of the run counts more; what stays is reclaimed some time.
            _log.warning("What was fetched in vain stays on the disk", why=str(e))


@dataclass(frozen=True)
class _Below:
    """The origin, asked at the paths at which what is fetched from it will be given to clients.

    Attributes:
        proven: paths at the origin of what has a digest: a body that breaks off may go on with the rest of another one.
            With each, where it may lie by its digest, empty: nowhere. Caches before an origin may have what lay under the
            plain name before.
        made: what was made for this run, by its path at the origin.
    """

    origin: Asked
    at: str
    kind: Kind
    proven: Mapping[str, str] = field(default_factory=dict)
    made: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.origin.name

    @property
    def url(self) -> str:
        return self.origin.url

    async def ask(self, method: str, path: str, headers: Sequence[tuple[str, str]] = (), /) -> Answer:
        below = path.removeprefix(self.at)
        if (body := self.made.get(below)) is not None:
            return Answer(self.name, 200, (("Content-Length", str(len(body))),), once(body), lambda: None)
        if by_hash := self.proven.get(below):
            answer = await self.origin.ask(method, by_hash, headers)
            if answer.status == 200:
                return resumed(answer, _rest(self.origin, by_hash))
            answer.end()
        answer = await self.origin.ask(method, below, headers)
        is_plain = any(below.endswith(f"/{one}") for one in self.kind.plain)
        if answer.status in _ABSENT and (is_plain or self.kind.names_alone):
            answer.end()
            return Answer.absent(answer.of)
        return resumed(answer, _rest(self.origin, below)) if below in self.proven else answer


def _rest(origin: Asked, path: str) -> Callable[[int, int], Awaitable[Answer]]:
    async def rest(first: int, last: int) -> Answer:
        return await origin.ask("GET", path, [("Range", f"bytes={first}-{last}")])

    return rest


@dataclass
class _Run:
    """One synchronisation.

    Attributes:
        room: the disk of packages itself.
        done, total: bytes of packages that are here, and of all.
        came, came_bytes: packages that were fetched.
        taken: SHA-256s of those that were fetched to learn what they are.
        is_other: the origin has other files beside its entry than when this was begun.
        is_ended: who hears of progress has ended it.
    """

    name: str
    mirrored: Mirrored
    origin: Asked
    kept: Noted
    packages: Noted
    room: Kept
    last: Publication | None
    progress: Progress
    connections: int
    make_room: Callable[[int], Awaitable[None]]
    sha256_of: MutableMapping[str, str]
    done: int = 0
    total: int = 0
    came: int = 0
    came_bytes: int = 0
    is_ended: bool = False
    is_other: bool = False
    taken: set[str] = field(default_factory=set)
    _at: str = field(init=False)
    _kind: Kind = field(init=False)
    _below: _Below = field(init=False)

    def __post_init__(self) -> None:
        self._at = paths.at(_PLACE, self.mirrored.kind, self.name, "")
        self._kind = kinds.of(self._path(paths.parts(self.mirrored)[0]))
        self._below = _Below(self.origin, self._at, self._kind)

    async def whole(self) -> tuple[Synchronised, frozenset[str]]:
        """Return what the origin has, and what of it lies on the two disks."""
        for _ in range(_TIMES):
            entries = {part: await self._entry(part) for part in paths.parts(self.mirrored)}
            try:
                return await self._fetched(entries)
            except (MusterError, TimeoutError, OSError) as e:
                broke = self._said(e)
                if self.is_ended or isinstance(e, Full):
                    raise broke from e
                if not self.is_other and not await self._has_changed(entries):
                    raise broke from e
        raise Unavailable(f"{self.origin.url} changed {_TIMES} times while it was fetched; at last: {broke}")

    async def _has_changed(self, entries: Mapping[str, bytes]) -> bool:
        with contextlib.suppress(MusterError):
            return any([await self._entry(part) != body for part, body in entries.items()])
        return False

    async def _tell(self, sentence: str) -> None:
        try:
            await self.progress(self.done, self.total, sentence)
        except MusterError:
            self.is_ended = True
            raise

    def _path(self, part: str) -> str:
        return paths.at(_PLACE, self.mirrored.kind, self.name, part)

    def _said(self, error: Exception) -> MusterError:
        """Return an error that names files by where they are at the origin."""
        if not isinstance(error, MusterError):
            said = "it took too long" if isinstance(error, TimeoutError) else str(error)
            return Unavailable(f"Fetching from {self.origin.url} failed: {said}")
        error.args = (str(error).replace(self._at, self.origin.url.rstrip("/")), *error.args[1:])
        return error

    def _url(self, below: str) -> str:
        return f"{self.origin.url.rstrip('/')}/{below}"

    async def _entry(self, part: str) -> bytes:
        """Return the entry of a part as the origin has it.

        Raises:
            NotFound, Rejected, Unavailable: there is none, and why.
        """
        said = []
        for entry in self._kind.entries:
            below = f"{part}/{entry}" if part else entry
            answer = await self.origin.ask("GET", f"/{below}", ())
            if answer.status == 200:
                body = await answer.whole(_ENTRY_BYTES)
                if body is None:
                    raise Unavailable(f"{self._url(below)} is larger than {_ENTRY_BYTES >> 20} MiB")
                return body
            answer.end()
            said.append(f"{answer.status} for {self._url(below)}")
            if answer.status not in _ABSENT:
                raise Unavailable(f"{answer.of} answers {said[-1]}")
        if self.mirrored.kind == "deb":
            await self._refuse_flat(part.removeprefix("dists/"))
        raise NotFound(f"There is no {self.mirrored.kind} repository: {self.origin.name} answers {', '.join(said)}")

    async def _refuse_flat(self, suite: str) -> None:
        for place in ("", f"{suite}/"):
            for entry in self._kind.entries:
                answer = await self.origin.ask("HEAD", f"/{place}{entry}", ())
                answer.end()
                if answer.status == 200:
                    raise Rejected(
                        f"{self._url(place + entry)} is that of a flat repository, which has no suites below dists: "
                        "such repositories are not mirrored"
                    )

    async def _before(
        self, entries: Mapping[str, bytes], contents: Mapping[str, Contents]
    ) -> dict[str, Manifest] | None:
        """Return the parts of the last publication, where these are its entries and all is here; None: they are not."""
        if self.last is None or self.last.parts.keys() != entries.keys():
            return None
        found: dict[str, Manifest] = {}
        for part, body in entries.items():
            written = await self.kept.read(self.last.parts[part])
            if written is None:
                return None
            manifest = Manifest.read(written)
            if manifest.digest != hashlib.sha256(body).hexdigest():
                return None
            files = contents[part].files
            if (
                not await self.kept.has(*manifest.needed)
                or _of(filter(narrowed(self.mirrored), files)) != _of(f for f in files if f.href in manifest.files)
                or await has_sources(self.kept, self._kind, contents[part], manifest, part)
                is (not self.mirrored.sources)
                or not await self._has_same_beside(part, manifest)
                or not await self._has_same_tree(part, manifest)
            ):
                return None
            found[part] = manifest
        return found

    async def _has_same_beside(self, part: str, manifest: Manifest, above: str = "") -> bool:
        """Whether what has no digest in its name is as it was: a signature may come later than what it signs.

        ``above`` is where a repository lies in a tree, with its slash; of that one the entry is looked at, too.
        """
        for name in (f"{above}{one}" for one in sorted(self._kind.plain)):
            digest = manifest.files.get(name)
            if digest == manifest.digest:
                continue
            answer = await self._below.ask("GET", f"{self._path(part)}/{quote(name)}")
            body = await answer.whole(_ENTRY_BYTES)
            if digest != (hashlib.sha256(body or b"").hexdigest() if answer.status == 200 else None):
                return False
        return True

    async def _has_same_tree(self, part: str, manifest: Manifest) -> bool:
        """Whether of what a tree names the same is there as before; of images without checksums that is not looked at."""
        planted = await tree.read(self.kept, manifest)
        for one in planted.repositories:
            if not await self._has_same_beside(part, manifest, f"{one}/"):
                return False
        images, _ = await tree.absent(self.kept, manifest, planted)
        there: list[str] = []

        async def look(href: str) -> None:
            answer = await self.origin.ask("HEAD", f"/{quote(href)}", ())
            answer.end()
            if answer.status == 200:
                there.append(href)

        await self._looked_at(images, look)
        return not there

    async def _looked_at(self, hrefs: Collection[str], look: Callable[[str], Awaitable[None]]) -> None:
        if hrefs:
            await self._each(list(hrefs), look, f"Looking at {len(hrefs)} files of the tree of {self.name}")

    async def _fetched(self, entries: Mapping[str, bytes]) -> tuple[Synchronised, frozenset[str]]:
        self.taken.clear()
        self.is_other = False
        contents = {part: await asyncio.to_thread(self._kind.read, body) for part, body in entries.items()}
        manifests = await self._before(entries, contents)
        last = self.last if manifests is not None else None
        if manifests is None:
            manifests = {}
            for part, body in entries.items():
                await self._tell(f"Fetching the metadata of {part or self.name}")
                manifests[part] = await self._staged(part, body, contents[part])
        metadata = {digest for one in manifests.values() for digest in one.needed}
        missed = tuple([one for m in manifests.values() for one in await self._left_out(m)])
        if last is not None:
            metadata |= {*last.parts.values()}
            if self.mirrored.policy != "immediate":
                return Synchronised(last, missed=missed), frozenset(metadata)
        # Two suites of an archive have packages in common.
        packages: dict[tuple[str, str], Package] = {}
        weak, left_out = 0, frozenset[str]()
        for part, manifest in manifests.items():
            named = await self._named(contents[part], manifest)
            if named.unclear and self._kind.is_made:
                # Its name is its digest, so it is not which of them is meant that is unclear: one of those who name it errs.
                of = f"the manifests of {self.origin.url}"
                raise Malformed.reading(of, f"they name {named.unclear[0]} with different sizes")
            packages |= {(p.href, p.digest): p for p in named.packages.values()}
            weak += named.weak
            left_out |= named.left_out
        parts = (
            {part: await self.kept.add_bytes(one.written()) for part, one in manifests.items()} if last is None else {}
        )
        metadata |= {*parts.values()}
        brought = await self._brought(packages.values()) if self.mirrored.policy == "immediate" else frozenset()
        if self.mirrored.policy != "streamed":
            brought |= self.taken
        publication = last or Publication(
            self.name, parts, self.origin.url, len(packages), sum(one.size for one in packages.values())
        )
        if not await self.kept.has(*metadata):
            raise Unavailable(f"Metadata of {self.name} are gone again from this disk")
        if self.last is not None and self.last.digest == publication.digest:
            publication = self.last
        synchronised = Synchronised(publication, self.came, self.came_bytes, weak, left_out, missed)
        return synchronised, brought | metadata

    async def _staged(self, part: str, body: bytes, contents: Contents) -> Manifest:
        """Bring the metadata of a part to the disk."""
        below = f"/{part}/" if part else "/"
        has_by_hash = self.mirrored.kind == "deb" and release.read(body).has_by_hash
        proven = {
            f"{below}{quote(one.href)}": f"{below}{_by_hash(one)}" if has_by_hash else ""
            for one in contents.files
            if one.digest is not None
        }
        made = {f"{below}{self._kind.entry(body)}": body} if self._kind.is_made else {}
        call = Call(replace(self._below, proven=proven, made=made), None, (), Behind("", None))
        staging = Staging(
            lambda _: call,
            self.kept,
            wanted=narrowed(self.mirrored),
            lists=self._lists,
            at_once=self.connections,
            poll_s=_ENTRY_S,
            stage_s=_STAGE_S,
        )
        manifest = await staging.staged(self._path(part), body, None)
        planted = await tree.read(self.kept, manifest)
        return await self._grown(contents, manifest, planted, staging) if planted else manifest

    def _lists(self, file: File) -> str:
        return file.lists or (self._kind.sources(file.href) if self.mirrored.sources else "")

    async def _left_out(self, manifest: Manifest) -> tuple[str, ...]:
        return await tree.left_out(self.kept, manifest, await tree.read(self.kept, manifest))

    async def _grown(self, contents: Contents, manifest: Manifest, planted: Tree, staging: Staging) -> Manifest:
        """Return a version, which is all that is published of a repository, with what its tree consists of."""
        files = dict(manifest.files)
        for place in planted.repositories:
            body = await self._nested(place)
            if body is not None:
                within = await staging.staged(self._path(quote(place)), body, None)
                files |= {f"{place}/{name}": digest for name, digest in within.files.items()}
        grown = replace(manifest, files=files)
        listed = dict((await self._named(contents, grown)).packages)
        images = {href: proof for href, proof in planted.images.items() if href not in listed and href not in files}
        listed |= {one.href: one for one in await self._images(images)}
        if not await self._has_same_beside("", manifest):
            self.is_other = True
            raise Unavailable(f"What lies beside {self._url(REPOMD)} changed while it was fetched")
        if not listed:
            return grown
        return replace(grown, packages=await self.kept.add_bytes(await asyncio.to_thread(index_of, listed.values())))

    async def _nested(self, place: str) -> bytes | None:
        """Return the entry of a repository in a tree; None: there is none."""
        try:
            return await self._entry(quote(place))
        except NotFound:
            return None

    async def _images(self, images: Mapping[str, Checksum | None]) -> list[Package]:
        """Return what the images of a tree are, without those that the origin does not have."""
        found: list[Package] = []

        async def look(href: str) -> None:
            one = await self._image(href, images[href])
            if one is not None:
                found.append(one)

        await self._looked_at(images, look)
        return found

    async def _image(self, href: str, proof: Checksum | None) -> Package | None:
        """Return what an image is: a checksum says nothing of its size, and without one it has to be read."""
        if proof is not None and proof.is_proven:
            answer = await self.origin.ask("HEAD", f"/{quote(href)}", ())
            answer.end()
            if answer.status in _ABSENT:
                return None
            size = _length(answer)
            # Servers that make it while they answer may say that it has none.
            if answer.status == 200 and size:
                return Package(href, size, *proof)
        tries_left = _TRIES
        while True:
            tries_left -= 1
            try:
                return await self._read_whole(href, proof)
            except MusterError as e:
                if not tries_left or isinstance(e, Full):
                    raise

    async def _read_whole(self, href: str, proof: Checksum | None) -> Package | None:
        """Bring an image to the disk to learn what it is, and compare it with a checksum that is no proof, too."""
        answer = await self.origin.ask("GET", f"/{quote(href)}", ())
        try:
            if answer.status in _ABSENT:
                return None
            if answer.status != 200:
                raise Unavailable(
                    f"{answer.of} answers {answer.status} for {self._url(href)}, which its treeinfo names"
                )
            size, came = _length(answer), 0
            hashed = hashlib.new(proof.algorithm if proof is not None else "sha256", usedforsecurity=False)

            def note(piece: bytes) -> None:
                nonlocal came
                came += len(piece)
                hashed.update(piece)

            await self.make_room(size or 0)
            name = await self.packages.add(
                _noting(answer.pieces, note), digest=None, size=size, largest=self.room.limit_bytes
            )  # fmt: skip
            if proof is not None and hashed.hexdigest() != proof.digest:
                said = f"its treeinfo says {proof.algorithm}:{proof.digest}"
                raise Differs(f"{answer.of} gives another {self._url(href)}: {said}")
        finally:
            await answer.pieces.aclose()
            answer.end()
        if name not in self.taken:
            self.taken.add(name)
            self.came, self.came_bytes = self.came + 1, self.came_bytes + came
        if proof is not None and proof.is_proven and proof.algorithm != "sha256":
            self.sha256_of[f"{proof.algorithm}:{proof.digest}"] = name
            return Package(href, came, *proof)
        return Package(href, came, "sha256", name)

    async def _named(self, contents: Contents, manifest: Manifest) -> Named:
        return await named_in(self.kept, self._kind, contents, manifest, self.name)

    async def _missing(self, packages: Iterable[Package]) -> dict[tuple[str, str], Package]:
        """Return which of these are not on the disk, by digest."""
        missing: dict[tuple[str, str], Package] = {}
        batch: dict[str, Package] = {}
        for one in packages:
            name = one.digest if one.algorithm == "sha256" else self.sha256_of.get(f"{one.algorithm}:{one.digest}")
            if name is None:
                missing[one.algorithm, one.digest] = one
                continue
            batch[name] = one
            if len(batch) == _LOOKED_AT:
                missing |= await self._absent(batch)
                batch = {}
        return missing | await self._absent(batch)

    async def _absent(self, batch: Mapping[str, Package]) -> dict[tuple[str, str], Package]:
        # One look for all of them, where all are there.
        if await self.packages.has(*batch):
            return {}
        return {(p.algorithm, p.digest): p for name, p in batch.items() if not await self.packages.has(name)}

    async def _brought(self, packages: Iterable[Package]) -> frozenset[str]:
        """Bring all of these to the disk, and return their SHA-256s."""
        wanted = {(one.algorithm, one.digest): one for one in packages}
        missing = await self._missing(wanted.values())
        self.total = sum(one.size for one in wanted.values())
        bytes_missing = sum(one.size for one in missing.values())
        self.done = self.total - bytes_missing
        if missing:
            await self.make_room(bytes_missing)
            held = await self.room.counted()
            if held + bytes_missing > self.room.limit_bytes:
                raise Full(
                    f"There is no room for the packages of {self.name}: {bytes_missing} bytes are to come, and "
                    f"{held} of {self.room.limit_bytes} bytes are taken"
                )
            await self._all(list(missing.values()))
        await self._tell(f"All packages of {self.name} are here")
        return frozenset(
            one.digest if one.algorithm == "sha256" else self.sha256_of[f"{one.algorithm}:{one.digest}"]
            for one in wanted.values()
        )

    async def _all(self, missing: list[Package]) -> None:
        await self._each(missing, self._package, f"Fetching {len(missing)} packages of {self.name}")

    async def _each(self, wanted: list[Item], fetch: Callable[[Item], Awaitable[None]], sentence: str) -> None:
        """Fetch all of these, some at once; meanwhile it is told what is being done."""
        coming = iter(wanted)

        async def work() -> None:
            for one in coming:
                await fetch(one)

        async def tell() -> None:
            while True:
                await self._tell(sentence)
                await asyncio.sleep(_TELL_S)

        try:
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(tell())
                await asyncio.wait([group.create_task(work()) for _ in range(self.connections)])
                telling.cancel()
        except BaseExceptionGroup as failed:
            # boundary: whoever called knows no groups; the first is what ended it
            raise failed.exceptions[0] from None

    async def _package(self, one: Package) -> None:
        """Bring one to the disk."""
        for tries_left in reversed(range(_TRIES)):
            came = 0

            def count(size: int) -> None:
                nonlocal came
                came += size
                self.done += size

            try:
                name = await self._taken(one, count)
            except MusterError as e:
                self.done -= came
                if not tries_left or isinstance(e, Full):
                    raise
                continue
            break
        self.came, self.came_bytes = self.came + 1, self.came_bytes + one.size
        if one.algorithm != "sha256":
            self.sha256_of[f"{one.algorithm}:{one.digest}"] = name

    async def _taken(self, one: Package, count: Callable[[int], None]) -> str:
        path = f"/{quote(one.href)}"
        answer = await self.origin.ask("GET", path, ())
        if answer.status != 200:
            answer.end()
            raise Unavailable(f"{answer.of} answers {answer.status} for {self._url(one.href)}, which its metadata name")
        answer = resumed(answer, _rest(self.origin, path))
        try:
            return await self.packages.add(
                _counted(answer.pieces, count),
                algorithm=one.algorithm, digest=one.digest, size=one.size, largest=one.size,
            )  # fmt: skip
        except (Differs, Oversized) as e:
            raise type(e)(f"{answer.of} gives another {self._url(one.href)}: {e}") from e
        finally:
            await answer.pieces.aclose()
            answer.end()


def _counted(pieces: AsyncIterator[bytes], count: Callable[[int], None]) -> AsyncGenerator[bytes, None]:
    return _noting(pieces, lambda piece: count(len(piece)))


async def _noting(pieces: AsyncIterator[bytes], note: Callable[[bytes], None]) -> AsyncGenerator[bytes, None]:
    async for piece in pieces:
        note(piece)
        yield piece


def _length(answer: Answer) -> int | None:
    """Return how large it says that its body is; None: it does not say."""
    said = [value for name, value in answer.headers if name.lower() == "content-length"]
    return whole_number(said[0]) if len(said) == 1 else None


def _of(files: Iterable[File]) -> frozenset[Of]:
    """Return of what files are; what is of no architecture may be named, and be nowhere."""
    return frozenset(one for file in files if (one := of(file.href)).architecture)


def _by_hash(file: File) -> str:
    place = quote(file.href[: file.href.rfind("/") + 1])
    return f"{place}by-hash/{file.algorithm.upper()}/{file.digest}"
