"""The tree of boot files in the store: what stands at which path, since which version, and which members have it.

Changes take effect one after another: each takes the row of the tree first, so versions are committed in their order, and
whoever has read up to a version has missed nothing of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.cluster.roster import seen_in
from muster.kernel.errors import Rejected
from muster.kernel.names import shown
from muster.netboot.contract import (
    FEATURES,
    HIDDEN,
    LIMIT_WRITTEN_BYTES,
    BootPath,
    Change,
    Entry,
    Link,
    Put,
    Remove,
    RemoveBelow,
)
from muster.store.reading import Query, Reading
from muster.store.writing import Change as Statement

if TYPE_CHECKING:
    from muster.store.engine import Store, Unit

# A change of one host has a dozen.
MOST_CHANGES = 1000
_MOST_LACKS = 1000
_LIMIT_TARGET_CHARACTERS = 1024

_TREE = Query("SELECT version, forgotten FROM netboot_tree WHERE id = 1")
_SINCE = Query(
    "SELECT path, kind, digest, size, target, version, modified_at, origin, etag FROM netboot_entries"
    " WHERE version > :version ORDER BY version, path"
)
_LIVE = Query(
    "SELECT path, kind, digest, size, target, version, modified_at, origin, etag FROM netboot_entries"
    " WHERE kind <> 'gone' ORDER BY version, path"
)
_AT = Query(
    "SELECT path, kind, digest, size, target, version, modified_at, origin, etag FROM netboot_entries"
    " WHERE path = :path AND kind <> 'gone'"
)
_BELOW = Query(
    "SELECT path, kind, digest, size, target, version, modified_at, origin, etag FROM netboot_entries"
    " WHERE path >= :first AND path < :last AND kind <> 'gone' ORDER BY path"
)
_CONTENT = Query("SELECT content FROM netboot_blobs WHERE digest = :digest")
_MEMBERS = Query("SELECT member, version, fenced, lacks, trouble FROM netboot_members ORDER BY member")
_FOR = Query(
    "SELECT t.version, t.forgotten, m.version AS own, m.fenced FROM netboot_tree t"
    " LEFT JOIN netboot_members m ON m.member = :member WHERE t.id = 1"
)
_GROW = Statement(
    "INSERT INTO netboot_tree (id, version) VALUES (1, 1)"
    " ON CONFLICT (id) DO UPDATE SET version = netboot_tree.version + 1"
)
_SHRINK = Statement("UPDATE netboot_tree SET version = version - 1 WHERE id = 1")
_BLOB = Statement(
    "INSERT INTO netboot_blobs (digest, content, at) VALUES (:digest, :content, {now})"
    " ON CONFLICT (digest) DO UPDATE SET at = excluded.at"
)
_ENTRY = Statement(
    "INSERT INTO netboot_entries (path, kind, digest, size, target, version, modified_at, changed_at, origin, etag)"
    " VALUES (:path, :kind, :digest, :size, :target, :version, coalesce(:modified_at, {now}), {now}, :origin, :etag)"
    " ON CONFLICT (path) DO UPDATE SET kind = excluded.kind, digest = excluded.digest, size = excluded.size,"
    " target = excluded.target, version = excluded.version, modified_at = excluded.modified_at,"
    " changed_at = excluded.changed_at, origin = excluded.origin, etag = excluded.etag"
)
_CONFIRM = Statement(
    "INSERT INTO netboot_members (member, version, lacks, trouble, at) VALUES (:member, :version, :lacks, :trouble, {now})"
    " ON CONFLICT (member) DO UPDATE SET version = excluded.version, lacks = excluded.lacks, trouble = excluded.trouble,"
    " at = excluded.at"
)
_FENCE = Statement(
    "INSERT INTO netboot_members (member, fenced, at) VALUES (:member, :version, {now})"
    " ON CONFLICT (member) DO UPDATE SET fenced = excluded.fenced"
    " WHERE netboot_members.version < excluded.fenced AND netboot_members.fenced < excluded.fenced"
)
_DROP_MEMBER = Statement("DELETE FROM netboot_members WHERE member = :member")
# What went away a week ago is forgotten; who was away for longer compares everything. A blob's row is young while what needs
# it is being written.
_FORGET = (
    Statement(
        "UPDATE netboot_tree SET forgotten = coalesce((SELECT max(version) FROM netboot_entries WHERE kind = 'gone'"
        " AND changed_at < {now} - 604800), forgotten) WHERE id = 1"
    ),
    Statement("DELETE FROM netboot_entries WHERE kind = 'gone' AND changed_at < {now} - 604800"),
    Statement(
        "DELETE FROM netboot_blobs WHERE at < {now} - 3600 AND NOT EXISTS (SELECT 1 FROM netboot_entries e"
        " WHERE e.digest = netboot_blobs.digest AND e.kind = 'file')"
    ),
)


@dataclass(frozen=True, slots=True)
class Fetched:
    """A change: a file that was fetched stands at ``path``; its bytes lie on the disk of the member that says so.

    Attributes:
        modified_at: seconds since the epoch, as its origin says; None: it does not.
        origin: where it was fetched from, without a password.
        etag: the origin's validator, as it is; empty: none.
    """

    path: BootPath
    digest: str
    size: int
    modified_at: float | None = None
    origin: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the tree.

    Attributes:
        entry: what stands there; of what went away, its path and version alone count.
        is_gone: it stands there no more.
    """

    entry: Entry
    is_gone: bool = False
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Tree:
    """How far the tree is.

    Attributes:
        forgotten: what went away up to this version is not known any more.
        fenced: below this version the member that asks takes no clients.
        confirmed: the version that the member has confirmed; None: none.
    """

    version: int = 0
    forgotten: int = 0
    fenced: int = 0
    confirmed: int | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a member is.

    Attributes:
        counts: it takes clients, and serves from the tree.
        lacks: paths whose bytes are still on their way to it; what stood there before still does.
        trouble: what keeps it from a newer version, in its own words; empty: nothing.
    """

    member: str
    version: int = 0
    fenced: int = 0
    counts: bool = False
    lacks: frozenset[str] = frozenset()
    trouble: str = ""


class Ledger:
    """The rows of the tree. Concurrency: any number of calls of any number of members."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def change(self, changes: Sequence[Change | Fetched]) -> int:
        """Carry out all changes or none, in their order; return the version of the tree that has them.

        Raises:
            Rejected: too much, a link that leaves the root, or a file where a directory is, or the other way round;
                nothing was changed.
            Unavailable: the store did not answer.
        """
        if len(changes) > MOST_CHANGES:
            raise Rejected(f"{len(changes)} changes of boot files at once are more than {MOST_CHANGES}")
        for one in changes:
            _refuse(one)
        async with self._store.write("boot-changed") as uow:
            await uow.changed(_GROW, {})
            version = int((await uow.rows(_TREE))[0]["version"])
            effective = False
            for one in changes:
                effective |= await _carried_out(uow, one, version)
            if not effective:
                # Foreman writes the same again and again: nobody has anything to do for it.
                await uow.changed(_SHRINK, {})
                version -= 1
        return version

    async def tree(self, member: str) -> Tree:
        """Return how far the tree is, and from where on a member is fenced.

        Raises:
            Unavailable: the store did not answer.
        """
        found = await self._store.ask(_FOR, member=member)
        if not found:
            return Tree()
        row = found[0]
        fenced, own = int(row["fenced"] or 0), row["own"]
        return Tree(int(row["version"]), int(row["forgotten"]), fenced if fenced > (own or 0) else 0, own)

    async def rows(self, since: int | None) -> tuple[int, Sequence[Row]]:
        """Return the tree's version, and what changed after another, or, with None, all that stands; oldest first.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            tree = await uow.rows(_TREE)
            found = await uow.rows(_LIVE) if since is None else await uow.rows(_SINCE, version=since)
        return int(tree[0]["version"]) if tree else 0, [_row(r) for r in found]

    async def at(self, path: BootPath) -> Row | None:
        """Return what stands at a path.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            found = await uow.rows(_AT, path=path.text)
        return _row(found[0]) if found else None

    async def below(self, directory: str) -> Sequence[Entry]:
        """Return what stands below a directory, by path.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return [_row(r).entry for r in await _rows_below(uow, directory)]

    async def content(self, digest: str) -> bytes | None:
        """Return the bytes of a small file, None: they are not in the store.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            found = await uow.rows(_CONTENT, digest=digest)
        return base64.b64decode(found[0]["content"]) if found else None

    async def confirm(self, member: str, version: int, lacks: Sequence[BootPath] = (), trouble: str = "") -> None:
        """Say that a version lies on a member's disk, but for these files, and what keeps it from the next, or from these.

        Raises:
            Unavailable: the store did not answer.
        """
        said = json.dumps([p.text for p in lacks[:_MOST_LACKS]])
        async with self._store.write("boot-confirmed") as uow:
            await uow.changed(_CONFIRM, {"member": member, "version": version, "lacks": said, "trouble": trouble})

    async def standings(self) -> Sequence[Standing]:
        """Return how far each member is that has ever said so, or takes clients.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            said = {r["member"]: r for r in await uow.rows(_MEMBERS)}
            seen = await seen_in(uow)
        found = []
        for name in sorted(said.keys() | seen.keys()):
            row, one = said.get(name), seen.get(name)
            counts = (
                one is not None
                and not one.silent
                and any(r.get("state") == "ready" for r in one.report.readiness.values())
                and any(one.report.features.get(f) == "running" for f in FEATURES)
            )
            if row is None:
                found.append(Standing(name, counts=counts))
                continue
            lacks = frozenset(map(str, json.loads(row["lacks"])))
            found.append(Standing(name, int(row["version"]), int(row["fenced"]), counts, lacks, row["trouble"]))
        return found

    async def fence(self, members: Collection[str], version: int) -> None:
        """Have members take no clients until they are at a version; who is there already is left alone.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.write("boot-fenced") as uow:
            for member in sorted(members):
                await uow.changed(_FENCE, {"member": member, "version": version})

    async def forget(self, unlisted: Collection[str] = ()) -> None:
        """Drop what nobody needs: what went away long ago, bytes of no file, and members that are none any more.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.write("boot-forgotten") as uow:
            for statement in _FORGET:
                await uow.changed(statement, {})
            for member in sorted(unlisted):
                await uow.changed(_DROP_MEMBER, {"member": member})


def _refuse(one: Change | Fetched) -> None:
    if isinstance(one, Put) and len(one.content) > LIMIT_WRITTEN_BYTES:
        raise Rejected(
            f"{one.path} has {len(one.content)} bytes, more than the {LIMIT_WRITTEN_BYTES} of what is written"
        )
    if isinstance(one, Link):
        target = one.target
        if not target or len(target) > _LIMIT_TARGET_CHARACTERS or not target.isascii() or not target.isprintable():
            raise Rejected(f"The link {one.path} leads to {shown(target)}, which is no path")
        to = posixpath.normpath(posixpath.join(one.path.parent, target))
        if target.startswith("/") or to.partition("/")[0] in ("..", HIDDEN):
            raise Rejected(f"The link {one.path} leads to {shown(target)}, out of the tree")


async def _carried_out(uow: Unit, one: Change | Fetched, version: int) -> bool:
    """Carry a change out; return whether anything is different now."""
    if isinstance(one, RemoveBelow):
        rows = [_row(r).entry.path for r in await _rows_below(uow, one.directory.text)]
        gone = [
            p for p in rows if p.text.endswith(one.suffix) and not (one.directly and p.parent != one.directory.text)
        ]
        for path in gone:
            await _written(uow, version, path, kind="gone")
        return bool(gone)
    found = await uow.rows(_AT, path=one.path.text)
    now = _row(found[0]).entry if found else None
    if isinstance(one, Remove):
        if now is not None:
            await _written(uow, version, one.path, kind="gone")
        return now is not None
    if now is None:
        await _refuse_in_the_way(uow, one.path)
    if isinstance(one, Link):
        if now is not None and (now.kind, now.target) == ("link", one.target):
            return False
        await _written(uow, version, one.path, kind="link", target=one.target)
        return True
    if isinstance(one, Fetched):
        await _written(
            uow, version, one.path, kind="file", digest=one.digest, size=one.size, modified_at=one.modified_at,
            origin=one.origin, etag=one.etag,
        )  # fmt: skip
        return True
    digest = hashlib.sha256(one.content).hexdigest()
    if now is not None and (now.kind, now.digest) == ("file", digest):
        return False
    await uow.changed(_BLOB, {"digest": digest, "content": base64.b64encode(one.content).decode()})
    await _written(uow, version, one.path, kind="file", digest=digest, size=len(one.content))
    return True


async def _written(uow: Unit, version: int, path: BootPath, *, kind: str, **more: Any) -> None:
    nothing = {"digest": "", "size": 0, "target": "", "modified_at": None, "origin": "", "etag": ""}
    await uow.changed(_ENTRY, {**nothing, **more, "path": path.text, "kind": kind, "version": version})


async def _refuse_in_the_way(uow: Unit, path: BootPath) -> None:
    parts = path.text.split("/")
    for n in range(1, len(parts)):
        above = "/".join(parts[:n])
        if await uow.rows(_AT, path=above):
            raise Rejected(f"{path} cannot be written: {above} is a file. Not a directory")
    if await _rows_below(uow, path.text):
        raise Rejected(f"{path} cannot be written: there are files below it. Is a directory")


async def _rows_below(uow: Reading, directory: str) -> list[dict[str, Any]]:
    # A slash is followed by a zero.
    first, last = (f"{directory}/", f"{directory}0") if directory else ("", "\x7f")
    return await uow.rows(_BELOW, first=first, last=last)


def _row(found: dict[str, Any]) -> Row:
    kind = found["kind"]
    entry = Entry(
        BootPath(found["path"]), kind if kind != "gone" else "file", int(found["version"]), found["digest"],
        int(found["size"]), found["target"], float(found["modified_at"]), found["origin"],
    )  # fmt: skip
    return Row(entry, kind == "gone", found["etag"])
