"""Which images there are, and who may read which: what Foreman told any member, for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from muster.store.engine import Store, Unit
from muster.store.reading import Query
from muster.store.writing import Change

Kind = Literal["user", "host"]

_STANDING = Query(
    "SELECT auth_required, EXISTS(SELECT 1 FROM gateway_grants WHERE kind = :kind AND subject = :subject "
    "AND repository = :name) AS is_granted FROM gateway_repositories WHERE name = :name"
)
_CATALOG = Query(
    "SELECT name FROM gateway_repositories WHERE auth_required = 0 OR EXISTS(SELECT 1 FROM gateway_grants "
    "WHERE kind = :kind AND subject = :subject AND repository = gateway_repositories.name) ORDER BY name"
)
_KNOWN = Query("SELECT name FROM gateway_subjects WHERE kind = :kind ORDER BY name")
_IS_KNOWN = Query("SELECT 1 AS one FROM gateway_subjects WHERE kind = :kind AND name = :name")

_FORGET_REPOSITORIES = Change("DELETE FROM gateway_repositories")
_ADD_REPOSITORY = Change(
    "INSERT INTO gateway_repositories (name, auth_required) VALUES (:name, :auth_required) ON CONFLICT DO NOTHING"
)
_FORGET_SUBJECTS = Change("DELETE FROM gateway_subjects WHERE kind = :kind")
_ADD_SUBJECT = Change("INSERT INTO gateway_subjects (kind, name) VALUES (:kind, :name) ON CONFLICT DO NOTHING")
_FORGET_GRANTS_OF_OTHERS = Change(
    "DELETE FROM gateway_grants WHERE kind = :kind AND NOT EXISTS(SELECT 1 FROM gateway_subjects AS s "
    "WHERE s.kind = gateway_grants.kind AND s.name = gateway_grants.subject)"
)
_FORGET_GRANTS = Change("DELETE FROM gateway_grants WHERE kind = :kind")
_FORGET_GRANTS_OF = Change("DELETE FROM gateway_grants WHERE kind = :kind AND subject = :subject")
_ADD_GRANT = Change(
    "INSERT INTO gateway_grants (kind, subject, repository) VALUES (:kind, :subject, :repository) ON CONFLICT DO NOTHING"
)
# PostgreSQL's lock for who replaces a list, until the unit's end: of two at once each would see and remove only what was
# there before both, and leave the other's. SQLite's write transaction is one.
_TURN = (
    # A turn may take as long as a whole unit, which ends the wait then.
    Change("SET LOCAL statement_timeout TO 0"),
    Change("SELECT pg_advisory_xact_lock(1297437508, CAST(:number AS int))"),
    Change("SET LOCAL statement_timeout TO DEFAULT"),
)
_Listed = Literal["repositories", "hosts", "user", "host"]
_NUMBERS: Mapping[_Listed, int] = {"repositories": 1, "hosts": 2, "user": 3, "host": 4}
# A site has thousands of hosts that may read hundreds of images each.
_LONG_S = 120.0


@dataclass(frozen=True)
class Subject:
    """Who reads.

    Attributes:
        name: a user's login, or the UUID that Foreman knows a host's subscription by.
    """

    kind: Kind
    name: str


_NOBODY = Subject("user", "")


class Grants:
    """What the store says. A change takes effect on every member with its commit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def may_read(self, repository: str, subject: Subject | None) -> bool:
        """Whether there is such a repository and the subject, or everybody, may read it.

        Raises:
            Unavailable: the store did not answer.
        """
        one = subject or _NOBODY
        found = await self._store.ask(_STANDING, kind=one.kind, subject=one.name, name=repository)
        return bool(found) and (not found[0]["auth_required"] or (subject is not None and bool(found[0]["is_granted"])))

    async def catalog(self, subject: Subject | None) -> list[str]:
        """Return what the subject may read, in order of name; without one, what everybody may."""
        one = subject or _NOBODY
        return [row["name"] for row in await self._store.ask(_CATALOG, kind=one.kind, subject=one.name)]

    async def users(self) -> list[str]:
        """Return who has logged in."""
        return [row["name"] for row in await self._store.ask(_KNOWN, kind="user")]

    async def is_known(self, subject: Subject) -> bool:
        """Whether Foreman said anything of it."""
        return bool(await self._store.ask(_IS_KNOWN, kind=subject.kind, name=subject.name))

    async def list_repositories(self, repositories: Mapping[str, bool]) -> None:
        """Let there be these repositories, and no others; each with whether one has to log in for it.

        Who may read what stays: Foreman says that next, and of a repository that is gone it counts for nothing.
        """
        rows = [{"name": name, "auth_required": int(needed)} for name, needed in repositories.items()]
        async with self._store.write("gateway-repositories", limit_s=_LONG_S) as uow:
            await in_turn(uow, "repositories")
            await uow.changed(_FORGET_REPOSITORIES, {})
            await uow.change(_ADD_REPOSITORY, rows)

    async def list_hosts(self, uuids: Iterable[str]) -> None:
        """Let these hosts be known, and no others; those may read nothing any more."""
        async with self._store.write("gateway-hosts", limit_s=_LONG_S) as uow:
            await in_turn(uow, "hosts")
            await uow.changed(_FORGET_SUBJECTS, {"kind": "host"})
            await uow.change(_ADD_SUBJECT, [{"kind": "host", "name": uuid} for uuid in uuids])
            await uow.changed(_FORGET_GRANTS_OF_OTHERS, {"kind": "host"})

    async def replace(self, kind: Kind, granted: Mapping[str, Collection[str]]) -> None:
        """Let these of a kind read these repositories, and nobody else of that kind any."""
        async with self._store.write("gateway-grants", limit_s=_LONG_S) as uow:
            await in_turn(uow, kind)
            await uow.changed(_FORGET_GRANTS, {"kind": kind})
            await _granted(uow, kind, granted)

    async def set(self, subject: Subject, repositories: Collection[str]) -> None:
        """Let one read these repositories and no others; it is known from then on."""
        await self.set_each(subject.kind, {subject.name: repositories})

    async def set_each(self, kind: Kind, granted: Mapping[str, Collection[str]]) -> None:
        """As :meth:`set`, of several at once: of all of them or of none."""
        names = sorted(granted)
        async with self._store.write("gateway-grants-of", limit_s=_LONG_S) as uow:
            await uow.change(_ADD_SUBJECT, [{"kind": kind, "name": name} for name in names])
            await uow.change(_FORGET_GRANTS_OF, [{"kind": kind, "subject": name} for name in names])
            await _granted(uow, kind, granted)


async def in_turn(uow: Unit, listed: _Listed) -> None:
    """Return when nobody else replaces this list before the unit's end."""
    if uow.dialect == "postgresql":
        for change in _TURN:
            await uow.changed(change, {"number": _NUMBERS[listed]})


async def _granted(uow: Unit, kind: Kind, granted: Mapping[str, Collection[str]]) -> None:
    # In one order everywhere: of two that say the same of somebody, neither waits for what the other waits with.
    rows = [
        {"kind": kind, "subject": name, "repository": r} for name in sorted(granted) for r in sorted({*granted[name]})
    ]
    await uow.change(_ADD_GRANT, rows)
