from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Self

import pytest

from muster.app.offers import modelled
from muster.edge.traffic import Traffic
from muster.kernel.errors import Misconfigured, Unavailable
from muster.observed.survey import Answer
from muster.web import watch as watched
from muster.web.watch import Sources, Watch
from tests.unit.observed.test_checks import MEMBERS, cluster

CLUSTER = cluster()
BALANCING = modelled(CLUSTER)


class Survey:
    """Counts how often it is asked, and answers as it is told to."""

    def __init__(self) -> None:
        self.rounds = 0
        self.opened = 0
        self.asked: list[tuple[str, str]] = []
        self.dead: set[str] = set()
        self.fails: Exception | None = None
        self.is_closed = True

    async def __aenter__(self) -> Self:
        self.opened += 1
        self.is_closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        self.is_closed = True

    async def round(self) -> list[Answer]:
        self.rounds += 1
        if self.fails is not None:
            raise self.fails
        if self.is_closed:
            raise RuntimeError("asked after it was closed")
        pairs = [(s.name, v.name) for s in BALANCING.services for v in s.servers]
        return [Answer(s, m, "unreachable", "refused") if m in self.dead else Answer(s, m, "ready") for s, m in pairs]

    async def told(self, member: str, path: str) -> dict[str, Any]:
        self.asked.append((member, path))
        if member == MEMBERS[1]:
            raise Unavailable("it is older than this")
        return Traffic(member=member).told()


class Records:
    """Tells a log of one more record each time."""

    def __init__(self) -> None:
        self.since: list[float] = []

    async def told(self, since: float) -> dict[str, Any]:
        self.since.append(since)
        numbers = [n for n in range(len(self.since)) if 100.0 + n >= since]
        logs = [{"timestamp": 100.0 + n, "level": "INFO", "message": str(n)} for n in numbers]
        return {"info": {"failed_modules": {}}, "logs": logs}


@contextlib.asynccontextmanager
async def away() -> AsyncIterator[Any]:
    raise Unavailable("The store (sqlite) did not answer")
    yield


@pytest.fixture
async def seen(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Watch, Survey, Records]]:
    monkeypatch.setattr(watched, "_INTERVAL_S", 0.05)
    survey, records = Survey(), Records()
    sources = Sources(
        by="proxy01.test", cluster=lambda: CLUSTER, balancing=lambda: BALANCING, survey=lambda: survey,  # type: ignore[arg-type,return-value]
        store=away, pki=Path("/nowhere"), records=records, own=(MEMBERS[0], Traffic()),
    )  # fmt: skip
    watch = Watch(sources)
    # As long as three members are given: a tenth of their number.
    monkeypatch.setattr(watched, "_MEMBERS_PER_S", 100)
    yield watch, survey, records
    await watch.close()


async def test_however_many_look_at_once_members_are_asked_once(seen: tuple[Watch, Survey, Records]) -> None:
    watch, survey, _ = seen
    pages = await asyncio.gather(*(watch.page() for _ in range(20)))
    assert all(p is pages[0] for p in pages)
    assert survey.rounds == 1


async def test_rounds_go_on_while_somebody_follows_and_end_with_the_last(seen: tuple[Watch, Survey, Records]) -> None:
    watch, survey, _ = seen
    with watch.followed():
        await watch.page()
        for _ in range(3):
            assert await watch.turned(5.0) is not None
    assert survey.opened == 1
    async with asyncio.timeout(5.0):
        while watch._task is not None and not watch._task.done():
            await asyncio.sleep(0.02)
    rounds = survey.rounds
    await asyncio.sleep(0.2)
    assert survey.rounds == rounds
    assert await watch.page() is not None
    assert survey.rounds == rounds + 1


async def test_with_the_store_away_the_page_says_so_and_shows_what_members_answer(
    seen: tuple[Watch, Survey, Records],
) -> None:
    watch, survey, _ = seen
    survey.dead = {MEMBERS[2]}
    page = await watch.page()
    assert page.status["store"] == {"ok": False, "trouble": "The store (sqlite) did not answer"}
    assert [m["stands"] for m in page.status["members"]] == ["ready", "ready", "unreachable"]
    assert (page.parity, page.doctor, page.puppet_ca) == (None, None, None)


async def test_each_member_is_asked_for_its_rings_but_this_one_and_those_that_do_not_answer(
    seen: tuple[Watch, Survey, Records],
) -> None:
    watch, survey, _ = seen
    survey.dead = {MEMBERS[2]}
    page = await watch.page()
    assert survey.asked == [(MEMBERS[1], "/cluster/rings.json?since=0&step_s=60")]
    assert page.traffic["unasked"] == {MEMBERS[1]: "it is older than this", MEMBERS[2]: "refused"}


async def test_of_the_log_only_what_is_new_is_read_again(seen: tuple[Watch, Survey, Records]) -> None:
    watch, _, records = seen
    with watch.followed():
        await watch.page()
        page = await watch.turned(5.0)
        assert page is not None
    assert records.since[:2] == [0.0, 85.0]
    assert [r["message"] for r in page.logs["logs"]] == ["0", "1"]


@pytest.mark.parametrize("error", [Misconfigured("ca.pem is gone"), RuntimeError("a defect")])
async def test_what_keeps_it_from_looking_is_said_and_the_next_round_may_go_well(
    seen: tuple[Watch, Survey, Records], error: Exception
) -> None:
    watch, survey, _ = seen
    survey.fails = error
    with pytest.raises(Unavailable, match=r"ca\.pem is gone|A defect of Muster"):
        await watch.page()
    survey.fails = None
    async with asyncio.timeout(5.0):
        while True:
            with contextlib.suppress(Unavailable):
                assert (await watch.page()).by == "proxy01.test"
                return
            await asyncio.sleep(0.02)


async def test_connections_that_could_not_be_made_anew_are_made_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "_INTERVAL_S", 0.01)
    monkeypatch.setattr(watched, "_MEMBERS_PER_S", 1000)
    of_now, gone, survey = [modelled(CLUSTER)], [False], Survey()

    def opened() -> Survey:
        if gone[0]:
            raise Misconfigured("ca.pem is gone")
        return survey

    watch = Watch(
        Sources("x", lambda: CLUSTER, lambda: of_now[0], opened, away, Path("/nowhere"), Records())  # type: ignore[arg-type]
    )
    try:
        with watch.followed():
            await watch.page()
            # A member came, while certificates were exchanged.
            gone[0], of_now[0] = True, modelled(CLUSTER)
            async with asyncio.timeout(10):
                with contextlib.suppress(Unavailable):
                    # The round that was under way.
                    await watch.turned(5.0)
                for _ in range(3):
                    with pytest.raises(Unavailable, match=r"ca\.pem is gone"):
                        await watch.turned(5.0)
                gone[0] = False
                with contextlib.suppress(Unavailable):
                    await watch.turned(5.0)
                assert await watch.turned(5.0) is not None
        assert survey.opened == 2
    finally:
        await watch.close()


def test_rings_of_another_make_are_named_and_break_no_page() -> None:
    row = {"calls": [1], "errors": [0], "buckets": [[1] + [0] * 9], "states": "r"}
    good = {**Traffic(member="m").told(), "from": 600, "services": {"a": row}}
    assert watched._checked(good)["services"]["a"] == row
    for bad in (
        {**good, "from": float("inf")}, {**good, "from": 601}, {**good, "from": -60}, {**good, "from": 10**400},
        {**good, "bounds_ms": [1]}, {**good, "services": {"a": {**row, "buckets": [[1] * 12]}}},
        {**good, "services": {"a": {**row, "errors": []}}}, {**good, "services": {"a": {**row, "buckets": [[]] * 62}}},
        {**good, "services": {"a": {**row, "calls": [-1]}}}, {**good, "services": {"a": {**row, "buckets": [[-1] * 10]}}},
        {**good, "services": {str(n): row for n in range(1000)}}, {**good, "services": {"a": {**row, "calls": [10**400]}}},
    ):  # fmt: skip
        with pytest.raises(Unavailable):
            watched._checked(bad)


def test_what_answers_with_no_rings_is_named() -> None:
    good = Traffic(member="m").told()
    assert watched._checked(good)["services"] == {}
    long = {"calls": [0] * 99, "errors": [], "buckets": [], "states": ""}
    for bad in ({}, {**good, "step_s": 10}, {**good, "services": {"a": {}}}, {**good, "services": {"a": long}}):
        with pytest.raises(Unavailable):
            watched._checked(bad)


async def test_many_members_are_asked_less_often() -> None:
    many = cluster(members=[{"id": i, "name": f"p{i}.test", "address": f"192.0.2.{i}"} for i in range(1, 51)])
    sources = Sources("x", lambda: many, lambda: BALANCING, Survey, away, Path("/nowhere"), Records())  # type: ignore[arg-type]
    assert Watch(sources).interval_s == 5.0
