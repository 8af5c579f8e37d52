"""Brings versions of repositories to a member's disk, whole: from its own Pulp, and from members that have them.

Nothing of this is in a client's way. What a version consists of is a :class:`~muster.content.manifest.Manifest`.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol
from urllib.parse import quote

from muster.content import index, kinds
from muster.content.backend import Answer
from muster.content.call import Call
from muster.content.kept import Differs, Oversized
from muster.content.kinds import File, Kind
from muster.content.manifest import Manifest
from muster.content.metadata import packed
from muster.content.metadata.primary import LeftOut, Package, unheard
from muster.content.views import Shown
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.tasks import each

KEPT_PATH = "/.muster/kept"
"""Below it other members get what lies on this one's disk, by its digest."""

SHOWN_PATH = "/.muster/shown"
"""Before the path of a repository: which version of it the store says is shown, for members that do not reach the store."""

STAGE_S = 1800.0
"""For so long at most a version comes: it may be hundreds of megabytes, and what stalls has its own end."""

_ENTRY_BYTES = 4 << 20
_GONE = (404, 410)
_LARGEST_BYTES = 1 << 30
_LARGEST_UNPACKED_BYTES = 8 << 30
_POLL_S = 3.0
# Of images thousands of small ones belong to a version.
_COPIED_AT_ONCE = 8
_SHOWN_BYTES = 1 << 10
_LARGEST_REVISION = (1 << 63) - 1


@dataclass(frozen=True)
class Polled:
    """What the own Pulp says of a repository.

    Attributes:
        reached: whether it said anything of use.
        is_open: it told somebody without a certificate.
        is_refused: it told nobody: its guard lets in neither who has no certificate nor who was let in last.
        body: the entry, of yum ``repomd.xml``; None: there is none.
        why: why it was not reached.
    """

    reached: bool
    is_open: bool = False
    is_refused: bool = False
    body: bytes | None = None
    why: str = ""


class Keeping(Protocol):
    """The disk, as :class:`muster.content.kept.Kept` has it, or what stands before that."""

    async def add(
        self,
        pieces: AsyncIterator[bytes],
        *,
        algorithm: str = "sha256",
        digest: str | None,
        size: int | None = None,
        largest: int,
    ) -> str: ...
    async def add_bytes(self, body: bytes) -> str: ...
    async def has(self, *sha256: str) -> bool: ...
    async def read(self, sha256: str) -> bytes | None: ...
    async def path(self, sha256: str) -> Path | None: ...


class Staging:
    """Stages for one member. Concurrency: any number of versions at once.

    Args:
        call: asks as a client with a certificate would, DER, None without.
        wanted: which of the files that a version names are fetched; the others are given as packages are.
        lists: what packages are listed in a file, that belong to the version; empty: none.
        at_once: so many files of a version are fetched at once.
        poll_s: for how long an entry is waited for; None: as for that of a Pulp beside.
        stage_s: for how long a whole version may take; None: as from there.
    """

    def __init__(
        self,
        call: Callable[[bytes | None], Call],
        kept: Keeping,
        *,
        wanted: Callable[[File], bool] = lambda _: True,
        lists: Callable[[File], str] = lambda file: file.lists,
        at_once: int = 1,
        poll_s: float | None = None,
        stage_s: float | None = None,
    ) -> None:
        self._call, self._kept, self._wanted, self._lists = call, kept, wanted, lists
        self._at_once = at_once
        self._poll_s, self._stage_s = poll_s, stage_s

    async def polled(self, path: str, certificate: bytes | None, *, is_guarded: bool = False) -> Polled:
        """Ask the own Pulp what it has: as nobody first, and as who was let in where that is refused.

        ``is_guarded``: it was refused a moment ago.
        """
        found = await self._polled(path, None) if certificate is None or not is_guarded else None
        if found is None and certificate is not None:
            found = await self._polled(path, certificate)
            if found is not None:
                return replace(found, is_open=False)
        if found is not None:
            return found
        return Polled(reached=False, is_refused=True, why="its guard lets nobody in who was let in before")

    async def _polled(self, path: str, certificate: bytes | None) -> Polled | None:
        """Return what it said, None: that it does not say it to this one."""
        alone = replace(self._call(certificate), fill=None)
        within_s = _POLL_S if self._poll_s is None else self._poll_s
        try:
            async with asyncio.timeout(within_s):
                for entry in kinds.of(path).entries:
                    answer = await alone.ask("GET", f"{path}/{entry}")
                    if answer.status == 200:
                        return Polled(reached=True, is_open=True, body=await _whole(answer, _ENTRY_BYTES))
                    answer.end()
                    if answer.status not in _GONE:
                        break
        except TimeoutError:
            return Polled(reached=False, why=f"no answer within {within_s:g} s")
        except MusterError as e:
            return Polled(reached=False, why=str(e))
        if answer.status in (401, 403):
            return None
        if answer.status in _GONE:
            return Polled(reached=True)
        return Polled(reached=False, why=f"{answer.of} answers {answer.status}")

    async def staged(self, path: str, body: bytes, certificate: bytes | None) -> Manifest:
        """Bring the version to the disk that the own Pulp has now, whose entry is ``body``.

        Raises:
            MusterError: it did not come whole, or has changed meanwhile; what came of it stays until it is reclaimed.
        """
        kind = kinds.of(path)
        read = kind.read(body)
        entry = kind.entry(body)
        left = list(read.left)
        async with asyncio.timeout(STAGE_S if self._stage_s is None else self._stage_s):
            # What has no digest belongs to this version where the version was there before and after; so that comes first.
            names = sorted(kind.plain - {entry})
            beside = await asyncio.gather(*(self._beside(path, name, certificate) for name in names))
            await self._see_same(path, body, certificate)
            files = {name: digest for name, digest in zip(names, beside, strict=True) if digest is not None}
            files[entry] = await self._kept.add_bytes(body)
            is_all_there = True
            came = await self._fetched(path, read.files, certificate)
            for named in read.files:
                digest = came.get(named)
                if digest is not None:
                    files |= dict.fromkeys((named.href, *named.also), digest)
                    continue
                is_all_there &= named not in came
                if named.size is not None and named.digest is not None:
                    left.append(Package(named.href, named.size, named.algorithm, named.digest))
            if not is_all_there:
                # What is not there may have been until Pulp went on to another version.
                await self._see_same(path, body, certificate)
            listing: dict[str, str] = {}
            for named in read.files:
                if (of := self._lists(named)) and named.href in files:
                    listing.setdefault(of, named.href)
            packages = await self._indexed(kind, path, [(n, files[n]) for n in listing.values()], left)
        return Manifest(min(read.revision, _LARGEST_REVISION), read.timestamp, files, packages)

    async def _see_same(self, path: str, body: bytes, certificate: bytes | None) -> None:
        if (await self.polled(path, certificate)).body != body:
            raise Unavailable(f"{path} changed while it was fetched")

    async def copied(self, digest: str) -> Manifest:
        """Bring a version to the disk that other members have, by the digest of its manifest.

        Raises:
            MusterError: none of them had all of it.
        """
        async with asyncio.timeout(STAGE_S):
            await self.copy(digest)
            manifest = await self.manifest(digest)
            if manifest is None:
                raise Unavailable("What was copied from another member is gone again")
            await each(sorted(manifest.needed), self.copy, at_once=_COPIED_AT_ONCE)
        return manifest

    async def manifest(self, digest: str) -> Manifest | None:
        """Return a manifest that lies on the disk; None: it does not."""
        body = await self._kept.read(digest)
        return Manifest.read(body) if body is not None else None

    async def carried(self, path: str, certificate: bytes | None) -> frozenset[str]:
        """Return what this Pulp and those of all other ready members have at this moment; empty: some do not say.

        These are the digests of their entries, of yum of ``repomd.xml``.
        """
        own, others = await asyncio.gather(self.polled(path, certificate), self._entries(path, certificate))
        bodies = [own.body, *others]
        found = frozenset(hashlib.sha256(b).hexdigest() for b in bodies if b is not None)
        return found if None not in bodies else frozenset()

    async def _entries(self, path: str, certificate: bytes | None) -> list[bytes | None]:
        """Return what the Pulps of all other ready members have: the first entry that any of them has."""
        call = self._call(certificate)
        bodies: list[bytes | None] = []
        if call.fill is None:
            return bodies
        for entry in kinds.of(path).entries:
            answers = await call.fill.each(
                f"{path}/{entry}", call.sent, call.client, limit_bytes=_ENTRY_BYTES, within_s=_POLL_S
            )
            bodies = [one.body if one is not None and one.status == 200 else None for one in answers]
            if any(one is None or one.status not in _GONE for one in answers):
                break
        return bodies

    async def shown_elsewhere(self, path: str) -> Shown | None:
        """Return what another member reads in the store, None: none of them can."""
        call = self._call(None)
        if call.fill is None:
            return None
        answer = await call.fill.elsewhere("GET", f"{SHOWN_PATH}{path}", [], call.client)
        if answer.status != 200:
            answer.end()
            return None
        return Shown.read(await _whole(answer, _SHOWN_BYTES))

    async def keep(self, manifest: Manifest) -> str:
        """Put a manifest on the disk; return its digest."""
        return await self._kept.add_bytes(manifest.written())

    async def has(self, manifest: Manifest) -> bool:
        """Whether all of it is on the disk."""
        return await self._kept.has(*manifest.needed)

    async def _fetched(self, path: str, named: Iterable[File], certificate: bytes | None) -> dict[File, str | None]:
        """Return the digests of those files that are wanted, as :meth:`_named`."""
        came: dict[File, str | None] = {}

        async def fetch(one: File) -> None:
            came[one] = await self._named(path, one, certificate)

        await each((one for one in named if self._wanted(one)), fetch, at_once=self._at_once)
        return came

    async def _named(self, path: str, named: File, certificate: bytes | None) -> str | None:
        """Return the digest of a file that a version names; None: it is not there, and need not be."""
        if named.algorithm == "sha256" and named.digest is not None and await self._kept.has(named.digest):
            return named.digest
        call = self._call(certificate)
        if named.is_optional:
            call = replace(call, fill=None)
        answer = await call.ask("GET", f"{path}/{quote(named.href)}")
        if named.is_optional and answer.status in _GONE:
            answer.end()
            return None
        # SHA-1 proves nothing; what it names is what its own Pulp has under that name.
        algorithm = named.algorithm if named.digest is not None else "sha256"
        return await self._taken(answer, f"{path}/{named.href}", algorithm, named.digest, named.size)

    async def _beside(self, path: str, name: str, certificate: bytes | None) -> str | None:
        answer = await replace(self._call(certificate), fill=None).ask("GET", f"{path}/{name}")
        if answer.status == 404:
            answer.end()
            return None
        return await self._taken(answer, f"{path}/{name}", "sha256", None, None, largest=_ENTRY_BYTES)

    async def copy(self, digest: str) -> None:
        """Bring a file to the disk that other members have, by its SHA-256, unless it is here and not damaged.

        Raises:
            MusterError: none of them has it.
        """
        if await self._kept.path(digest) is not None:
            return
        call = self._call(None)
        if call.fill is None:
            raise Unavailable("There is no other member to copy it from")
        path = f"{KEPT_PATH}/{digest}"
        answer = await call.fill.elsewhere("GET", path, [], call.client)
        await self._taken(answer, path, "sha256", digest, None)

    async def _taken(
        self,
        answer: Answer,
        what: str,
        algorithm: str,
        digest: str | None,
        size: int | None,
        largest: int = _LARGEST_BYTES,
    ) -> str:
        try:
            if answer.status != 200:
                raise Unavailable(f"{answer.of} answers {answer.status} for {what}")
            return await self._kept.add(
                answer.pieces, algorithm=algorithm, digest=digest, size=size, largest=largest
            )  # fmt: skip
        except (Differs, Oversized) as e:
            raise type(e)(f"{answer.of} gives another {what}: {e}") from e
        finally:
            await answer.pieces.aclose()
            answer.end()

    async def _indexed(self, kind: Kind, path: str, lists: Sequence[tuple[str, str]], left: Sequence[Package]) -> str:
        """Return the digest of the index of what Pulp gives of a version; empty: nothing.

        ``lists`` are those of its packages, by name and digest, ``left`` other files, by their paths below the repository.
        """
        if not lists and not left:
            return ""
        found = []
        for name, digest in lists:
            file = await self._kept.path(digest)
            if file is None:
                raise Unavailable("What was fetched is gone again")
            found.append((name, file))
        below = path[len(kind.home(path)) :].removeprefix("/")
        at_home = [one._replace(href=f"{below}/{one.href}" if below else one.href) for one in left]
        return await self._kept.add_bytes(
            await asyncio.to_thread(lambda: index_of(itertools.chain(at_home, listed(kind, found))))
        )


def listed(kind: Kind, lists: Sequence[tuple[str, Path]], left_out: LeftOut = unheard) -> Iterator[Package]:
    """Yield the packages of lists, by their names and where they lie, packed or not; it reads while it is asked.

    Raises:
        Malformed: a list is none.
        OSError: the disk refused.
    """
    for name, path in lists:
        with path.open("rb") as file:
            pieces = iter(partial(file.read, 256 << 10), b"")
            unpacked = packed.unpacked(pieces, of=name, limit_bytes=_LARGEST_UNPACKED_BYTES)
            yield from kind.packages(unpacked, name, left_out)


def index_of(packages: Iterable[Package]) -> bytes:
    """Return the bytes of the index of packages (:func:`muster.content.index.write`)."""
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "packages"
        index.write(written, packages)
        return written.read_bytes()


async def _whole(answer: Answer, limit_bytes: int) -> bytes:
    """Return a body.

    Raises:
        Unavailable: it is larger, or breaks off.
    """
    body = await answer.whole(limit_bytes)
    if body is None:
        raise Unavailable(f"{answer.of} answers with more than {limit_bytes >> 20} MiB")
    return body
