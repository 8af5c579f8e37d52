"""Documents: small shared settings and plans, each changed by compare-and-set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muster.kernel.errors import Conflict
from muster.store.reading import Query, Reading

if TYPE_CHECKING:
    from muster.store.engine import Store, Unit

_DOCUMENT = Query("SELECT version, content, changed_by FROM documents WHERE name = :name", json=("content",))


@dataclass(frozen=True)
class Document:
    """A document as it was read; version 0 means there is none."""

    name: str
    version: int = 0
    content: Any = None
    changed_by: str = ""


class Documents:
    """The documents of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def read(self, name: str) -> Document:
        """Return the document; version 0 when there is none.

        Raises:
            Unavailable: the store did not answer.
        """
        async with self._store.read() as uow:
            return await document_in(uow, name)

    async def replace(self, before: Document, content: Any, *, by: str) -> Document:
        """Write new content over what was read; content None removes the document.

        Raises:
            Conflict: somebody changed it meanwhile; nothing was changed.
            Unavailable: the store did not answer.
        """
        async with self._store.write("document") as uow:
            return await replaced(uow, before, content, by=by)

    async def forget(self, name: str, *, by: str) -> bool:
        """Remove a document; whether there was one.

        Raises:
            Conflict: somebody changed it meanwhile; nothing was changed.
            Unavailable: the store did not answer.
        """
        before = await self.read(name)
        if before.version:
            await self.replace(before, None, by=by)
        return before.version > 0


async def document_in(uow: Reading, name: str) -> Document:
    """As :meth:`Documents.read`, within a unit that reads more."""
    found = await uow.rows(_DOCUMENT, name=name)
    return Document(name, **found[0]) if found else Document(name)


async def replaced(uow: Unit, before: Document, content: Any, *, by: str) -> Document:
    """As :meth:`Documents.replace`, within a unit that does more."""
    from sqlalchemy import delete, insert, select, update

    from muster.store.tables import documents, store_now

    is_this = (documents.c.name == before.name) & (documents.c.version == before.version)
    values = {"content": content, "changed_at": store_now(), "changed_by": by, "version": before.version + 1}
    if content is None:
        changed = (await uow.connection.execute(delete(documents).where(is_this))).rowcount
    elif before.version == 0:
        taken = select(documents.c.name).where(documents.c.name == before.name)
        changed = int((await uow.connection.execute(taken)).first() is None)
        if changed:
            await uow.connection.execute(insert(documents).values(name=before.name, **values))
    else:
        changed = (await uow.connection.execute(update(documents).where(is_this).values(**values))).rowcount
    if changed != 1:
        raise Conflict(f"Somebody changed {before.name} meanwhile; nothing was changed")
    return Document(before.name, 0 if content is None else before.version + 1, content, by)
