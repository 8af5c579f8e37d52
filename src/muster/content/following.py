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
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from muster.content.given import COUNTS_S
from muster.content.kept import Kept
from muster.content.known import Followed, Known
from muster.content.manifest import Manifest
from muster.content.metrics import FollowingMetrics
from muster.content.mirror import paths
from muster.content.shelf import Shelf
from muster.content.staging import STAGE_S, Polled, Staging
from muster.content.view import Report, decided, lagging, passed
from muster.content.views import HOT_S, Picture, Row, Shown, Told, Views, changed
from muster.kernel import log
from muster.kernel.errors import MusterError, Unavailable

_log = log.logger("content")

# So often the store hears that clients still ask, and what a member has.
_SAID_AGAIN_S = 15.0
# What a member said within that long holds, unless it has said something else: it says so when that changes.
_HOLDS_S = 20.0
_FIRST_WORD_S = 10.0
# Once a second while clients ask, and ever less often when they cease.
_POLL_EVERY_S = 1.0
_LESS_OFTEN = 0.2
# Each costs a Pulp 15 to 25 ms of CPU (docs/facts/content-and-boot.md §9).
_POLLS_EACH_S = 10.0
_POLLS_AT_ONCE = 8
# Whether what was guarded is so still: a second call for each poll otherwise.
_OPEN_AGAIN_S = 30.0
# What was open when the own Pulp was asked last may have a guard by now; so long nobody asks again before he is let in.
_OPEN_S = 30.0
_CARRIED_TIMEOUT_S = 1.0
_SHOWN_TIMEOUT_S = 2.0
_STORE_AGAIN_S = 1.0
_STORE_PAUSE_S = 0.25
_ALL_EVERY_S = 30.0
_RECLAIM_EVERY_S = 600.0
# Without the store for so long nobody knows what others show; what was shown last is.
_STORE_PATIENCE_S = 10.0
# A disk that hangs must not keep the member from asking Pulp.
_SEEN_WITHIN_S = 10.0
_UNASKED_S = 30 * 86400.0
# What comes a moment later is nobody's matter.
_NOTED_S = 30.0


@dataclass
class _Own:
    """What is known of a repository at the own Pulp.

    Attributes:
        carried: the digest of what it has, empty: nothing; of one that is not reached what it had.
    """

    polled: Polled
    carried: str
    carried_since: float
    unreached_since: float | None
    at: float


class Mirrored(Protocol):
    """What members fetch themselves."""

    def is_of(self, path: str) -> bool:
        """Whether a repository is one of these: what is carried of it is known without asking anybody."""

    async def carried(self, path: str) -> Shown | None:
        """Return what this member carries of one of these; None: nothing."""

    async def missing(self, path: str, manifest: Manifest) -> str:
        """Return what of a version is not on this disk that is no metadata and has to be; empty: nothing."""

    async def needed(self) -> frozenset[str] | None:
        """Return what has to stay on this disk, by SHA-256; None: that is not known at this moment."""

    def is_relied_on(self, sha256: str) -> bool:
        """Whether a file of this disk has to stay for what goes on at this moment; any thread may ask."""


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
        mirrored: what members fetch themselves, in place of a Pulp; None: nothing.
        counted: gets what is counted.

    Attributes:
        known: what is followed, for whoever answers.
        trouble: why this member is not fit to answer, in one sentence; empty: it is.
        note: what does not come to this disk, and why, in one sentence; empty: nothing.
        is_alone: no other member takes clients of content that is less behind. So of several that are behind one stays.
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
        mirrored: Mirrored | None = None,
        counted: FollowingMetrics | None = None,
    ) -> None:
        self.known = Known()
        self.trouble = "which versions of repositories clients get was not read from the store yet"
        self.note = ""
        # Nobody gets clients of one that knows nothing yet.
        self.is_alone = False
        self.woken = asyncio.Event()
        self._views, self._staging, self._kept = views, staging, kept
        self._member, self._members, self._services = member, members, services
        self._lag_s, self._retention_s, self._wait_s = lag_s, retention_s, wait_s
        self._tell_others = told
        self._untold = self._unread = ""
        self._counted = counted if counted is not None else FollowingMetrics(CollectorRegistry())
        self._mirrored = mirrored
        beside = (mirrored.missing,) if mirrored is not None else ()
        self._shelf = Shelf(views, staging, self.woken.set, self._counted, *beside)
        # What shall be shown of what is mirrored, and is not yet: manifests, by path.
        self._wanted_of: dict[str, str] = {}
        # Looked at in the next beat, whenever they were before.
        self._due: set[str] = set()
        # What clients asked for since the store heard of it, with the certificate that was let in.
        self._asked: dict[str, bytes | None] = {}
        self._asked_said: dict[str, float] = {}
        self._waiting: dict[str, asyncio.Future[None]] = {}
        # Since when each is looked at, by the loop's clock.
        self._hot: dict[str, float] = {}
        self._own: dict[str, _Own] = {}
        # When the own Pulp last refused to tell somebody without a certificate.
        self._guarded_at: dict[str, float] = {}
        self._told: dict[str, Told] = {}
        self._told_at: dict[str, float] = {}
        self._rows: dict[str, Row] = {}
        # What is shown as it was read last, and when that was.
        self._last: dict[str, tuple[float, Shown | None]] = {}
        self._store_again_at = 0.0
        # What the store's clock shows more than the loop's; None: it was not read yet.
        self._store_ahead_s: float | None = None
        self._read_at = time.monotonic()
        self._is_away = False
        self._began_at = time.monotonic()
        self._all_at = 0.0
        self._reclaim_at = self._began_at + _RECLAIM_EVERY_S

    async def current(self, path: str, certificate: bytes | None, *, alone: bool = False) -> Shown | None:
        """Return which version clients get of a repository now; None: none is shown, and its Pulp answers for itself.

        ``certificate`` is that of a client whom the repository's guard let in. One that nobody asked for lately is looked at
        by all members first. ``alone``: for another member, which gets what the store says and nothing else.
        """
        if alone:
            try:
                async with asyncio.timeout(_SHOWN_TIMEOUT_S):
                    return await self._views.shown(path)
            except (TimeoutError, MusterError):
                return None
        if certificate is not None or path not in self._asked:
            self._asked[path] = certificate
        is_cold = path not in self._hot or path in self._waiting
        if is_cold and not self._is_away and not await self._is_unchanged(path, certificate):
            waiting = self._waiting.get(path)
            if waiting is None:
                waiting = self._waiting[path] = asyncio.get_running_loop().create_future()
            self.woken.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await asyncio.shield(waiting)
        return await self._shown(path)

    async def asked(self, question: Any) -> Any:
        """As :meth:`current`, for another process of this member: a path, a certificate in base64, and ``alone``."""
        path, certificate, alone = question
        return await self.current(path, base64.b64decode(certificate) if certificate else None, alone=alone)

    def want(self, path: str, manifest: str) -> None:
        """See to it that a version of what is mirrored becomes shown, be there clients or not.

        This member carries it from now on, and the store knows it (:meth:`muster.content.views.Views.want`).
        """
        self._wanted_of[path] = manifest
        self._due.add(path)
        self.woken.set()

    async def _is_unchanged(self, path: str, certificate: bytes | None) -> bool:
        """Whether all have what is shown, so that nobody need wait for what follows from what they have."""
        shown = await self._shown(path)
        if shown is None or path in self._waiting:
            return False
        try:
            async with asyncio.timeout(_CARRIED_TIMEOUT_S):
                return await self._staging.carried(path, certificate) == {shown.digest}
        except (TimeoutError, MusterError):
            return False

    async def _shown(self, path: str) -> Shown | None:
        """Return what the store says is shown; where this member does not reach it, what another reads there.

        A store that is slow, or is away for a moment, is waited for: another member may have read something newer meanwhile.
        Where nobody has reached it for a while, nobody has changed what was shown last.

        Raises:
            Unavailable: it was waited for in vain.
        """
        until = time.monotonic() + self._wait_s
        while True:
            if time.monotonic() >= self._store_again_at:
                try:
                    async with asyncio.timeout(_SHOWN_TIMEOUT_S):
                        found = await self._views.shown(path)
                    self._read_at = time.monotonic()
                    self._last[path] = self._read_at, found
                    return self._aged(found)
                except (TimeoutError, MusterError) as e:
                    self._store_again_at = time.monotonic() + _STORE_AGAIN_S
                    _log.debug("What is shown was not read", why=str(e))
            with contextlib.suppress(TimeoutError, MusterError):
                async with asyncio.timeout(_SHOWN_TIMEOUT_S):
                    if (told := await self._staging.shown_elsewhere(path)) is not None:
                        self._last[path] = time.monotonic(), told
                        return self._aged(told)
            now = time.monotonic()
            if now - self._read_at >= _STORE_PATIENCE_S:
                if path in self._last or self._mirrored is None:
                    return self._aged(self._last[path][1]) if path in self._last else None
                return self._aged(await self._mirrored.carried(path))
            if now + _STORE_PAUSE_S >= until:
                raise Unavailable(f"Which version of {path} is shown was not read from the store")
            await asyncio.sleep(_STORE_PAUSE_S)

    def _aged(self, shown: Shown | None) -> Shown | None:
        """Return what is shown with whether it is new; so is what nobody knows the age of, for the others are asked then."""
        if shown is None:
            return None
        age_s = time.monotonic() + self._store_ahead_s - shown.since if self._store_ahead_s is not None else 0.0
        return shown._replace(is_new=age_s < COUNTS_S)

    def carried(self) -> dict[str, str]:
        """Return the digest of what the own Pulp has of each repository that clients ask for now, by path."""
        found = ((path, self._own[path]) for path in self._hot if path in self._own)
        return {path: own.carried for path, own in found if own.polled.reached and own.carried}

    async def beat(self) -> None:
        """Look at what clients ask for, and at what members have of it."""
        self.woken.clear()
        now = time.monotonic()
        is_whole = now >= self._all_at
        for path, manifest in list(self._wanted_of.items()):
            shown = self._last[path][1] if path in self._last else None
            if shown is not None and shown.manifest == manifest:
                del self._wanted_of[path]
            else:
                self._asked.setdefault(path, None)
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
            # Nobody asks Pulps meanwhile.
            await self._tell({p: self._unheard(p, f) for p, f in self.known.repositories.items()})
            return
        self._is_away = False
        self._read_at = time.monotonic()
        if picture.rows:
            self._store_ahead_s = picture.now - self._read_at
        for path, row in picture.rows.items():
            if path not in self._last or self._last[path][0] < now:
                self._last[path] = now, _shown_in(picture, row)
        hot = [r for r in picture.rows.values() if picture.now - r.asked_at < HOT_S]
        for row in hot:
            self._hot.setdefault(row.path, now)
        for path in self._hot.keys() - {r.path for r in hot}:
            del self._hot[path]
            # Entries may have megabytes; what Pulp had stands in the store.
            self._own.pop(path, None)
            self._guarded_at.pop(path, None)
        if is_whole:
            await self._look(picture, hot)
        await self._poll(picture, hot)
        self._stage(picture, hot)
        ready = picture.ready(self._services)
        try:
            await self._say(picture, hot)
            for row in hot:
                await self._decide(picture, row, ready)
        except MusterError as e:
            _log.debug("What is shown was not decided", why=str(e))
        await self._publish(picture, is_whole=is_whole)
        self._judge(picture, hot, ready)
        self._count(picture, hot)
        if is_whole:
            self._all_at = now + _ALL_EVERY_S
            if now >= self._reclaim_at and await self._reclaim(picture):
                self._reclaim_at = now + _RECLAIM_EVERY_S

    async def close(self) -> None:
        """End what is under way."""
        await self._shelf.close()

    async def _look(self, picture: Picture, hot: Sequence[Row]) -> None:
        try:
            async with asyncio.timeout(_SEEN_WITHIN_S):
                for row in hot:
                    await self._shelf.see(row.path, row.view.shown)
            for path, manifests in picture.manifests.items():
                await self._shelf.look(path, manifests)
            self._unread = ""
        except TimeoutError:
            self._unread = f"looking at it takes longer than {_SEEN_WITHIN_S:g} s"
        except MusterError as e:
            self._unread = str(e)

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
        # Nobody is asked for what this member fetches itself.
        mirrored = frozenset(row.path for row in hot if self._mirrored is not None and self._mirrored.is_of(row.path))
        at_least_s = max(_POLL_EVERY_S, (len(hot) - len(mirrored)) / _POLLS_EACH_S)
        room = asyncio.Semaphore(_POLLS_AT_ONCE)

        async def one(row: Row, before: _Own | None) -> None:
            async with room:
                is_guarded = now - self._guarded_at.get(row.path, -_OPEN_AGAIN_S) < _OPEN_AGAIN_S
                polled = await self._staging.polled(row.path, row.certificate, is_guarded=is_guarded)
            if polled.reached and not polled.is_open and not is_guarded:
                self._guarded_at[row.path] = now
            had, had_since, since = self._had(picture, row.path, before)
            if polled.reached:
                carried, since = hashlib.sha256(polled.body).hexdigest() if polled.body is not None else "", None
            else:
                carried, since = had, picture.now if since is None else since
            carried_since = had_since if carried == had else picture.now
            self._own[row.path] = _Own(polled, carried, carried_since, since, now)
            self._counted.polled("carried" if polled.body is not None else "nothing" if polled.reached else "unreached")

        async with asyncio.TaskGroup() as polling:
            for row in hot:
                before = self._own.get(row.path)
                is_local = row.path in mirrored
                every_s = _POLL_EVERY_S if is_local else max(at_least_s, _LESS_OFTEN * (picture.now - row.asked_at))
                is_due = row.path in self._waiting or row.path in self._due
                if before is None or now - before.at >= every_s or is_due:
                    self._due.discard(row.path)
                    polling.create_task(one(row, before))

    def _had(self, picture: Picture, path: str, before: _Own | None) -> tuple[str, float, float | None]:
        """Return what the own Pulp had, since when, and since when it was not reached; a restart does not change that."""
        if before is not None:
            return before.carried, before.carried_since, before.unreached_since
        told = picture.told.get(path, {}).get(self._member)
        return (told.carried, told.carried_since, told.unreached_since) if told is not None else ("", picture.now, None)

    def _stage(self, picture: Picture, hot: Sequence[Row]) -> None:
        for row in hot:
            known, own = picture.manifests.get(row.path, {}), self._own[row.path]
            if own.polled.body is not None:
                self._shelf.bring_own(row.path, own.carried, own.polled.body, row.certificate, known.get(own.carried))
            wanted = self._wanted(picture, row)
            for version, manifest in known.items():
                if version in wanted and (version != own.carried or own.polled.body is None):
                    self._shelf.bring(row.path, version, manifest)

    async def _say(self, picture: Picture, hot: Sequence[Row]) -> None:
        now = time.monotonic()
        told = {}
        for row in hot:
            own = self._own[row.path]
            staged = self._shelf.whole(row.path).keys() & picture.versions.get(row.path, {}).keys()
            trouble = self._lasting(picture, row) or own.polled.why
            reached, since = own.polled.reached, own.unreached_since
            if reached and own.carried not in ("", *picture.versions.get(row.path, {})):
                why = self._shelf.trouble(row.path, (own.carried,))
                # Of what cannot be read nobody knows whether it is newer.
                reached, since = not why, own.carried_since if why else None
            told[row.path] = Told(
                reached, own.carried, frozenset(staged), since, trouble, carried_since=own.carried_since
            )
        due = changed(self._told, told)
        due |= {p: t for p, t in told.items() if now - self._told_at.get(p, 0.0) >= _SAID_AGAIN_S}
        if due:
            await self._views.tell(self._member, due)
        self._told = told
        self._told_at = {p: now if p in due else self._told_at[p] for p in told}

    async def _decide(self, picture: Picture, row: Row, ready: frozenset[str]) -> None:
        reports = self._reports(picture, row, ready)
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

    def _reports(self, picture: Picture, row: Row, ready: frozenset[str]) -> list[Report]:
        """Return what each member says of a repository, and of those that say nothing since when."""
        is_new = time.monotonic() - self._hot.get(row.path, 0.0) < _FIRST_WORD_S
        own = self._member, self._told.get(row.path)
        return picture.reports(row.path, self._members(), ready, own=own, is_new=is_new)

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
            all(version in r.staged for r in ready) or self._shelf.trouble(row.path, (version,)) for version in carried
        )

    async def _publish(self, picture: Picture, *, is_whole: bool) -> None:
        self._rows = {**({} if is_whole else self._rows), **picture.rows}
        found = {}
        for path in self._rows:
            before = self.known.repositories.get(path)
            row = picture.rows.get(path)
            if row is None:
                if before is not None:
                    found[path] = self._unheard(path, before)
                continue
            versions, whole = picture.versions.get(path, {}), self._shelf.whole(path)
            here = sorted((v for v in whole if v in versions), key=lambda v: versions[v].order, reverse=True)
            if row.view.shown in here:
                here.remove(row.view.shown)
                here.insert(0, row.view.shown)
            found[path] = Followed(tuple(whole[v] for v in here), self._is_open(path))
        await self._tell(found)

    def _is_open(self, path: str) -> bool | None:
        """Return whether the own Pulp gives a repository to whoever asks, as :class:`muster.content.known.Followed` says."""
        own, before = self._own.get(path), self.known.repositories.get(path)
        was_open = before is not None and before.is_open is not False
        if own is not None and (own.polled.reached or own.polled.is_refused):
            was_open = own.polled.is_open
        if not was_open:
            return False
        return True if own is not None and time.monotonic() - own.at < _OPEN_S else None

    def _unheard(self, path: str, said: Followed) -> Followed:
        """Return what is known of a repository of which nothing is heard."""
        is_open = self._is_open(path)
        return said if is_open == said.is_open else said._replace(is_open=is_open)

    async def _tell(self, found: dict[str, Followed]) -> None:
        if found != self.known.repositories or self._untold:
            self.known.repositories = found
            try:
                await self._tell_others()
                self._untold = ""
            except MusterError as e:
                self._untold = str(e)

    def _wanted(self, picture: Picture, row: Row) -> frozenset[str | None]:
        """Return the versions that have to come to this disk."""
        told = picture.told.get(row.path, {}).values()
        return frozenset((row.view.shown, self._passed(picture, row), *(t.carried for t in told)))

    def _passed(self, picture: Picture, row: Row) -> str | None:
        """Return the version above what is shown that most members have, though no Pulp may carry it any more."""
        versions, told = picture.versions.get(row.path, {}), picture.told.get(row.path, {}).values()
        shown = versions.get(row.view.shown or "")
        if shown is None or not any(v.order > shown.order for t in told if (v := versions.get(t.carried)) is not None):
            # What nobody has gone on from was withdrawn.
            return None
        found = passed(row.view, versions)
        best = max(found, key=lambda v: (sum(v.digest in t.staged for t in told), v.order), default=None)
        return best.digest if best is not None else None

    def _lasting(self, picture: Picture, row: Row) -> str:
        """Return why something of it has not come for a while."""
        return self._shelf.trouble(row.path, self._wanted(picture, row), for_s=min(_NOTED_S, self._lag_s))

    def _judge(self, picture: Picture, hot: Sequence[Row], ready: frozenset[str]) -> None:
        """Say whether this member is behind the others, and whether it has to stay nevertheless."""
        behind: Counter[str] = Counter()
        mine, noted = [], []
        for row in hot:
            versions = picture.versions.get(row.path, {})
            if row.view.shown is not None and row.view.shown not in versions:
                continue
            reports, left = self._reports(picture, row, ready), picture.left.get(row.path)
            for one in reports:
                is_own = one.member == self._member
                if not (one.is_ready or is_own):
                    continue
                if self._shelf.have_same_packages(row.path, one.carried, row.view.shown):
                    # Published anew by each Pulp for itself: other metadata, the same packages.
                    continue
                if why := lagging(row.view, versions, one, picture.now, self._lag_s, reports, left):
                    behind[one.member] += 1
                    if is_own:
                        if self._mirrored is not None:
                            why = paths.spoken(row.path, why)
                        trouble = self._shelf.trouble(row.path, self._wanted(picture, row))
                        mine.append(f"{row.path}: {why}{f' ({trouble})' if trouble else ''}")
            if why := self._lasting(picture, row):
                noted.append(f"{row.path}: not all of it comes to this disk: {why}")
        if self._untold:
            mine.append(f"its workers do not hear which repositories are followed: {self._untold}")
        if self._unread:
            mine.append(f"what it keeps of repositories cannot be read: {self._unread}")
        behind[self._member] = len(mine)
        self.trouble, self.note = _first_of(mine), _first_of(noted)
        own = behind[self._member], self._member
        if picture.rows:
            self.is_alone = not any((behind[name], name) < own for name in ready - {self._member})
        self._counted.behind.set(len(mine))

    def _count(self, picture: Picture, hot: Sequence[Row]) -> None:
        self._counted.followed.set(len(hot))
        self._counted.versions.set(self._shelf.count)
        self._counted.kept.set(self._kept.size_bytes)
        self._counted.limit.set(self._kept.limit_bytes)
        since = [row.view.newer_since for row in hot if row.view.newer_since is not None]
        self._counted.waiting.set(max(0.0, picture.now - min(since)) if since else 0.0)

    async def _reclaim(self, picture: Picture) -> bool:
        """Take from the disk what no version needs any more; false: what is needed is not known at this moment."""
        mirrored = self._mirrored
        try:
            keep = await mirrored.needed() if mirrored is not None else frozenset[str]()
        except MusterError as e:
            _log.debug("What is kept of repositories was not reclaimed", why=str(e))
            return False
        if keep is None:
            return False
        for path in self._shelf.paths | picture.manifests.keys():
            # Of what nobody asks for any more nothing.
            self._shelf.drop(path, picture.manifests.get(path, {}))
        needed = keep.union(*(self._shelf.needed(m.values()) for m in picture.manifests.values()))

        def is_kept(name: str) -> bool:
            return name in needed or (mirrored is not None and mirrored.is_relied_on(name))

        try:
            await self._views.forget(unasked_s=_UNASKED_S, left_s=self._retention_s)
            # What belongs to a version that is on its way no version needs yet.
            await self._kept.reclaim(is_kept, older_than_s=STAGE_S)
        except MusterError as e:
            _log.warning("What is kept of repositories was not reclaimed", why=str(e))
        return True

    def _resolve(self, path: str) -> None:
        waiting = self._waiting.pop(path, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(None)


def _shown_in(picture: Picture, row: Row) -> Shown | None:
    manifest = picture.manifests.get(row.path, {}).get(row.view.shown or "")
    return Shown(row.view.shown or "", manifest, row.view.shown_since) if manifest is not None else None


def _first_of(sentences: Sequence[str]) -> str:
    more = f", and {len(sentences) - 1} more" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}" if sentences else ""
