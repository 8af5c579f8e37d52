"""What the store holds of repositories: which version each shows, which there are, and what members have of them.

One row a repository says what is shown. It is read for each answer that depends on it, so that no member answers with what
another has already left; and it is changed by whoever sees first that it may be, by compare and set.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from muster.cluster.roster import seen_in
from muster.content.view import Decided, Report, Version, View
from muster.kernel.errors import Unavailable
from muster.store.reading import Query
from muster.store.writing import Change

if TYPE_CHECKING:
    from muster.cluster.roster import Seen
    from muster.store.engine import Store
    from muster.store.reading import Reading

_SHOWN = Query(
    "SELECT r.shown, r.shown_since, v.manifest FROM content_repositories r JOIN content_versions v"
    " ON v.path = r.path AND v.digest = r.shown WHERE r.path = :path"
)
_ANY = Query("SELECT path FROM content_repositories LIMIT 1")
_COUNT = Query("SELECT count(*) AS found FROM content_repositories")
_REPOSITORIES = Query(
    "SELECT path, generation, shown, shown_since, newer_since, version, asked_at, certificate FROM content_repositories"
    " WHERE asked_at >= :since"
)
_VERSIONS = Query(
    "SELECT path, digest, generation, revision, timestamp, seen_at, left_at, manifest FROM content_versions"
    " WHERE path IN (SELECT path FROM content_repositories WHERE asked_at >= :since)"
)
_REPORTS = Query(
    "SELECT path, member, reached, carried, carried_since, staged, unreached_since, trouble, told_at FROM content_reports"
    " WHERE path IN (SELECT path FROM content_repositories WHERE asked_at >= :since)"
)
_ASK = Change(
    "INSERT INTO content_repositories (path, asked_at, certificate) VALUES (:path, {now}, :certificate)"
    " ON CONFLICT (path) DO UPDATE SET asked_at = excluded.asked_at, certificate = CASE WHEN excluded.certificate = ''"
    " THEN content_repositories.certificate ELSE excluded.certificate END"
)
_KNOW = Change(
    "INSERT INTO content_versions (path, digest, generation, revision, timestamp, seen_at, manifest)"
    " SELECT r.path, :digest, r.generation, :revision, :timestamp, {now}, :manifest FROM content_repositories r"
    " WHERE r.path = :path ON CONFLICT (path, digest) DO NOTHING"
)
_WANT = Change(
    "INSERT INTO content_versions (path, digest, generation, revision, timestamp, seen_at, manifest)"
    " SELECT r.path, :digest, r.generation, -1, :since, {now}, :manifest FROM content_repositories r WHERE r.path = :path"
    " ON CONFLICT (path, digest) DO UPDATE SET generation = excluded.generation, timestamp = excluded.timestamp,"
    " manifest = excluded.manifest, left_at = NULL WHERE (excluded.generation, excluded.timestamp) >"
    " (content_versions.generation, content_versions.timestamp)"
)
_REPORT = Change(
    "INSERT INTO content_reports (path, member, reached, carried, carried_since, staged, unreached_since, trouble, told_at)"
    " VALUES (:path, :member, :reached, :carried, :carried_since, :staged, :unreached_since, :trouble, {now})"
    " ON CONFLICT (path, member) DO UPDATE SET reached = excluded.reached, carried = excluded.carried,"
    " carried_since = excluded.carried_since, staged = excluded.staged, unreached_since = excluded.unreached_since,"
    " trouble = excluded.trouble, told_at = excluded.told_at"
)
_SHOW = Change(
    "UPDATE content_repositories SET generation = :generation, shown = :shown, shown_since = :shown_since,"
    " newer_since = :newer_since, version = version + 1 WHERE path = :path AND version = :version"
)
_LEAVE = Change("UPDATE content_versions SET left_at = {now} WHERE path = :path AND digest = :digest")
_RETURN = Change("UPDATE content_versions SET left_at = NULL WHERE path = :path AND digest = :digest")
_RAISE = Change("UPDATE content_versions SET generation = :generation WHERE path = :path AND digest = :digest")
_FORGET = (
    Change("DELETE FROM content_repositories WHERE asked_at < :unasked"),
    Change("DELETE FROM content_versions WHERE path NOT IN (SELECT path FROM content_repositories)"),
    Change("DELETE FROM content_reports WHERE path NOT IN (SELECT path FROM content_repositories)"),
    # What was never shown has not been left; it was seen that long ago, and nobody carries it.
    Change(
        "DELETE FROM content_versions WHERE coalesce(left_at, seen_at) < :left AND NOT EXISTS (SELECT 1 FROM"
        " content_repositories r WHERE r.path = content_versions.path AND r.shown = content_versions.digest) AND NOT EXISTS"
        " (SELECT 1 FROM content_reports c WHERE c.path = content_versions.path AND c.carried = content_versions.digest)"
    ),
)
_WRITTEN = re.compile(r"([0-9a-f]{64}) ([0-9a-f]{64}) ([0-9]{1,12}\.[0-9]{6})\Z")
# Repositories are told apart by what clients ask for, so how many there can be is not ours to say.
MOST = 5000
# What was asked for within that long is looked at again and again.
HOT_S = 30.0
# Who has said nothing of a repository for so long is not waited for: it hangs, or is of a version that says nothing.
_SILENT_S = 60.0


class Shown(NamedTuple):
    """A version that is shown.

    Attributes:
        digest: of its entry: of its ``repomd.xml``, say.
        manifest: the digest of that.
        since: store time.
        is_new: it has not been shown for so long that nobody is still fetching the one before.
    """

    digest: str
    manifest: str
    since: float = 0.0
    is_new: bool = False

    def written(self) -> bytes:
        """Return it as members tell each other; whether it is new follows from the time, for whoever reads it."""
        return f"{self.digest} {self.manifest} {self.since:.6f}".encode()

    @classmethod
    def read(cls, body: bytes) -> Shown:
        """Return what :meth:`written` wrote on another member.

        Raises:
            Unavailable: this is none.
        """
        found = _WRITTEN.match(body.decode("ascii", "replace"))
        if found is None:
            raise Unavailable("What another member says is shown is no version")
        return cls(found[1], found[2], float(found[3]))


@dataclass(frozen=True)
class Row:
    """One repository.

    Attributes:
        version: counts the changes of ``view``.
        certificate: the last that its guard let in, DER.
    """

    path: str
    view: View
    version: int
    asked_at: float
    certificate: bytes | None


@dataclass(frozen=True)
class Told:
    """What a member said of a repository.

    Attributes:
        carried: digest of what its own Pulp has, or had when it was reached last; empty: nothing.
        carried_since: store time of the first sight of that.
        staged: digests of what lies whole on its disk.
        trouble: why it cannot stage what it should, or why its Pulp was not reached; empty: nothing.
    """

    reached: bool
    carried: str
    staged: frozenset[str]
    unreached_since: float | None
    trouble: str = ""
    told_at: float = 0.0
    carried_since: float = 0.0


@dataclass(frozen=True)
class Picture:
    """What the store held at one moment, of the repositories asked for since another.

    Attributes:
        now: the store's clock.
        manifests: by path and digest.
        left: since when versions are not shown any more, by path and digest; of what was never shown nothing.
        told: by path and member.
        members: the roster.
    """

    now: float
    rows: Mapping[str, Row] = field(default_factory=dict)
    versions: Mapping[str, Mapping[str, Version]] = field(default_factory=dict)
    manifests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    left: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    told: Mapping[str, Mapping[str, Told]] = field(default_factory=dict)
    members: Mapping[str, Seen] = field(default_factory=dict)

    def ready(self, services: Iterable[str]) -> frozenset[str]:
        """Return the members that take clients of one of these services."""
        return frozenset(
            name for name, one in self.members.items()
            if not one.silent and any(one.report.readiness.get(s, {}).get("state") == "ready" for s in services)
        )  # fmt: skip

    def heard(self, path: str, name: str) -> Told | None:
        """Return what a member says of a repository, None: it is silent, or has said nothing of it lately."""
        one, seen = self.told.get(path, {}).get(name), self.members.get(name)
        is_here = seen is not None and not seen.silent
        return one if one is not None and is_here and self.now - one.told_at < _SILENT_S else None

    def reports(
        self,
        path: str,
        names: Iterable[str],
        ready: Container[str],
        *,
        own: tuple[str, Told | None] = ("", None),
        is_new: bool = False,
    ) -> list[Report]:
        """Return what each of these members says of a repository, and of those that say nothing since when.

        ``ready`` are those that take clients; ``own`` is who reads, and what it says now; ``is_new``: who says nothing has
        not had the time to.
        """
        out = []
        for name in names:
            is_own = name == own[0]
            one = own[1] or self.told.get(path, {}).get(name) if is_own else self.heard(path, name)
            if one is None:
                seen = self.members.get(name)
                last_here = self.now - seen.age_s if seen is not None else 0.0
                out.append(Report(name, None, frozenset(), name in ready and is_new, unreached_since=last_here))
            else:
                since = None if one.reached else one.unreached_since
                out.append(Report(name, one.carried or None, one.staged, name in ready, one.carried_since, since))
        return out


class Views:
    """Repositories in the store. Every method raises ``Unavailable`` when that does not answer."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def shown(self, path: str) -> Shown | None:
        """Return which version a repository shows at this moment; None: none."""
        found = await self._store.ask(_SHOWN, path=path)
        return Shown(found[0]["shown"], found[0]["manifest"], found[0]["shown_since"]) if found else None

    async def picture(self, within_s: float) -> Picture:
        """Return what there is of the repositories that were asked for within so long."""
        if not await self._store.ask(_ANY):
            # As long as nobody fetches anything that is all it costs.
            return Picture(0.0)
        async with self._store.read() as uow:
            return await picture_in(uow, within_s)

    async def ask(self, asked: Mapping[str, bytes | None]) -> None:
        """Say that clients ask for these repositories, with the certificates that their guards let in."""
        rows = [{"path": p, "certificate": base64.b64encode(c).decode() if c else ""} for p, c in sorted(asked.items())]
        async with self._store.write("content-asked") as uow:
            await uow.change(_ASK, rows)

    async def has_room(self) -> bool:
        """Whether another repository may be followed."""
        return int((await self._store.ask(_COUNT))[0]["found"]) < MOST

    async def know(self, path: str, versions: Iterable[tuple[str, int, float, str]]) -> None:
        """Note versions of a repository: digest, revision, timestamp, manifest. Who noted one first is believed."""
        rows = [
            {"path": path, "digest": d, "revision": r, "timestamp": t, "manifest": m} for d, r, t, m in versions
        ]  # fmt: skip
        async with self._store.write("content-version") as uow:
            await uow.change(_KNOW, rows)

    async def want(self, path: str, digest: str, manifest: str, *, since: float) -> None:
        """Note a version that is to be shown after all that were wanted before it, whatever it says of itself.

        ``since``, of the store's clock, is later with each; one that was wanted before gets the new one.
        """
        async with self._store.write("content-wanted") as uow:
            await uow.change(_ASK, [{"path": path, "certificate": ""}])
            row = {"path": path, "digest": digest, "since": since, "manifest": manifest}
            await uow.change(_WANT, [row])

    async def tell(self, member: str, told: Mapping[str, Told]) -> None:
        """Say what a member has of these repositories."""
        rows = [
            {
                "path": path, "member": member, "reached": int(t.reached), "carried": t.carried,
                "carried_since": t.carried_since, "staged": " ".join(sorted(t.staged)),
                "unreached_since": t.unreached_since, "trouble": t.trouble[:500],
            }
            for path, t in sorted(told.items())
        ]  # fmt: skip
        async with self._store.write("content-report") as uow:
            await uow.change(_REPORT, rows)

    async def show(self, row: Row, decided: Decided) -> bool:
        """Change what a repository shows; false when somebody did so since the row was read, and nothing was changed."""
        view = decided.view
        async with self._store.write("content-shown") as uow:
            values = {
                "path": row.path, "version": row.version, "generation": view.generation, "shown": view.shown or "",
                "shown_since": view.shown_since, "newer_since": view.newer_since,
            }  # fmt: skip
            if not await uow.changed(_SHOW, values):
                return False
            if row.view.shown is not None and row.view.shown != view.shown:
                await uow.change(_LEAVE, [{"path": row.path, "digest": row.view.shown}])
            if view.shown is not None:
                await uow.change(_RETURN, [{"path": row.path, "digest": view.shown}])
            if decided.raised is not None:
                raised = {"path": row.path, "digest": decided.raised, "generation": view.generation}
                await uow.change(_RAISE, [raised])
        return True

    async def forget(self, *, unasked_s: float, left_s: float) -> None:
        """Drop repositories that nobody asked for that long, and versions left that long ago."""
        async with self._store.write("content-forgotten") as uow:
            now = await uow.now()
            for change in _FORGET:
                given: dict[str, Any] = {"unasked": now - unasked_s, "left": now - left_s}
                await uow.change(change, [{k: v for k, v in given.items() if f":{k}" in change.text}])


async def picture_in(uow: Reading, within_s: float) -> Picture:
    """Return what there is of the repositories that were asked for within so long."""
    now = await uow.now()
    since = now - within_s
    rows = [_row(r) for r in await uow.rows(_REPOSITORIES, since=since)]
    if not rows:
        return Picture(now)
    versions: dict[str, dict[str, Version]] = {}
    manifests: dict[str, dict[str, str]] = {}
    left: dict[str, dict[str, float]] = {}
    for v in await uow.rows(_VERSIONS, since=since):
        path, digest = v["path"], v["digest"]
        found = Version(digest, v["generation"], v["revision"], v["timestamp"], v["seen_at"])
        versions.setdefault(path, {})[digest] = found
        manifests.setdefault(path, {})[digest] = v["manifest"]
        if v["left_at"] is not None:
            left.setdefault(path, {})[digest] = v["left_at"]
    told: dict[str, dict[str, Told]] = {}
    for t in await uow.rows(_REPORTS, since=since):
        told.setdefault(t["path"], {})[t["member"]] = _told(t)
    return Picture(now, {r.path: r for r in rows}, versions, manifests, left, told, await seen_in(uow))


def _row(r: Mapping[str, Any]) -> Row:
    certificate = base64.b64decode(r["certificate"]) if r["certificate"] else None
    view = View(r["generation"], r["shown"] or None, r["shown_since"], r["newer_since"])
    return Row(r["path"], view, r["version"], r["asked_at"], certificate)


def _told(t: Mapping[str, Any]) -> Told:
    return Told(
        bool(t["reached"]), t["carried"], frozenset(t["staged"].split()), t["unreached_since"], t["trouble"], t["told_at"],
        t["carried_since"],
    )  # fmt: skip


def changed(before: Mapping[str, Told], now: Mapping[str, Told]) -> dict[str, Told]:
    """Return what is said now and was not said before."""
    return {p: t for p, t in now.items() if p not in before or _but_time(before[p]) != _but_time(t)}


def _but_time(told: Told) -> Sequence[object]:
    return (told.reached, told.carried, told.carried_since, told.staged, told.unreached_since, told.trouble)
