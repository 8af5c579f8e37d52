"""Boot files from the other members, by what they are: bytes count when they have the digest that was asked for."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import aiohttp

from muster.kernel import log
from muster.kernel.clock import Clock, SystemClock
from muster.kernel.errors import MusterError, NotFound, Rejected, Unavailable
from muster.kernel.names import in_url
from muster.kernel.tasks import ended
from muster.netboot import answers
from muster.netboot import partial as partials
from muster.netboot.answers import Asking, Limits, Told, length_of, span_of
from muster.netboot.contract import PASSED_BYTES, Entry
from muster.netboot.partial import Full, Note, Partial

_log = log.logger("netboot")

# A member that gives to as many as it may has room again when one of them is served.
_BUSY = frozenset({429, 503})
_BUSY_PAUSE_S = 1.0
# A boot loader waits meanwhile: who does not give a piece in time is left for the next one, and nobody gave it after the
# second time.
_PIECE_S, _NEXT_PIECE_S, _PIECE_PAUSE_S = 5.0, 10.0, 0.1
_LIMIT_TREE_BYTES = 4096
_SAID_WITHIN_S = 2.0


class Sibling(NamedTuple):
    """Another member that may have a boot file.

    Attributes:
        name: what its certificate carries.
        port: where it answers members.
    """

    name: str
    address: str
    port: int


class _Busy(Unavailable):
    """It gives to others now."""


async def brought(
    digest: str,
    size: int,
    into: Path,
    siblings: Sequence[Sibling],
    *,
    context: Callable[[], ssl.SSLContext],
    limits: Limits,
    told: Told = lambda _done, _of: None,
    clock: Clock | None = None,
) -> None:
    """Bring the bytes of a digest to ``into`` from whoever has them, in the order of ``siblings``.

    What breaks off goes on with the next one; whoever is busy is asked again; bytes that are not what they are called are
    thrown away, and who gave them is asked no more. The file lies there whole and safe from a power cut when this returns,
    and is the caller's to rename.

    ``context`` shows our certificate and believes the cluster's CA alone; each sibling must carry its own name.

    Raises:
        NotFound: all say that they have it not, or there is nobody.
        Rejected: no room on the disk.
        Unavailable: somebody who may have it did not give it; what has come stays for the next call.

    Concurrency: one call for a path at a time in all processes; another is Unavailable.
    """
    clock = clock or SystemClock()
    called = f"boot file {digest[:12]}"
    try:
        async with (
            asyncio.timeout(limits.whole_s),
            partials.opened(into, f"sha256:{digest}") as partial,
            answers.opened(limits, clock) as asking,
        ):
            one = _Bringing(digest, size, partial, list(siblings), asking, context, limits, told, clock)
            await one.brought()
        partials.settle(into)
    except TimeoutError:
        raise Unavailable(f"Bringing {called} from other members failed: not within {limits.whole_s:g} s") from None
    except MusterError as e:
        raise type(e)(f"Bringing {called} from other members failed: {e}") from e


class Peers:
    """The other members, for the tree: :meth:`bring` is what it asks.

    Args:
        directory: where files are made, of this member alone, on the tree's file system.
        siblings: returns who may have files now, in the order in which they are asked.

    Concurrency: one loop; one call for a digest at a time.
    """

    def __init__(
        self,
        directory: Path,
        siblings: Callable[[], Awaitable[Sequence[Sibling]]],
        context: Callable[[], ssl.SSLContext],
        limits: Limits,
    ) -> None:
        self._directory, self._siblings, self._context, self._limits = directory, siblings, context, limits

    async def bring(self, entry: Entry) -> Path:
        """Return a file with an entry's bytes, which is the caller's.

        Raises:
            As :func:`brought`.
        """
        into = self._directory / entry.digest
        await brought(
            entry.digest, entry.size, into, await self._siblings(), context=self._context, limits=self._limits
        )
        return into

    async def passed(self, entry: Entry, first: int, count: int) -> AsyncGenerator[bytes, None]:
        """As :meth:`~muster.netboot.contract.BootFiles.passed`."""
        whole = hashlib.sha256() if (first, count) == (0, entry.size) else None
        async with answers.opened(self._limits, SystemClock()) as asking:
            siblings: list[Sibling] = []
            while count:
                wanted = min(count, PASSED_BYTES)
                piece, siblings = await self._piece(asking, siblings, entry, first, wanted)
                first, count = first + wanted, count - wanted
                if whole is not None:
                    whole.update(piece)
                    if not count and whole.hexdigest() != entry.digest:
                        _log.error("What members gave is not what it is called, and was cut off", digest=entry.digest)
                        raise Unavailable(f"What members gave of {entry.path} is not what it is called")
                yield piece
                # Beside the next one it would be held for nothing.
                del piece

    async def _piece(
        self, asking: Asking, siblings: Sequence[Sibling], entry: Entry, at: int, count: int
    ) -> tuple[bytes, list[Sibling]]:
        """Return a piece, and whom to ask for the next one: first who gave this.

        Raises:
            NotFound, Unavailable: as :meth:`passed`.
        """
        limit = time.monotonic() + _NEXT_PIECE_S
        while True:
            reasons = []
            for sibling in siblings:
                try:
                    async with asyncio.timeout(_PIECE_S):
                        piece = await self._given(asking, sibling, entry, at, count)
                    return piece, [sibling, *(s for s in siblings if s != sibling)]
                except TimeoutError:
                    reasons.append(f"member {sibling.name} did not give a piece within {_PIECE_S:g} s")
                except NotFound:
                    pass
                except MusterError as e:
                    reasons.append(str(e))
            called = f"Passing {entry.path} on from other members failed: "
            if siblings and not reasons:
                raise NotFound(called + "no other member has it")
            if siblings and time.monotonic() >= limit:
                raise Unavailable(called + "; ".join(reasons))
            if siblings:
                await asyncio.sleep(_PIECE_PAUSE_S)
            siblings = await self._siblings()
            if not siblings:
                raise NotFound(called + "there is no other member")

    async def _given(self, asking: Asking, sibling: Sibling, entry: Entry, at: int, count: int) -> bytes:
        url = f"https://{in_url(sibling.address)}:{sibling.port}/netboot/blobs/{entry.digest}"
        last, called = at + count - 1, f"member {sibling.name}"
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={at}-{last}"}
        async with asking.answer(called, url, headers, self._context(), name=sibling.name) as answer:
            if answer.status != 206:
                _refuse(answer, called, at, entry.size)
            if answer.headers.getall("Content-Range", []) != [f"bytes {at}-{last}/{entry.size}"]:
                raise Rejected(f"{called} answered {answer.status} with what is not that part of the file")
            try:
                return await answer.content.readexactly(count)
            except (asyncio.IncompleteReadError, aiohttp.ClientError, OSError) as e:
                raise Unavailable(f"{called} broke off") from e

    async def read_the_store(self, within_s: float) -> bool:
        """Whether another member says that it has read the tree so lately; those that do not answer soon say nothing.

        Returns within three seconds: whoever asks serves what it has until then, which may be old.
        """
        siblings = await self._siblings()
        if not siblings:
            return False
        async with answers.opened(self._limits, SystemClock()) as asking:
            said = [asyncio.create_task(_age_of(s, asking, self._context)) for s in siblings]
            try:
                async with asyncio.timeout(_SAID_WITHIN_S):
                    # One that is stopped takes the connection, and nobody waits for it who has heard of another.
                    for one in asyncio.as_completed(said):
                        if await one <= within_s:
                            return True
            except TimeoutError:
                pass
            finally:
                await ended(said)
        return False


async def _age_of(sibling: Sibling, asking: Asking, context: Callable[[], ssl.SSLContext]) -> float:
    url = f"https://{in_url(sibling.address)}:{sibling.port}/netboot/tree"
    try:
        async with asking.answer(sibling.name, url, {}, context(), name=sibling.name) as answer:
            if answer.status != 200:
                return math.inf
            return float(json.loads(await answer.content.read(_LIMIT_TREE_BYTES))["read_age_s"])
    except (MusterError, ValueError, TypeError, KeyError, aiohttp.ClientError, OSError):
        return math.inf


class _Bringing:
    def __init__(
        self,
        digest: str,
        size: int,
        partial: Partial,
        siblings: list[Sibling],
        asking: Asking,
        context: Callable[[], ssl.SSLContext],
        limits: Limits,
        told: Told,
        clock: Clock,
    ) -> None:
        self._digest, self._size, self._partial, self._siblings = digest, size, partial, siblings
        self._asking, self._context, self._limits, self._told, self._clock = asking, context, limits, told, clock
        self._gave: set[Sibling] = set()

    async def brought(self) -> None:
        if self._partial.note.total == self._size == self._partial.size and await self._is_it():
            return
        left = self._limits.again
        while True:
            before, reasons = self._partial.size, []
            is_busy = False
            for sibling in list(self._siblings):
                try:
                    await self._from(sibling)
                    return
                except (Full, NotFound) as e:
                    if isinstance(e, Full):
                        raise
                except MusterError as e:
                    is_busy = is_busy or isinstance(e, _Busy)
                    reasons.append(str(e))
            if not reasons:
                raise NotFound("no other member has it")
            if not is_busy and self._partial.size <= before:
                if not left or not self._siblings:
                    raise Unavailable("; ".join(reasons))
                left -= 1
            await self._clock.sleep(_BUSY_PAUSE_S if is_busy else self._limits.pause_s)

    async def _from(self, sibling: Sibling) -> None:
        """Take the file, or the rest of it, from one.

        Raises:
            NotFound: it has not got it.
            Unavailable: it did not give all.
            Rejected: it is not that member, or says what is no such file.
        """
        partial, called = self._partial, f"member {sibling.name}"
        if partial.note.total != self._size or partial.size > self._size:
            await partial.anew(Note(f"sha256:{self._digest}", total=self._size))
        at = min(partial.size, self._size - 1) if partial.size else 0
        url = f"https://{in_url(sibling.address)}:{sibling.port}/netboot/blobs/{self._digest}"
        headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={at}-"} if at else {})}
        async with self._asking.answer(called, url, headers, self._context(), name=sibling.name) as answer:
            _refuse(answer, called, at, self._size)
            if answer.status == 200 and partial.size:
                await partial.anew(partial.note)
            self._gave.add(sibling)
            skipped = partial.size - at if answer.status == 206 else 0
            await self._asking.taken(called, answer, partial, self._told, skipped=skipped, total=self._size)
        if not await self._is_it():
            names = ", ".join(s.name for s in sorted(self._gave))
            _log.error(
                "What members gave is not what it is called, and was thrown away", digest=self._digest, members=names
            )
            self._siblings = [s for s in self._siblings if s not in self._gave]
            self._gave.clear()
            raise Unavailable(f"what {names} gave is not what it is called")

    async def _is_it(self) -> bool:
        if await self._partial.whole() == self._digest:
            return True
        await self._partial.anew(self._partial.note)
        return False


def _refuse(answer: aiohttp.ClientResponse, called: str, at: int, size: int) -> None:
    """Refuse what is neither the file nor its rest from a position on."""
    status = answer.status
    if status == 404:
        raise NotFound(f"{called} has it not")
    if status in _BUSY:
        raise _Busy(f"{called} gives files to others now")
    if status >= 500:
        raise Unavailable(f"{called} answered {status}")
    span = span_of(answer)
    is_rest = status == 206 and at > 0 and span is not None and (span.first, span.total) == (at, size)
    if not is_rest and not (status == 200 and length_of(answer) == size):
        raise Rejected(f"{called} answered {status} with what is not that file")
