"""What clients get of the packages of what is mirrored, in one process of a member."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, unquote

from muster.cluster.mirror import Policy
from muster.content.backend import Answer
from muster.content.index import Expected
from muster.content.kept import Full
from muster.content.known import Known
from muster.content.mirror import paths
from muster.content.mirror.carried import Carried
from muster.content.mirror.packages import WAITED_FOR_BYTES, Packages, Wanted
from muster.edge.replies import Reply, Streamed
from muster.edge.request import Request
from muster.kernel import log
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.kernel.tasks import OneEach

_log = log.logger("content")

# So many answers of one package come straight from the origin at once; who comes later waits until it is here.
_PASSING_AT_ONCE = 4
_LONGER_S = 60.0
# So many are brought to the disk, or wait for it. Whoever asks and goes away leaves one behind.
_FETCHING = 500
# For so long what could not be had is not asked for again; so many of these are remembered.
_REFUSED_S, _REFUSED = 1.0, 1000

Fetch = Callable[[Wanted], Awaitable[None]]
"""Brings a package to this member's disk, as :meth:`muster.content.mirror.packages.Packages.fetch`."""


class _Refused(NamedTuple):
    """What could not be had: when, by the loop's clock, and why. The error itself would hold what its call held."""

    at: float
    kind: type[MusterError]
    why: str


class Answers:
    """One process's. Concurrency: one loop, any number of calls.

    Args:
        policies: by the names of what is mirrored.
        fetch: in a worker it asks the member, which alone keeps.
        wait_s: how long a small package is waited for, before it passes through.
    """

    def __init__(
        self,
        carried: Carried,
        packages: Packages,
        policies: Mapping[str, Policy],
        fetch: Fetch,
        *,
        wait_s: float,
    ) -> None:
        self._carried, self.packages, self._policies, self._fetch, self._wait_s = (
            carried, packages, policies, fetch, wait_s,
        )  # fmt: skip
        # What is done about a package is by all that is wanted, its repository too: what the origin of one refuses, that of
        # another has, and layers of images are the same in many.
        self._fetching = OneEach[Wanted]()
        # How many answers pass through.
        self._passing: Counter[Wanted] = Counter()
        # What could not be had a moment ago.
        self._refused: dict[Wanted, _Refused] = {}

    @property
    def known(self) -> Known:
        """What this member carries."""
        return self._carried.known

    async def package(
        self, at: str, below: str, expected: Expected, request: Request, *, content_type: bytes
    ) -> Reply | Streamed | Answer:
        """Answer a package of a repository; an :class:`Answer` is still to be verified, or is that nobody has it.

        Raises:
            MusterError: who may have it could not be asked.
        """
        digest = expected.digest
        if expected.algorithm == "sha256":
            found = await self.packages.kept.answer(digest, request, content_type=content_type)
            if found is not None:
                return found
        place = paths.split(at)
        assert place is not None  # noqa: S101 - it is carried
        name = place[0].name
        wanted = Wanted(name, f"/{quote(unquote(below))}", expected)
        if (refused := self._refused.get(wanted)) is not None and self._is_fresh(refused):
            # As it was said a moment ago, anew.
            raise refused.kind(refused.why)
        fetching = self._begin(wanted) if self._policies.get(name, "streamed") != "streamed" else None
        if fetching is not None:
            try:
                is_to_pass = await self._is_to_pass(wanted, fetching)
            except NotFound:
                return Answer.absent(name)
            if not is_to_pass:
                found = await self.packages.kept.answer(digest, request, content_type=content_type)
                if found is not None:
                    return found
                # It is gone again already: others needed the room.
        self._passing[wanted] += 1
        try:
            got = await self.packages.passing(wanted)
        except NotFound as e:
            self._passed(wanted)
            # Another member may mirror it, and has it.
            raise Unavailable(str(e)) from e
        except BaseException as e:
            self._passed(wanted)
            if isinstance(e, MusterError):
                self._refuse(wanted, e)
            raise
        # What an origin says of it is not what we say.
        said = [h for h in got.headers if h[0].lower() == "content-length"]
        return replace(got, headers=said).releasing(partial(self._passed, wanted))

    async def _is_to_pass(self, wanted: Wanted, fetching: asyncio.Task[None]) -> bool:
        """Whether it has to pass through; false: it has come to the disk.

        Raises:
            NotFound: nobody has it.
            MusterError: it does not come, and so many ask the origin for it that no more do.
        """
        if wanted.expected.size > WAITED_FOR_BYTES and not self._passing[wanted]:
            return True
        why: MusterError = Unavailable(f"{wanted.href} is being fetched, and takes its time")
        for patience_s in (self._wait_s, _LONGER_S):
            try:
                async with asyncio.timeout(patience_s):
                    await asyncio.shield(fetching)
                return False
            except NotFound:
                raise
            except TimeoutError:
                pass
            except MusterError as e:
                _log.debug("A package does not stay", path=wanted.href, why=str(e))
                if isinstance(e, Full):
                    # The origin has it, and it is as if it were streamed.
                    return True
                why = e
            if self._passing[wanted] < _PASSING_AT_ONCE:
                return True
            if fetching.done():
                break
        raise why

    def _is_fresh(self, refused: _Refused) -> bool:
        return asyncio.get_running_loop().time() - refused.at < _REFUSED_S

    def _refuse(self, wanted: Wanted, why: MusterError) -> None:
        if len(self._refused) >= _REFUSED:
            self._refused = {key: one for key, one in self._refused.items() if self._is_fresh(one)}
        if len(self._refused) < _REFUSED:
            self._refused[wanted] = _Refused(asyncio.get_running_loop().time(), type(why), str(why))

    def _passed(self, wanted: Wanted) -> None:
        self._passing[wanted] -= 1
        if not self._passing[wanted]:
            del self._passing[wanted]

    def _begin(self, wanted: Wanted) -> asyncio.Task[None] | None:
        """Return what brings it to the disk; None: it cannot stay, or too much is on its way already."""
        if (task := self._fetching.get(wanted)) is not None:
            return task
        if wanted.expected.algorithm != "sha256" or len(self._fetching) >= _FETCHING:
            return None
        return self._fetching.begin(wanted, self._fetch, name="package")

    async def close(self) -> None:
        """End what is under way."""
        await self._fetching.close()
