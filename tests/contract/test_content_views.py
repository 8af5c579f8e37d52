"""Repositories in the store, on both databases: what is shown, what there is of it, and what members have."""

from __future__ import annotations

import asyncio

import pytest

from muster.content.view import Decided, View
from muster.content.views import Told, Views
from muster.kernel.secrets import Secret
from muster.store.engine import opened

pytestmark = pytest.mark.anyio

PATH, OTHER = "/pulp/content/r", "/pulp/content/other"
V1, V2, M1, M2 = "1" * 64, "2" * 64, "a" * 64, "b" * 64


async def test_what_is_written_is_read_again(url: str) -> None:
    async with opened(Secret(url)) as store:
        views = Views(store)
        assert await views.shown(PATH) is None
        assert (await views.picture(60)).rows == {}
        await views.ask({PATH: b"certificate", OTHER: None})
        await views.ask({PATH: None})
        row = (await views.picture(60)).rows[PATH]
        assert (row.view, row.version, row.certificate) == (View(), 1, b"certificate")
        await views.know(PATH, [(V1, 7, 1.5, M1), (V2, -1, 2.5, M2)])
        # Whoever noted one first is believed.
        await views.know(PATH, [(V1, 8, 9.5, M2)])
        await views.tell("p1", {PATH: Told(True, V1, frozenset({V1, V2}), None, "why", carried_since=3.0)})
        await views.tell("p1", {PATH: Told(False, V2, frozenset({V2}), 4.5, carried_since=5.0)})
        picture = await views.picture(60)
        assert picture.manifests == {PATH: {V1: M1, V2: M2}}
        found = picture.versions[PATH][V1]
        assert (found.generation, found.revision, found.timestamp) == (0, 7, 1.5)
        told = picture.told[PATH]["p1"]
        assert (told.reached, told.carried, told.staged, told.unreached_since) == (False, V2, frozenset({V2}), 4.5)
        assert (told.trouble, told.carried_since) == ("", 5.0)


async def test_of_two_that_decide_on_one_reading_one_changes_what_is_shown(url: str) -> None:
    async with opened(Secret(url)) as store:
        views = Views(store)
        await views.ask({PATH: None})
        await views.know(PATH, [(V1, 1, 1.0, M1), (V2, 2, 2.0, M2)])
        row = (await views.picture(60)).rows[PATH]
        to = [Decided(View(0, v, 10.0, None), None, "") for v in (V1, V2)]
        done = await asyncio.gather(*(views.show(row, one) for one in to))
        assert sorted(done) == [False, True]
        first, second = (V1, V2) if done[0] else (V2, V1)
        manifests = {V1: M1, V2: M2}
        found = await views.shown(PATH)
        assert found is not None
        assert (found.digest, found.manifest) == (first, manifests[first])
        row = (await views.picture(60)).rows[PATH]
        assert await views.show(row, Decided(View(1, second, 20.0, 15.0), second, ""))
        picture = await views.picture(60)
        assert picture.rows[PATH].view == View(1, second, 20.0, 15.0)
        assert picture.versions[PATH][second].generation == 1
        assert set(picture.left[PATH]) == {first}
        gone = Decided(View(2, None, 30.0, None), None, "")
        assert await views.show(picture.rows[PATH], gone)
        assert await views.shown(PATH) is None


async def test_what_nobody_needs_is_forgotten(url: str) -> None:
    async with opened(Secret(url)) as store:
        views = Views(store)
        await views.ask({PATH: None, OTHER: None})
        await views.know(PATH, [(V1, 1, 1.0, M1), (V2, 2, 2.0, M2)])
        await views.tell("p1", {PATH: Told(True, V2, frozenset(), None)})
        await views.forget(unasked_s=1000, left_s=1000)
        assert set((await views.picture(60)).versions[PATH]) == {V1, V2}
        await views.forget(unasked_s=1000, left_s=-1)
        # What a Pulp carries stays.
        assert set((await views.picture(60)).versions[PATH]) == {V2}
        await views.forget(unasked_s=-1, left_s=1000)
        assert (await views.picture(60)).rows == {}
        assert await views.has_room()


async def test_what_is_wanted_is_above_all_that_was_wanted_before_whatever_it_says_of_itself(url: str) -> None:
    async with opened(Secret(url)) as store:
        views = Views(store)
        await views.want(PATH, V1, M1, since=1000.0)
        await views.want(PATH, V2, M2, since=1000.5)
        versions = (await views.picture(60)).versions[PATH]
        assert versions[V2].order > versions[V1].order
        # Going back is one more step forward; who repeats an older step changes nothing.
        await views.want(PATH, V1, M1, since=1001.0)
        await views.want(PATH, V2, M2, since=1000.5)
        picture = await views.picture(60)
        assert picture.versions[PATH][V1].order > picture.versions[PATH][V2].order
        assert picture.manifests[PATH] == {V1: M1, V2: M2}
        assert picture.rows[PATH].view == View()
