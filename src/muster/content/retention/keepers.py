"""Turns keepers in the own Pulp, which an administrator has switched on; what is not ours there is read and never changed.

What becomes of a ring is read off Pulp alone, so members in front of one Pulp, and one that starts anew, come to the same.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from muster.content import kinds
from muster.content.pulp import Distribution, Pulp
from muster.content.retention import ring
from muster.content.retention.ring import CONTENT, LABEL, Keeper
from muster.kernel import log
from muster.kernel.errors import Denied, MusterError
from muster.store.reading import Query, Readable

_log = log.logger("content")

# Guards are compared, and what is not needed any more is removed, once in so long. Each look is two calls at least.
_LOOK_EVERY_S = 15.0
_AGAIN_S = 5.0
_SELDOM_S = 60.0
_ASKED = Query("SELECT path FROM content_repositories WHERE asked_at >= :since")

Asked = Callable[[], Awaitable[Collection[str]]]


def asked_within(store: Readable, within_s: float) -> Asked:
    """Return what returns the repositories that clients asked for within so long, by their path at Pulp."""

    async def asked() -> Collection[str]:
        async with store.read() as uow:
            since = await uow.now() - within_s
            return [r["path"] for r in await uow.rows(_ASKED, since=since)]

    return asked


def distributed(paths: Collection[str]) -> dict[str, str]:
    """Return the path at Pulp by base path, of repositories that a distribution may have as a whole."""
    whole = (p for p in paths if kinds.of(p).home(p) == p)
    return {p.removeprefix(CONTENT): p for p in whole if p.startswith(CONTENT) and not ring.is_inside(p)}


class Keepers:
    """One member's, in front of its own Pulp. Use :meth:`beat` again and again.

    Args:
        carried: returns the digest of what the own Pulp serves of each repository that clients ask for now, by its path.
        asked: returns the repositories whose keepers are left alone.
        cluster: its name, by which keepers are known for ours.
        count: of each ring; 0: whatever is ours is removed.

    Attributes:
        trouble: why something could not be done, in one sentence; empty: all was.
        is_over: nothing is left to be done, ever: there are to be no keepers, and none can be removed.

    Concurrency: one loop; beats do not overlap.
    """

    def __init__(
        self, pulp: Pulp, carried: Callable[[], Mapping[str, str]], asked: Asked, *, cluster: str, count: int
    ) -> None:
        self.trouble = ""
        self.is_over = False
        self._pulp, self._carried, self._asked = pulp, carried, asked
        self._cluster, self._count = cluster, count
        # What was served when its keepers were last looked at.
        self._seen: dict[str, str] = {}
        self._look_at = 0.0
        self._again_at = 0.0

    async def beat(self) -> None:
        """Look at what is served, and turn keepers to what is new of it."""
        if self.is_over or time.monotonic() < self._again_at:
            return
        carried = self._carried() if self._count else {}
        due = {path: digest for path, digest in carried.items() if self._seen.get(path) != digest}
        is_whole = time.monotonic() >= self._look_at
        if not due and not is_whole:
            return
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        try:
            failed = await self._look(due)
        except Denied as e:
            failed = str(e)
            # Who may not ask has made none, and asks no second time for nothing.
            self.is_over = not self._count
        except MusterError as e:
            failed = str(e)
        if failed:
            self._again_at = time.monotonic() + (_AGAIN_S if self._count else _SELDOM_S)
        if failed and failed != self.trouble:
            # Where nobody wants keepers there hardly are any.
            say = _log.warning if self._count else _log.debug
            say("Keepers could not be looked after", why=failed)
        elif self.trouble and not failed:
            _log.info("Keepers are looked after again")
        self.trouble = failed

    async def _look(self, due: Mapping[str, str]) -> str:
        """Do what there is to do; return what of it failed last."""
        found = await self._pulp.labelled(LABEL, self._cluster)
        ours = [k for d in found if (k := ring.recognised(d, self._cluster)) is not None]
        if not self._count:
            failed = await self._remove(ours, "no keepers are wanted")
            self.is_over = not failed
            return failed
        wanted = distributed(due)
        named = {*wanted, *(k.of for k in ours)}
        sources = {d.base_path: d for d in await self._pulp.at(named)}
        if lacking := named - sources.keys():
            # A list that changes between its pages lacks some that there are.
            sources |= {d.base_path: d for d in await self._pulp.at(lacking)}
        failed = await self._remove([k for k in ours if k.number >= self._count], "the ring is smaller now")
        failed = await self._remove([k for k in ours if k.of not in sources], "its repository is gone") or failed
        failed = await self._forget(ours) or failed
        kept: dict[str, list[Keeper]] = {}
        for one in ours:
            if one.number < self._count and one.of in sources:
                kept.setdefault(one.of, []).append(one)
        for of, keepers in kept.items():
            failed = await self._guard(keepers, sources[of]) or failed
        for of, path in wanted.items():
            source = sources.get(of)
            why = await self._turn(source, kept.get(of, [])) if source is not None else ""
            if not why:
                self._seen[path] = due[path]
            failed = why or failed
        return failed

    async def _forget(self, ours: Collection[Keeper]) -> str:
        """Remove the keepers of repositories that nobody asks for any more."""
        if not ours:
            return ""
        try:
            asked = distributed(await self._asked())
        except MusterError as e:
            # Who asks is not known, so everybody may.
            _log.debug("Which repositories clients ask for was not read", why=str(e))
            return ""
        for path in self._seen.keys() - set(asked.values()) - self._carried().keys():
            del self._seen[path]
        is_asked = {*asked, *distributed(self._carried())}
        return await self._remove([k for k in ours if k.of not in is_asked], "no client asks for its repository")

    async def _turn(self, source: Distribution, keepers: Collection[Keeper]) -> str:
        """Turn a ring to what a distribution serves now, and to what it served since the last turn."""
        try:
            turns = ring.turned(list(keepers), await self._served(source, keepers), self._count)
        except MusterError as e:
            return str(e)
        failed = ""
        for turn in turns:
            try:
                if turn.href:
                    await self._pulp.alter(turn.href, ring.altered(turn, source, self._cluster))
                else:
                    await self._pulp.make(ring.made(turn, source, self._cluster))
            except MusterError as e:
                failed = str(e)
                continue
            _log.info(
                "A keeper keeps what its repository serves", at=ring.base_path(source.base_path, turn.number),
                publication=turn.publication,
            )  # fmt: skip
        return failed

    async def _served(self, source: Distribution, keepers: Collection[Keeper]) -> list[str]:
        if source.publication:
            return [source.publication]
        if source.is_checkpoint or not (source.repository or source.version):
            return []
        found = await self._pulp.publications(
            most=self._count + 1, repository=source.repository, version=source.version
        )  # fmt: skip
        names = [p.href for p in found]
        known = {k.publication for k in keepers}
        last = max((i for i, name in enumerate(names) if name in known), default=None)
        # Of what came before the first turn nothing is known.
        return names[-1:] if last is None else names[last:]

    async def _guard(self, keepers: Collection[Keeper], source: Distribution) -> str:
        """Let keepers ask the guard that the repository's own distribution asks."""
        failed = ""
        for one in keepers:
            if one.guard == source.guard:
                continue
            try:
                await self._pulp.alter(one.href, {"content_guard": source.guard or None})
            except MusterError as e:
                failed = str(e)
        return failed

    async def _remove(self, keepers: Collection[Keeper], why: str) -> str:
        failed = ""
        for one in keepers:
            try:
                await self._pulp.remove(one.href)
            except MusterError as e:
                failed = str(e)
                continue
            self._seen.pop(f"{CONTENT}{one.of}", None)
            _log.info("A keeper was removed", at=ring.base_path(one.of, one.number), why=why)
        return failed
