"""Repositories in the store: what each row holds, and what becomes of it when several change it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.cluster.roster import Report, Roster
from muster.content import views as module
from muster.content.view import Decided, View
from muster.content.views import Picture, Shown, Told, Views, changed, picture_in
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened
from muster.store.glance import glanced
from muster.store.schema import HEAD

pytestmark = pytest.mark.anyio

PATH, OTHER = "/pulp/content/r", "/pulp/content/other"
A, B = "a" * 64, "b" * 64
ONE, TWO = (A, 1, 10.5, "1" * 64), (B, 2, 20.5, "2" * 64)


def report(name: str, number: int = 1, state: str = "ready") -> Report:
    return Report(name, number, "1", HEAD, "h", 1, "ready", "", {}, {"https": {"state": state}}, {})


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as made:
        yield made


@pytest.fixture
async def views(store: Store) -> Views:
    made = Views(store)
    await made.ask({PATH: None})
    await made.know(PATH, [ONE, TWO])
    return made


async def show(
    views: Views, digest: str | None, *, generation: int = 0, raised: str | None = None, since: float = 5.0
) -> bool:
    row = (await views.picture(60)).rows[PATH]
    return await views.show(row, Decided(View(generation, digest, 5.0), raised, "why"))


async def test_nothing_is_shown_of_what_is_not_known(views: Views) -> None:
    assert await views.shown(PATH) is None
    assert await views.shown(OTHER) is None


async def test_what_is_shown_is_read_with_its_manifest(views: Views) -> None:
    assert await show(views, A)
    assert await views.shown(PATH) == Shown(A, "1" * 64, since=5.0)


def test_members_tell_each_other_what_is_shown_and_since_when() -> None:
    told = Shown.read(Shown(A, B, since=1_700_000_000.123456, is_new=True).written())
    # For how long that is new is up to who reads it.
    assert told == Shown(A, B, since=1_700_000_000.123456)


@pytest.mark.parametrize("more", ["", " 5", " -5.000000", " 5.000000\n", " 1e9.000000", " 5.000000 True"])
def test_what_is_no_word_of_a_member_is_not_believed(more: str) -> None:
    with pytest.raises(Unavailable, match="no version"):
        Shown.read(f"{A} {B}{more}".encode())


async def test_of_two_who_change_a_row_the_second_changes_nothing(views: Views) -> None:
    row = (await views.picture(60)).rows[PATH]
    assert await views.show(row, Decided(View(0, A, 5.0), None, "why"))
    assert not await views.show(row, Decided(View(0, B, 6.0), None, "why"))
    assert (await views.picture(60)).rows[PATH].view == View(0, A, 5.0)


async def test_what_is_left_has_a_time_until_it_is_shown_again(views: Views) -> None:
    await show(views, A)
    assert (await views.picture(60)).left == {}
    await show(views, B)
    of = await views.picture(60)
    assert of.left[PATH].keys() == {A}
    assert of.now - 60 < of.left[PATH][A] <= of.now
    await show(views, A, generation=1, raised=A)
    of = await views.picture(60)
    assert of.left[PATH].keys() == {B}
    assert (of.rows[PATH].view.generation, of.versions[PATH][A].generation, of.versions[PATH][B].generation) == (
        1,
        1,
        0,
    )


async def test_that_there_is_no_such_repository_is_shown(views: Views) -> None:
    await show(views, A)
    await show(views, None, generation=1)
    assert await views.shown(PATH) is None
    assert (await views.picture(60)).rows[PATH].view == View(1, None, 5.0)


async def test_who_noted_a_version_first_is_believed(views: Views) -> None:
    await views.know(PATH, [(A, 7, 7.0, "7" * 64)])
    of = await views.picture(60)
    assert of.manifests[PATH][A] == "1" * 64
    assert of.versions[PATH][A].order == (0, 1, 10.5, A)


async def test_no_version_is_noted_of_what_nobody_asked_for(views: Views) -> None:
    await views.know(OTHER, [ONE])
    await views.ask({OTHER: None})
    assert (await views.picture(60)).versions.get(OTHER) is None


async def test_a_version_is_of_the_generation_it_was_noted_in(views: Views) -> None:
    await show(views, A)
    await show(views, None, generation=3)
    await views.know(PATH, [("c" * 64, 1, 1.0, "3" * 64)])
    assert (await views.picture(60)).versions[PATH]["c" * 64].generation == 3


async def test_a_client_without_a_certificate_takes_none_away(views: Views) -> None:
    await views.ask({PATH: b"certificate"})
    await views.ask({PATH: None})
    assert (await views.picture(60)).rows[PATH].certificate == b"certificate"


async def test_what_nobody_asked_for_lately_is_not_in_the_picture(views: Views) -> None:
    assert (await views.picture(-1)).rows == {}
    assert (await views.picture(60)).rows.keys() == {PATH}


async def test_what_members_say_is_read_as_they_said_it_and_reasons_are_cut(views: Views) -> None:
    said = Told(False, A, frozenset([A, B]), 12.5, "x" * 900)
    await views.tell("p1", {PATH: said})
    found = (await views.picture(60)).told[PATH]["p1"]
    assert (found.reached, found.carried, found.staged, found.unreached_since) == (False, A, frozenset([A, B]), 12.5)
    assert found.trouble == "x" * 500
    assert found.told_at > 1e9
    await views.tell("p1", {PATH: Told(True, "", frozenset(), None)})
    again = (await views.picture(60)).told[PATH]["p1"]
    assert (again.reached, again.carried, again.staged, again.unreached_since, again.trouble) == (
        True, "", frozenset(), None, "",
    )  # fmt: skip


async def test_only_what_changed_is_said_again() -> None:
    before = Told(True, A, frozenset([A]), None, "", 1.0)
    later = Told(True, A, frozenset([A]), None, "", 2.0)
    assert changed({PATH: before}, {PATH: later, OTHER: later}) == {OTHER: later}
    other = Told(True, A, frozenset([A]), None, "full", 2.0)
    assert changed({PATH: before}, {PATH: other}) == {PATH: other}


async def test_there_is_room_for_so_many(views: Views, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await views.has_room()
    monkeypatch.setattr(module, "MOST", 1)
    assert not await views.has_room()


async def test_what_was_left_long_ago_is_forgotten_but_not_what_somebody_carries_or_sees(views: Views) -> None:
    await views.know(PATH, [("c" * 64, 3, 3.0, "3" * 64)])
    await show(views, A)
    await show(views, B)
    await views.tell("p1", {PATH: Told(True, "c" * 64, frozenset(), None)})
    await views.forget(unasked_s=60, left_s=60)
    assert (await views.picture(60)).versions[PATH].keys() == {A, B, "c" * 64}
    await views.forget(unasked_s=60, left_s=-1)
    assert (await views.picture(60)).versions[PATH].keys() == {B, "c" * 64}


async def test_a_repository_nobody_asks_for_is_forgotten_with_all_that_is_known_of_it(
    views: Views, store: Store
) -> None:
    await views.tell("p1", {PATH: Told(True, A, frozenset(), None)})
    await views.forget(unasked_s=-1, left_s=3600)
    await views.ask({PATH: None})
    of = await views.picture(60)
    assert (of.versions, of.told) == ({}, {})


async def test_a_glance_sees_what_the_store_holds(views: Views, store: Store, tmp_path: Path) -> None:
    await show(views, A)
    await show(views, B)
    await views.tell("p1", {PATH: Told(False, A, frozenset([A]), 7.0, "why")})
    await Roster(store).beat(report("p1"), first=True)

    def still(of: Picture) -> tuple[object, ...]:
        return of.rows, of.versions, of.manifests, of.left, of.told, of.ready(["https"])

    async with glanced(Secret(f"sqlite:///{tmp_path}/muster.db")).read() as uow:
        glance = await picture_in(uow, 60)
    assert still(glance) == still(await views.picture(60))
    assert glance.ready(["https"]) == {"p1"}


async def test_a_member_that_takes_no_clients_is_not_ready(views: Views, store: Store) -> None:
    await Roster(store).beat(report("p1", 1), first=True)
    await Roster(store).beat(report("p2", 2, "unready"), first=True)
    of = await views.picture(60)
    assert (of.ready(["https"]), of.ready(["http"])) == (frozenset({"p1"}), frozenset())


async def test_of_who_says_nothing_it_is_known_since_when(views: Views, store: Store) -> None:
    await Roster(store).beat(report("p1", 1), first=True)
    await Roster(store).beat(report("p2", 2), first=True)
    await views.tell("p1", {PATH: Told(True, A, frozenset([A]), None)})
    of = await views.picture(60)
    first, second, third = of.reports(PATH, ["p1", "p2", "p3"], of.ready(["https"]))
    assert (first.carried, first.is_ready, first.unreached_since) == (A, True, None)
    # It hangs, and is not waited for; while it has not had the time to speak it is.
    assert (second.carried, second.is_ready) == (None, False)
    assert second.unreached_since == of.now - of.members["p2"].age_s
    assert (third.is_ready, third.unreached_since) == (False, 0.0)
    assert of.reports(PATH, ["p2"], of.ready(["https"]), is_new=True)[0].is_ready
    own = of.reports(PATH, ["p1"], frozenset(), own=("p1", Told(True, B, frozenset([B]), None)))
    assert (own[0].carried, own[0].staged) == (B, frozenset({B}))
