from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.kernel.errors import Misconfigured
from muster.kernel.secrets import Secret
from muster.store import copies
from muster.store.engine import opened
from muster.store.tables import metadata


def wish(number: int) -> dict[str, Any]:
    return {"member": f"m{number:05d}", "wanted": "drain", "reason": "", "by": "anna", "at": 0.1 + number, "version": 1}


@pytest.mark.parametrize("count", [0, 1, copies.PAGE, copies.PAGE + 1])
async def test_pages_have_every_row_once_in_the_order_of_the_key(tmp_path: Path, count: int) -> None:
    rows = [wish(n) for n in range(count)]
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await store.prepare()
        async with store.whole(writing=True, limit_s=60) as uow:
            await copies.write(uow, "wishes", list(reversed(rows)))
        async with store.whole(writing=False, limit_s=60) as uow:
            found = (await copies.stored(uow))["wishes"]
            pages = [page async for page in copies.rows(uow, found)]
    assert found.rows == count
    assert all(0 < len(page) <= copies.PAGE for page in pages)
    assert [r["member"] for page in pages for r in page] == [r["member"] for r in rows]


async def test_a_store_without_a_schema_has_no_tables(tmp_path: Path) -> None:
    url = Secret(f"sqlite:///{tmp_path}/store.db")
    async with opened(url, migrate=False) as store, store.whole(writing=False, limit_s=60) as uow:
        assert await copies.stored(uow) == {}


def test_a_row_is_one_line_whatever_is_in_it() -> None:
    row = {"name": 'a\n"ä"\u2028', "version": 2**62, "content": {"a": [0.1, None]}, "changed_at": 1767225600.123457}
    line = copies.line(row)
    assert (line.count(b"\n"), line[-1:]) == (1, b"\n")
    assert copies.read(line * 2, "documents") == [row, row]
    assert json.loads(line) == row


@pytest.mark.parametrize("text", [b"[]", b"{}", b"1", b'{"evil": 1}', b"{", b'{"name": "a"}\n{"version": 1}', b"\xff"])
def test_what_is_no_row_is_refused(text: bytes) -> None:
    with pytest.raises(Misconfigured, match="A row of documents"):
        copies.read(text, "documents")
    with pytest.raises(Misconfigured, match="There is no table"):
        copies.read(text, "users")


def test_every_table_has_a_key_to_go_on_behind() -> None:
    assert all(t.primary_key.columns for t in metadata.tables.values())
