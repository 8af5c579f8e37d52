"""The packages of what is mirrored: on this disk, on another member's, or at the origin, in this order.

A package is what the index of its repository says, by digest. Nobody is given other bytes: what is on a disk was looked at,
what passes through ends well only when it was right.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Container
from dataclasses import replace
from typing import NamedTuple

from muster.content.backend import Answer
from muster.content.call import Asked
from muster.content.index import Expected
from muster.content.kept import Differs, Full, Kept
from muster.content.resume import resumed
from muster.kernel import log
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.kernel.tasks import OneEach

_log = log.logger("content")

# Up to here whoever asks waits until it is on the disk, so that many who ask at once cost the origin one answer. What is
# larger begins at once.
WAITED_FOR_BYTES = 8 << 20
# How much of the room is free after it was short of it.
_FREE_AFTER = 0.1
# What has to stay is looked at no more often, where there was no room.
_FULL_S = 10.0
_AT_ONCE = 8

Elsewhere = Callable[[str], Awaitable[Answer]]
"""Asks the other members for what they have kept, by its SHA-256; 404 when none has."""


class Wanted(NamedTuple):
    """A package of a repository.

    Attributes:
        repository: the name of what is mirrored.
        href: its path at the origin, quoted, with a leading slash.
    """

    repository: str
    href: str
    expected: Expected


class Packages:
    """One process's. Concurrency: one loop, any number of calls; one process of a member keeps, see :meth:`fetch`.

    Args:
        origins: returns where a repository is fetched from; raises NotFound for one that is not mirrored.
        passing: as ``origins``, for what passes through to clients, who may be slow.

    Attributes:
        needed: returns what is never removed to make room, by SHA-256; set by whoever knows.
    """

    def __init__(
        self,
        kept: Kept,
        elsewhere: Elsewhere,
        origins: Callable[[str], Awaitable[Asked]],
        passing: Callable[[str], Awaitable[Asked]] | None = None,
    ) -> None:
        self.kept = kept
        self.needed: Callable[[], Awaitable[Container[str]]] = _nothing
        self._elsewhere, self._origins, self._passing = elsewhere, origins, passing or origins
        # By all that is wanted: of another repository the same bytes have another origin, which may have them.
        self._fetching = OneEach[Wanted](_say_failed)
        # By repository: an origin that is slow holds up no other.
        self._rooms: dict[str, asyncio.Semaphore] = {}
        self._making_room = asyncio.Lock()
        # For so many bytes there is no room until then, and what has to stay takes so many.
        self._full_until, self._full_for, self._held = 0.0, 0, 0

    async def close(self) -> None:
        """End what is under way."""
        await self._fetching.close()

    def begin(self, wanted: Wanted) -> asyncio.Task[None] | None:
        """Begin to bring a package to this disk, unless that is under way; None: it cannot stay there.

        A disk finds files by their SHA-256, so what is named by another digest does not stay.
        """
        if wanted.expected.algorithm != "sha256":
            return None
        return self._fetching.begin(wanted, self._fetch, name="package")

    async def fetch(self, wanted: Wanted) -> None:
        """Bring a package to this disk; of many who want it at once one does.

        Raises:
            NotFound: neither another member nor the origin has it.
            Full: there is no room.
            MusterError: it did not come whole, or is something else at the origin.
        """
        task = self.begin(wanted)
        if task is None:
            raise Unavailable(f"{wanted.href} is named by its {wanted.expected.algorithm} alone, and cannot stay")
        # Who goes away does not take it from the others.
        await asyncio.shield(task)

    async def passing(self, wanted: Wanted) -> Answer:
        """Return a package as it comes, for a client, 200 or 404; whoever reads it verifies it.

        Raises:
            MusterError: nobody who may have it could be asked.
        """
        return await self._asked(wanted, self._passing)

    async def _asked(self, wanted: Wanted, origins: Callable[[str], Awaitable[Asked]]) -> Answer:
        async def rest(first: int, last: int) -> Answer:
            origin = await origins(wanted.repository)
            return await origin.ask("GET", wanted.href, (("Range", f"bytes={first}-{last}"),))

        if wanted.expected.algorithm == "sha256":
            with contextlib.suppress(MusterError):
                answer = await self._elsewhere(wanted.expected.digest)
                if answer.status == 200:
                    # A member may go away; the origin has the rest.
                    return resumed(answer, rest)
                answer.end()
        origin = await origins(wanted.repository)
        answer = await origin.ask("GET", wanted.href, ())
        if answer.status in (404, 410):
            answer.end()
            return Answer.absent(answer.of)
        if answer.status != 200:
            answer.end()
            raise Unavailable(f"{answer.of} answers {answer.status} for {wanted.href}")
        return resumed(_sized(answer, wanted), rest)

    async def _fetch(self, wanted: Wanted) -> None:
        expected = wanted.expected
        # Looked at, and not only whether it is there: what is damaged is fetched anew.
        if (found := await self.kept.open(expected.digest)) is not None:
            found.close()
            return
        async with self._rooms.setdefault(wanted.repository, asyncio.Semaphore(_AT_ONCE)):
            await self.make_room(expected.size)
            answer = await self._asked(wanted, self._origins)
            try:
                if answer.status != 200:
                    raise NotFound(f"{answer.of} has no {wanted.href}, which the repository names")
                await self.kept.add(
                    answer.pieces, algorithm=expected.algorithm, digest=expected.digest, size=expected.size,
                    largest=expected.size,
                )  # fmt: skip
            finally:
                await answer.pieces.aclose()
                answer.end()

    async def make_room(self, size: int) -> None:
        """Remove what was asked for longest ago, where there is no room for so many bytes.

        Raises:
            Full: there would be none, whatever went; nothing was removed.
            Unavailable: the disk refused, or what has to stay is not known.
        """
        async with self._making_room:
            limit = self.kept.limit_bytes
            others = self.kept.promised_bytes + size
            if await self.kept.counted() + others <= limit:
                return
            if size > limit:
                raise Full(f"There is no room for {size} bytes of packages: {limit} is the limit (kept_bytes)")
            now = asyncio.get_running_loop().time()
            if now < self._full_until and size >= self._full_for:
                raise self._full(size)
            needed = await self.needed()
            self._held = await self.kept.held(needed)
            if self._held + others > limit:
                # Looking at all that there is takes a while.
                self._full_until, self._full_for = now + _FULL_S, size
                raise self._full(size)
            await self.kept.shrink(max(0, int(limit * (1 - _FREE_AFTER)) - others), needed)

    def _full(self, size: int) -> Full:
        return Full(
            f"There is no room for {size} bytes of packages: {self._held} of {self.kept.limit_bytes} bytes (kept_bytes)"
            " are taken by what has to stay"
        )


def _say_failed(wanted: Wanted, e: BaseException) -> None:
    level = _log.debug if isinstance(e, Full | NotFound) else _log.warning
    level("A package did not come", repository=wanted.repository, path=wanted.href, why=str(e))


async def _nothing() -> Container[str]:
    return ()


def _sized(answer: Answer, wanted: Wanted) -> Answer:
    """Return an answer that says its length, which is known.

    Raises:
        Differs: it says another.
    """
    size = wanted.expected.size
    said = next((value for name, value in answer.headers if name.lower() == "content-length"), None)
    if said is None:
        return replace(answer, headers=[*answer.headers, ("Content-Length", str(size))])
    if said != str(size):
        answer.end()
        raise Differs(f"{answer.of} gives another {wanted.href}: it has not the {size} bytes that the repository names")
    return answer
