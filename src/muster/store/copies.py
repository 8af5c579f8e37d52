"""Whole tables as lines of JSON and back, the same of SQLite and of PostgreSQL: what a backup has of a store.

A row is one line: an object by column, of which those are there that the schema's revision has. Numbers are exact (a double
is written as the shortest decimal that is read as the same double), and JSON stands in it as what it is.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    Column,
    Connection,
    Double,
    Integer,
    Table,
    Text,
    func,
    insert,
    inspect,
    literal,
    select,
    text,
    tuple_,
)
from sqlalchemy.types import TypeEngine

from muster.kernel.errors import Misconfigured
from muster.kernel.names import shown
from muster.store.tables import metadata

if TYPE_CHECKING:
    from muster.store.engine import Unit

PAGE = 1000
PART_BYTES = 4 << 20

Row = dict[str, Any]

_KINDS: tuple[tuple[type[TypeEngine[Any]], Any], ...] = ((Text, str), (Integer, int), (Double, (int, float)))

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True)
class Stored:
    """A table as it stands in a store.

    Attributes:
        columns: those that this Muster knows and the store's revision has.
        rows: how many there are.
    """

    table: Table
    columns: tuple[Column[Any], ...]
    rows: int


async def stored(uow: Unit) -> dict[str, Stored]:
    """Return the tables of ours that the store has, by name."""
    there = await uow.connection.run_sync(_columns)
    found = {}
    for table in metadata.sorted_tables:
        if table.name in there:
            rows = int(await uow.connection.scalar(select(func.count()).select_from(table)))
            found[table.name] = Stored(table, tuple(c for c in table.columns if c.name in there[table.name]), rows)
    return found


def _columns(connection: Connection) -> dict[str, set[str]]:
    look = inspect(connection)
    ours = set(look.get_table_names()) & set(metadata.tables)
    return {name: {c["name"] for c in look.get_columns(name)} for name in ours}


async def rows(uow: Unit, of: Stored) -> AsyncIterator[list[Row]]:
    """Yield a table's rows in the order of its key, some at a time: none of any size is held whole."""
    key = list(of.table.primary_key.columns)
    page = select(*of.columns).order_by(*key).limit(PAGE)
    last: list[Any] | None = None
    while True:
        some = page if last is None else page.where(tuple_(*key) > tuple_(*(literal(v) for v in last)))
        found = [dict(r) for r in (await uow.connection.execute(some)).mappings()]
        if found:
            yield found
        if len(found) < PAGE:
            return
        last = [found[-1][c.name] for c in key]


def line(row: Mapping[str, Any]) -> bytes:
    """Return a row as one line."""
    return _encode(row).encode() + b"\n"


def read(lines: bytes, name: str) -> list[Row]:
    """Return the rows of some lines of a table.

    Raises:
        Misconfigured: they are none of a table that this Muster knows.
    """
    table = metadata.tables.get(name)
    if table is None:
        raise Misconfigured(f"There is no table {shown(name)} in this Muster")
    known = {c.name for c in table.columns}
    found: list[Row] = []
    try:
        found = [json.loads(one) for one in lines.split(b"\n") if one]
    except (ValueError, RecursionError) as e:
        raise Misconfigured(f"A row of {name} cannot be read: {e}") from e
    kinds = {c.name: kind for c in table.columns for of, kind in _KINDS if isinstance(c.type, of)}
    for row in found:
        if not isinstance(row, dict) or not row or not row.keys() <= known or row.keys() != found[0].keys():
            raise Misconfigured(f"A row of {name} is none of that table: {shown(row)}")
        for column, kind in kinds.items():
            value = row.get(column)
            if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
                raise Misconfigured(
                    f"A row of {name} has a {type(value).__name__} as {column}, which is none of that table"
                )
    return found


async def write(uow: Unit, name: str, some: Sequence[Row]) -> None:
    """Write rows into a table."""
    if some:
        await uow.connection.execute(insert(metadata.tables[name]), list(some))


async def number_on(uow: Unit) -> None:
    """Have tables that number their rows go on behind the highest number; SQLite does so by itself."""
    if uow.dialect != "postgresql":
        return
    for table in metadata.sorted_tables:
        column = table.autoincrement_column
        if column is None:
            continue
        statement = (
            f'SELECT setval(s, (SELECT max("{column.name}") FROM "{table.name}"))'  # noqa: S608 - our own names
            f" FROM pg_get_serial_sequence('{table.name}', '{column.name}') AS s"
            f' WHERE s IS NOT NULL AND EXISTS (SELECT 1 FROM "{table.name}")'
        )
        if await uow.connection.run_sync(lambda c, t=table: inspect(c).has_table(t.name)):  # type: ignore[misc]
            await uow.connection.execute(text(statement))
