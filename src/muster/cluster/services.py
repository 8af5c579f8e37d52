"""The services register: where everything lives that the cluster serves with, as data and not in code.

An entry is one service behind the members: a Pulp, a registry, Foreman, a DNS server. It says at which URL whoever drives it
reaches it, under which URL clients do, by network, and how much depends on it. Facts that were found out about it stand
beside it, each with its age and its source.

Entries come from three sources, and a later one wins, field by field:

1. ``settings``: what the cluster file says (:func:`~muster.cluster.service.of_cluster`, and each feature's settings);
2. ``features of NAME``: what a Ruby member tells Foreman of its Pulp, asked over the wire;
3. ``administrator``: what somebody typed in, by command or over the API. Only this is ever changed here; where it is taken
   out again, what the other sources say shines through.

The name is the kind, or ``KIND@WORD`` where there are several. ``pulp@MEMBER`` is that member's own: ``Register.of_member``
finds what one member has, and takes from ``pulp`` what the other leaves open. In URLs ``{member}`` and ``{address}`` stand
for a member's.

What is typed in is one document, changed by compare-and-set, so an entry's version only grows, also when it is taken out and
typed in anew. Facts are a document for each member, which nobody changes but who found them out. Nothing of this is sent
to the services themselves: a Pulp that Katello drives is looked at, never steered. Secrets do not stand here;
``credentials`` names where they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from muster.cluster.service import ADMINISTRATOR, Change, Register, Service, Told, kind_of, merged, typed_over
from muster.kernel.errors import Conflict, NotFound, Rejected
from muster.kernel.names import shown
from muster.store.documents import Document, Documents, document_in
from muster.store.reading import Query, Readable, Reading

if TYPE_CHECKING:
    from muster.store.engine import Store

_DOCUMENT = "services"
_TOLD = "services/"
_TELLERS = Query(
    "SELECT name, content, changed_at FROM documents WHERE substr(name, 1, 9) = :prefix ORDER BY name",
    json=("content",),
)
_MOST_ENTRIES = 500
_MOST_CHANGES = 100


class Outdated(Conflict):
    """The entry is not what it was when it was read; nothing was changed."""

    status = 412


class Services:
    """The register in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._documents = Documents(store)

    async def add(
        self, name: str, change: Change, *, by: str, base: Mapping[str, Service], dry: bool = False
    ) -> Service:
        """Type in an entry that no source has yet; the same once more changes nothing.

        Raises:
            Rejected: the name or a value may not be; nothing was changed.
            Conflict: there is one of that name that says otherwise; nothing was changed.
            Unavailable: the store did not answer.
        """
        return await self._changed(name, change, by=by, base=base, dry=dry, expected=None, is_new=True)

    async def set(
        self,
        name: str,
        change: Change,
        *,
        by: str,
        base: Mapping[str, Service],
        expected: int | None = None,
        dry: bool = False,
    ) -> Service:
        """Type in fields of an entry, whichever source it has; ``expected`` is the version that was read, None: any.

        Raises:
            NotFound: no source has it; nothing was changed.
            Rejected: a value may not be; nothing was changed.
            Outdated: it has another version by now; nothing was changed.
            Unavailable: the store did not answer.
        """
        return await self._changed(name, change, by=by, base=base, dry=dry, expected=expected, is_new=False)

    async def put(self, name: str, change: Change, *, by: str, base: Mapping[str, Service], expected: int) -> Service:
        """As :meth:`set`, or :meth:`add` where no source has the entry and ``expected`` is 0."""
        is_new = expected == 0 and name not in (await register(self._store, base)).services
        return await self._changed(name, change, by=by, base=base, dry=False, expected=expected, is_new=is_new)

    async def remove(
        self, name: str, *, by: str, base: Mapping[str, Service], expected: int | None = None, dry: bool = False
    ) -> Service | None:
        """Take out what was typed in; return what other sources say, None when there is no such service any more.

        Raises:
            NotFound: nobody typed anything in; nothing was changed.
            Outdated: it has another version by now; nothing was changed.
            Unavailable: the store did not answer.
        """
        while True:
            async with self._store.read() as uow:
                now, document, entries, changes = await _read(uow)
                told = await _told(uow)
            before = merged(entries, base, told, now)
            one = entries.get(name)
            if one is None:
                source = f"; what there is comes from {before[name].source}" if name in before else ""
                raise NotFound(f"Nobody typed in a service {shown(name)}{source}")
            _expect(name, expected, int(one["version"]))
            left = {n: e for n, e in entries.items() if n != name}
            if dry or await self._replaced(document, left, changes, name, "removed", {}, by, now):
                return merged(left, base, told, now).get(name)

    async def tell(self, told: Told) -> None:
        """Write what was found out about a member's services in place of what stood there.

        Raises:
            Unavailable: the store did not answer; the earlier facts stand.
        """
        before = await self._documents.read(f"{_TOLD}{told.member}")
        try:
            await self._documents.replace(before, told.as_json(), by=told.member)
        except Conflict:
            # Somebody else found it out at the same moment.
            return

    async def forget(self, known: Iterable[str]) -> None:
        """Remove the facts of members that there are no longer.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            rows = await uow.rows(_TELLERS, prefix=_TOLD)
        # Whoever told them spells its name as it was started with.
        still = {f"{_TOLD}{name}".lower() for name in known}
        for name in sorted(row["name"] for row in rows if row["name"].lower() not in still):
            try:
                await self._documents.forget(name, by=ADMINISTRATOR)
            except Conflict:
                continue

    async def _changed(
        self,
        name: str,
        change: Change,
        *,
        by: str,
        base: Mapping[str, Service],
        dry: bool,
        expected: int | None,
        is_new: bool,
    ) -> Service:
        kind = kind_of(name)
        change.checked(kind)
        while True:
            async with self._store.read() as uow:
                now, document, entries, changes = await _read(uow)
                told = await _told(uow)
            before = merged(entries, base, told, now)
            known = before.get(name)
            _expect(name, expected, int(entries.get(name, {}).get("version", 0)))
            if known is None and not is_new:
                raise NotFound(f"There is no service {shown(name)} to change; muster services add makes one")
            if is_new and known is not None:
                if change.says_of(known):
                    return known
                raise Conflict(
                    f"There is a service {name} already, from {known.source}, which says otherwise; nothing was changed "
                    f"(muster services set {name} changes it)"
                )
            others = merged({n: e for n, e in entries.items() if n != name}, base, told, now).get(name)
            one = typed_over(entries.get(name, {}), change, others)
            if len(entries) >= _MOST_ENTRIES and name not in entries:
                raise Rejected(f"The register has {_MOST_ENTRIES} entries typed in, and holds no more")
            entry = {**one, "version": document.version + 1, "by": by, "at": now}
            after = {**entries, name: entry}
            verb = "added" if known is None else "set"
            said = {k: v for k, v in asdict(change).items() if v is not None}
            if dry or await self._replaced(document, after, changes, name, verb, said, by, now):
                return merged(after, base, told, now)[name]

    async def _replaced(
        self,
        document: Document,
        entries: Mapping[str, Any],
        changes: Sequence[Mapping[str, Any]],
        name: str,
        verb: str,
        said: Mapping[str, Any],
        by: str,
        now: float,
    ) -> bool:
        """Write the entries; false when somebody changed some meanwhile, then everything is judged anew."""
        done = {"at": now, "by": by, "name": name, "event": verb, "said": said, "version": document.version + 1}
        content = {"entries": entries, "changes": [done, *changes][:_MOST_CHANGES]}
        try:
            await self._documents.replace(document, content, by=by)
        except Conflict:
            return False
        return True


async def register(store: Readable, base: Mapping[str, Service]) -> Register:
    """Return the whole register; ``base`` is what the settings say.

    Raises:
        Unavailable: the store did not answer.
    """
    async with store.read() as uow:
        return await register_in(uow, base)


async def register_in(uow: Reading, base: Mapping[str, Service]) -> Register:
    """As :func:`register`, within a unit that reads more."""
    now, _, entries, changes = await _read(uow)
    told = await _told(uow)
    return Register(merged(entries, base, told, now), changes)


async def _read(uow: Reading) -> tuple[float, Document, dict[str, Any], list[Mapping[str, Any]]]:
    document = await document_in(uow, _DOCUMENT)
    content: Any = document.content or {}
    return await uow.now(), document, dict(content.get("entries", {})), list(content.get("changes", ()))


async def _told(uow: Reading) -> list[tuple[Told, float]]:
    rows = await uow.rows(_TELLERS, prefix=_TOLD)
    return [
        (
            Told(row["name"].removeprefix(_TOLD), str(said.get("source", "")), said.get("services", {})),
            row["changed_at"],
        )
        for row in rows
        if isinstance(said := row["content"], dict)
    ]


def _expect(name: str, expected: int | None, found: int) -> None:
    if expected is not None and expected != found:
        now = f"has version {found} now" if found else "is typed in by nobody now"
        raise Outdated(
            f"Service {name} {now}, not {expected}: somebody changed it meanwhile; nothing was changed, read it anew"
        )
