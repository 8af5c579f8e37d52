"""The packages in the store: which there were, under which number, and what each member took its own contents for.

The newest row counts for all members, whatever their own contents are: they serve its bytes. A row is added by who has
*new* contents, never by who has old ones still: a member that was not started again since the cluster file changed, or runs
another version of Muster, goes on as it is, and does not make its contents the newest again and again. A cluster file that
is changed back is new, though: the member that comes with it knew the newer one.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.store.reading import Query
from muster.store.writing import Change

if TYPE_CHECKING:
    from muster.store.engine import Store

_ROWS = Query("SELECT number, digest, following FROM consumer_packages ORDER BY number DESC")
_WHOLE = Query("SELECT number, digest, name, rpm, deb FROM consumer_packages ORDER BY number DESC LIMIT 1")
_OWN = Query("SELECT digest, number FROM consumer_followers WHERE member = :member")
_ADD = Change(
    'INSERT INTO consumer_packages (number, digest, name, rpm, deb, following, "by", at)'
    " VALUES (:number, :digest, :name, :rpm, :deb, :following, :by, {now})"
)
_FORGET = Change("DELETE FROM consumer_packages WHERE number <= :number")
_FOLLOW = Change(
    "INSERT INTO consumer_followers (member, digest, number) VALUES (:member, :digest, :number)"
    " ON CONFLICT (member) DO UPDATE SET digest = excluded.digest, number = excluded.number"
)
_KEPT = 20


@dataclass(frozen=True, slots=True)
class Package:
    """One of them, whole."""

    number: int
    name: str
    rpm: bytes
    deb: bytes

    @property
    def version(self) -> str:
        return version(self.number)


@dataclass(frozen=True, slots=True)
class Newest:
    """The package that counts, and the digest of its contents."""

    package: Package
    digest: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A row, or what a member noted of itself: these contents had this number."""

    digest: str
    number: int


def version(number: int) -> str:
    """Return the version of the package of that number; those that single proxies made are 1.0."""
    return f"1.{number}"


def is_new(digest: str, rows: Sequence[Seen], own: Seen | None) -> bool:
    """Return whether a member's contents are newer than the newest row; ``rows`` are the newest first.

    ``own`` is what the member noted last. Contents that it had already then are not new, however long ago that was. Others
    are, unless another member brought them at a time that this one has not come to yet.
    """
    if rows and rows[0].digest == digest:
        return False
    if own is not None and own.digest == digest:
        return False
    last = next((r.number for r in rows if r.digest == digest), None)
    return last is None or (own is not None and own.number > last)


class Packages:
    """Those of one store. Concurrency: any number of members; each write is one transaction.

    Every method raises ``Unavailable`` when the store does not answer.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def newest(self) -> Newest | None:
        """Return the one that hosts get."""
        found = await self._store.ask(_WHOLE)
        return Newest(_package(found[0]), found[0]["digest"]) if found else None

    async def key(self) -> tuple[int, str] | None:
        """Return its number and the digest of its contents; None: there is none."""
        found = await self._store.ask(_ROWS)
        return (found[0]["number"], found[0]["digest"]) if found else None

    async def offer(self, member: str, digest: str, name: str, made: Callable[[str], tuple[bytes, bytes]]) -> bool:
        """Add a package of these contents if they are new; return whether they were.

        ``made`` gets a version and gives rpm and deb. It is called within the transaction, where the number is known.

        Raises:
            Conflict: another member added one at this moment; ask again.
        """
        async with self._store.write("consumer-package") as uow:
            found = await uow.rows(_ROWS)
            rows = [Seen(r["digest"], r["number"]) for r in found]
            noted = [Seen(**r) for r in await uow.rows(_OWN, member=member)]
            own = noted[0] if noted else None
            if not is_new(digest, rows, own):
                now = next((r for r in rows if r.digest == digest), own)
                if now is not None and now != own:
                    await uow.changed(_FOLLOW, {"member": member, "digest": digest, "number": now.number})
                return False
            number = int(found[0]["following"]) if found else 1
            rpm, deb = (base64.b64encode(one).decode() for one in made(version(number)))
            row = {"number": number, "digest": digest, "name": name, "rpm": rpm, "deb": deb, "by": member}
            await uow.changed(_ADD, {**row, "following": number + 1})
            await uow.changed(_FOLLOW, {"member": member, "digest": digest, "number": number})
            if len(found) >= _KEPT:
                await uow.changed(_FORGET, {"number": found[_KEPT - 1]["number"]})
            return True

    async def is_settled(self, member: str, digest: str) -> bool:
        """Return whether :meth:`offer` has nothing to do, by reading alone."""
        rows = [Seen(r["digest"], r["number"]) for r in await self._store.ask(_ROWS)]
        own = [Seen(**r) for r in await self._store.ask(_OWN, member=member)]
        if not own or own[0].digest != digest:
            return False
        last = next((r.number for r in rows if r.digest == digest), own[0].number)
        return bool(rows) and own[0].number == last


def _package(row: Mapping[str, Any]) -> Package:
    return Package(row["number"], row["name"], base64.b64decode(row["rpm"]), base64.b64decode(row["deb"]))
