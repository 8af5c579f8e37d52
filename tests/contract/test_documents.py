"""Documents on both stores: compare-and-set, whoever writes first."""

from __future__ import annotations

import asyncio

import pytest

from muster.kernel.errors import Conflict
from muster.store.documents import Documents
from muster.store.engine import Store

pytestmark = pytest.mark.anyio


async def test_a_document_is_made_changed_and_removed(store: Store) -> None:
    kept = Documents(store)
    none = await kept.read("plan")
    assert (none.version, none.content) == (0, None)
    first = await kept.replace(none, {"a": [1]}, by="anna")
    assert await kept.read("plan") == first
    second = await kept.replace(first, {"a": [2]}, by="bert")
    assert (await kept.read("plan")).content == {"a": [2]}
    await kept.replace(second, None, by="bert")
    assert (await kept.read("plan")).version == 0


async def test_of_two_changes_to_one_version_one_is_refused(store: Store) -> None:
    kept = Documents(store)
    first = await kept.replace(await kept.read("plan"), 1, by="anna")
    results = await asyncio.gather(*(kept.replace(first, n, by="bert") for n in (2, 3)), return_exceptions=True)
    assert sum(isinstance(r, Conflict) for r in results) == 1
    assert (await kept.read("plan")).version == 2


@pytest.mark.parametrize("content", [{"new": True}, None])
async def test_a_change_to_what_is_gone_or_came_meanwhile_is_refused(store: Store, content: object) -> None:
    kept = Documents(store)
    none = await kept.read("plan")
    first = await kept.replace(none, 1, by="anna")
    if content is not None:
        with pytest.raises(Conflict):
            await kept.replace(none, content, by="bert")
    await kept.replace(first, None, by="anna")
    with pytest.raises(Conflict):
        await kept.replace(first, content, by="bert")
