"""Follows the repositories that clients fetch: asks the own Pulp, brings what it has, and decides what all members show.

Runs in the member alone; its workers ask it. The store is asked for what is shown at each answer that depends on it, and at
no other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from muster.content.given import COUNTS_S
from muster.content.kept import Kept
from muster.content.known import Followed, Known
from muster.content.shelf import Shelf
from muster.content.staging import Polled, Staging
from muster.content.view import Report, decided, lagging
from muster.content.views import Picture, Row, Shown, Told, Views, changed
from muster.kernel import log
from muster.kernel.errors import MusterError

_log = log.logger("content")

# What was asked for within that long is looked at again and again.
HOT_S = 60.0
# So often the store hears that clients still ask, and what a member has.
_SAID_AGAIN_S = 15.0
# What a member said within that long holds, unless it has said something else: it says so when that changes.
_HOLDS_S = 20.0
# Who has said nothing of a repository for so long is not waited for: it hangs, or is of a version that says nothing.
_SILENT_S = 60.0
_FIRST_WORD_S = 10.0
_POLL_EVERY_S = 1.0
# Each costs a Pulp 15 to 25 ms of CPU (docs/facts/content-and-boot.md §9).
_POLLS_EACH_S = 10.0
_POLLS_AT_ONCE = 8
_SHOWN_TIMEOUT_S = 0.5
_STORE_AGAIN_S = 1.0
_ALL_EVERY_S = 30.0
_RECLAIM_EVERY_S = 600.0
# Without the store for so long nobody knows what others show; what was shown last is.
_STORE_PATIENCE_S = 10.0
_UNASKED_S = 30 * 86400.0


@dataclass
class _Own:
    """What is known of a repository at the own Pulp.

    Attributes:
        carried: the digest of what it has, empty: nothing; of one that is not reached what it had.
    """

    polled: Polled
    carried: str
    unreached_since: float | None
    at: float


class Following:
    """One member's. Use :meth:`beat` again and again, :meth:`close` at the end.

    Args:
        member: its name.
        members: returns the names of all of kind ``muster`` in the cluster file.
        services: those of content.
        lag_s: how far a Pulp may lie behind.
        retention_s: how long what was shown is kept.
        wait_s: how long a client waits for a repository that nobody asked for lately.
        told: is awaited when ``known`` has changed.

    Attributes:
        known: what is followed, for whoever answers.
        trouble: why this member is not fit to answer, in one sentence; empty: it is.
        is_alone: no other member takes clients of content.
        woken: set when there is something to do before the next beat is due.

    Concurrency: one loop; beats do not overlap.
    """

    def __init__(
        self,
        views: Views,
        staging: Staging,
        kept: Kept,
        *,
        member: str,
        members: Callable[[], Iterable[str]],
        services: Sequence[str],
        lag_s: float,
        retention_s: float,
        wait_s: float,
        told: Callable[[], Awaitable[None]],
    ) -> None:
        self.known = Known()
        self.trouble = "which versions of repositories clients get was not read from the store yet"
        self.is_alone = True
        self.woken = asyncio.Event()
        self._views, self._staging, self._kept = views, staging, kept
        self._member, self._members, self._services = member, members, services
        self._lag_s, self._retention_s, self._wait_s = lag_s, retention_s, wait_s
        self._tell_others = told
        self._shelf = Shelf(views, staging, self.woken.set)
        # What clients asked for since the store heard of it, with the certificate that was let in.
        self._asked: dict[str, bytes | None] = {}
        self._asked_said: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        # Since when each is looked at, by the loop's clock.
        self._hot: dict[str, float] = {}
        self._own: dict[str, _Own] = {}
        self._told: dict[str, Told] = {}
        self._told_at: dict[str, float] = {}
        self._rows: dict[str, Row] = {}
        self._last: dict[str, Shown | None] = {}
        self._store_again_at = 0.0
        # What the store's clock shows more than the loop's; None: it was not read yet.
        self._store_ahead_s: float | None = None
        self._is_away = False
        self._began_at = time.monotonic()
        self._all_at = 0.0
        self._reclaim_at = self._began_at + _RECLAIM_EVERY_S

    async def current(self, path: str, certificate: bytes | None) -> Shown | None:
        """Return which version clients get of a repository now; None: none is shown, and its Pulp answers for itself.

        ``certificate`` is that of a client whom the repository's guard let in. One that nobody asked for lately is looked at
        by all members first.
        """
        if certificate is not None or path not in self._asked:
            self._asked[path] = certificate
        if not self._is_away and (path not in self._hot or path in self._waiting):
            waiting = self._waiting.get(path)
            if waiting is None:
                waiting = self._waiting[path] = asyncio.get_running_loop().create_future()
            self.woken.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await asyncio.shield(waiting)
        return await self._shown(path)

    async def asked(self, question: Any) -> Any:
        """As :meth:`current`, for another process of this member: a path and a certificate in base64, empty: none."""
        path, certificate = question
        return await self.current(path, base64.b64decode(certificate) if certificate else None)

    async def _shown(self, path: str) -> Shown | None:
        now = time.monotonic()
        if now >= self._store_again_at:
            try:
                async with asyncio.timeout(_SHOWN_TIMEOUT_S):
                    self._last[path] = await self._views.shown(path)
            except (TimeoutError, MusterError) as e:
                # While no member reaches the store, nobody changes what is shown.
                self._store_again_at = time.monotonic() + _STORE_AGAIN_S
                _log.debug("What is shown was not read", why=str(e))
        found = self._last.get(path)
        if found is None:
            return None
        age_s = now + self._store_ahead_s - found.since if self._store_ahead_s is not None else 0.0
        return found._replace(is_new=age_s < COUNTS_S)

    async def beat(self) -> None:
        """Look at what clients ask for, and at what members have of it."""
        self.woken.clear()
        now = time.monotonic()
        is_whole = now >= self._all_at
        try:
            await self._say_asked(now)
            picture = await self._views.picture(self._retention_s if is_whole else HOT_S)
        except MusterError as e:
            self._is_away = True
            for path in list(self._waiting):
                self._resolve(path)
            if self._all_at == 0.0 and now - self._began_at > _STORE_PATIENCE_S:
                self.trouble = ""
            _log.debug("What members have of repositories was not read", why=str(e))
            return
        self._is_away = False
        self._store_ahead_s = picture.now - time.monotonic()
        hot = [r for r in picture.rows.values() if picture.now - r.asked_at < HOT_S]
        for row in hot:
            self._hot.setdefault(row.path, now)
        for path in self._hot.keys() - {r.path for r in hot}:
            del self._hot[path]
        if is_whole:
            for path, manifests in picture.manifests.items():
                await self._shelf.look(path, manifests)
        await self._poll(picture, hot)
        self._stage(picture, hot)
        try:
            await self._say(picture, hot)
            for row in hot:
                await self._decide(picture, row)
        except MusterError as e:
            _log.debug("What is shown was not decided", why=str(e))
        await self._publish(picture, is_whole=is_whole)
        self.trouble = self._behind(picture, hot)
        if picture.rows:
            self.is_alone = not picture.ready(self._services) - {self._member}
        if is_whole:
            self._all_at = now + _ALL_EVERY_S
            if now >= self._reclaim_at:
                self._reclaim_at = now + _RECLAIM_EVERY_S
                await self._reclaim(picture)

    async def close(self) -> None:
        """End what is under way."""
        await self._shelf.close()

    async def _say_asked(self, now: float) -> None:
        for path in [p for p, at in self._asked_said.items() if now - at > HOT_S]:
            del self._asked_said[path]
        due = {
            path: certificate for path, certificate in self._asked.items()
            if path not in self._asked_said or now - self._asked_said[path] >= _SAID_AGAIN_S
        }  # fmt: skip
        if any(path not in self._rows for path in due) and not await self._views.has_room():
            for path in [p for p in due if p not in self._rows]:
                del due[path], self._asked[path]
                self._resolve(path)
        if due:
            await self._views.ask(due)
        for path in due:
            del self._asked[path]
            self._asked_said[path] = now

    async def _poll(self, picture: Picture, hot: Sequence[Row]) -> None:
        now = time.monotonic()
        every_s = max(_POLL_EVERY_S, len(hot) / _POLLS_EACH_S)
        room = asyncio.Semaphore(_POLLS_AT_ONCE)

        async def one(row: Row, before: _Own | None) -> None:
            async with room:
                polled = await self._staging.polled(row.path, row.certificate)
            carried, since = "", None
            if polled.body is not None:
                carried = hashlib.sha256(polled.body).hexdigest()
            elif not polled.reached:
                carried = before.carried if before is not None else ""
                since = before.unreached_since if before is not None else None
                since = picture.now if since is None else since
            self._own[row.path] = _Own(polled, carried, since, now)

        async with asyncio.TaskGroup() as polling:
            for row in hot:
                before = self._own.get(row.path)
                if before is None or now - before.at >= every_s or row.path in self._waiting:
                    polling.create_task(one(row, before))

    def _stage(self, picture: Picture, hot: Sequence[Row]) -> None:
        for row in hot:
            known, own = picture.manifests.get(row.path, {}), self._own[row.path]
            if own.polled.body is not None:
                self._shelf.bring_own(row.path, own.carried, own.polled.body, row.certificate, known.get(own.carried))
            wanted = {row.view.shown, *(t.carried for t in picture.told.get(row.path, {}).values())}
            for version, manifest in known.items():
                if version in wanted and (version != own.carried or own.polled.body is None):
                    self._shelf.bring(row.path, version, manifest)

    async def _say(self, picture: Picture, hot: Sequence[Row]) -> None:
        now = time.monotonic()
        told = {}
        for row in hot:
            own = self._own[row.path]
            staged = self._shelf.whole(row.path).keys() & picture.versions.get(row.path, {}).keys()
            trouble = self._shelf.trouble(row.path)
            told[row.path] = Told(own.polled.reached, own.carried, frozenset(staged), own.unreached_since, trouble)
        due = changed(self._told, told)
        due |= {p: t for p, t in told.items() if now - self._told_at.get(p, 0.0) >= _SAID_AGAIN_S}
        if due:
            await self._views.tell(self._member, due)
        self._told = told
        self._told_at = {p: now if p in due else self._told_at[p] for p in told}

    async def _decide(self, picture: Picture, row: Row) -> None:
        reports = self._reports(picture, row)
        versions = picture.versions.get(row.path, {})
        if row.view.shown is not None and row.view.shown not in versions:
            # A member of an earlier snapshot forgot it in this very moment.
            return
        found = decided(
            row.view, versions, reports, picture.now, lag_s=self._lag_s, forget_s=max(self._lag_s, self._retention_s)
        )
        if found is None:
            if self._is_settled(picture, row, reports):
                self._resolve(row.path)
        elif await self._views.show(row, found):
            if found.view.shown == row.view.shown:
                _log.debug("A repository has a newer version", path=row.path, why=found.why)
                return
            _log.info("A repository shows another version", path=row.path, why=found.why)
            # Who waits reads it now.
            self._resolve(row.path)
            self.woken.set()

    def _reports(self, picture: Picture, row: Row) -> list[Report]:
        """Return what each member says of a repository, and of those that say nothing since when."""
        told = {**picture.told.get(row.path, {})}
        if row.path in self._told:
            told[self._member] = self._told[row.path]
        ready = picture.ready(self._services)
        is_new = time.monotonic() - self._hot.get(row.path, 0.0) < _FIRST_WORD_S
        out = []
        for name in self._members():
            one, seen = told.get(name), picture.members.get(name)
            is_own = name == self._member
            is_here = is_own or (seen is not None and not seen.silent)
            last_here = picture.now - seen.age_s if seen is not None else 0.0
            is_heard = one is not None and (is_own or (is_here and picture.now - one.told_at < _SILENT_S))
            if one is None or not is_heard:
                # Who has the time to say something is waited for.
                out.append(Report(name, None, frozenset(), name in ready and is_new, last_here))
            else:
                since = None if one.reached else one.unreached_since
                out.append(Report(name, one.carried or None, one.staged, name in ready, since))
        return out

    def _is_settled(self, picture: Picture, row: Row, reports: Sequence[Report]) -> bool:
        """Whether what is shown follows from what all have now, and not from what they had."""
        told = picture.told.get(row.path, {})
        ready = [r for r in reports if r.is_ready or r.member == self._member]
        for one in ready:
            is_fresh = one.member == self._member or (
                one.member in told and picture.now - told[one.member].told_at < _HOLDS_S
            )
            if not is_fresh:
                return False
        carried = {r.carried for r in ready if r.is_reached and r.carried is not None}
        # What does not come is not waited for.
        return all(
            all(version in r.staged for r in ready) or self._shelf.trouble(row.path, version) for version in carried
        )

    async def _publish(self, picture: Picture, *, is_whole: bool) -> None:
        self._rows = {**({} if is_whole else self._rows), **picture.rows}
        found = {}
        for path in self._rows:
            before = self.known.repositories.get(path)
            row = picture.rows.get(path)
            if row is None:
                if before is not None:
                    found[path] = before
                continue
            versions, whole = picture.versions.get(path, {}), self._shelf.whole(path)
            here = sorted((v for v in whole if v in versions), key=lambda v: versions[v].order, reverse=True)
            if row.view.shown in here:
                here.remove(row.view.shown)
                here.insert(0, row.view.shown)
            own = self._own.get(path)
            is_open = (
                own.polled.is_open if own is not None and own.polled.reached else before is not None and before.is_open
            )
            found[path] = Followed(tuple(whole[v] for v in here), is_open)
        if found != self.known.repositories:
            self.known.repositories = found
            await self._tell_others()

    def _behind(self, picture: Picture, hot: Sequence[Row]) -> str:
        """Return why this member is behind the others."""
        behind = []
        for row in hot:
            versions = picture.versions.get(row.path, {})
            mine = next((r for r in self._reports(picture, row) if r.member == self._member), None)
            is_known = row.view.shown is None or row.view.shown in versions
            if self._shelf.are_alike(row.path, row.view.shown or "", mine.carried or "" if mine is not None else ""):
                # Published anew: its Pulp has all that clients want of it.
                continue
            if mine is not None and is_known and (why := lagging(row.view, versions, mine, picture.now, self._lag_s)):
                trouble = self._shelf.trouble(row.path)
                behind.append(f"{row.path}: {why}{f' ({trouble})' if trouble else ''}")
        more = f", and {len(behind) - 1} more" if len(behind) > 1 else ""
        return f"{behind[0]}{more}" if behind else ""

    async def _reclaim(self, picture: Picture) -> None:
        """Take from the disk what no version needs any more."""
        keep = frozenset[str]()
        for path, manifests in picture.manifests.items():
            self._shelf.drop(path, manifests)
            keep |= self._shelf.needed(manifests.values())
        try:
            await self._views.forget(unasked_s=_UNASKED_S, left_s=self._retention_s)
            await self._kept.reclaim(keep, older_than_s=_RECLAIM_EVERY_S)
        except MusterError as e:
            _log.warning("What is kept of repositories was not reclaimed", why=str(e))

    def _resolve(self, path: str) -> None:
        waiting = self._waiting.pop(path, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
