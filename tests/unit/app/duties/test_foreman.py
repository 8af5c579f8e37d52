"""Members say Foreman's version: what Foreman says, else what any of them heard last."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.app.duties import foreman as duties
from muster.app.duties.foreman import ForemanFollowed
from muster.cluster.file import ClusterFile
from muster.kernel.clock import FakeClock
from muster.kernel.secrets import Secret
from muster.pki.authority import ca_paths
from muster.store.engine import Store, opened
from tests.servers import foreman as servers
from tests.servers.foreman import TOKEN, Foreman

pytestmark = pytest.mark.anyio


@dataclass
class World:
    """Members in one store, and their Foreman."""

    foreman: Foreman
    store: Store
    clock: FakeClock = field(default_factory=FakeClock)
    told: dict[str, str] = field(default_factory=dict)

    def member(self, name: str, *, store: Store | None = None, **section: Any) -> ForemanFollowed:
        cluster = ClusterFile.model_validate(
            {
                "schema": 1,
                "cluster": "t",
                "address": "proxy.example.com",
                "store": {"url": "sqlite:///x.db"},
                "members": [{"id": 1, "name": "proxy01.example.com", "address": "192.0.2.11"}],
                "foreman": section or self.foreman.settings(),
            }
        )
        ca = ca_paths(self.foreman.ca.directory)[0]
        tell = lambda version: self.told.update({name: version})  # noqa: E731 - one line of wiring
        return ForemanFollowed(cluster, name, ca, store or self.store, tell, clock=self.clock)


@pytest.fixture
def foreman(tmp_path: Path) -> Iterator[Foreman]:
    with servers.running(tmp_path / "foreman") as one:
        yield one


@pytest.fixture
async def world(foreman: Foreman, tmp_path: Path) -> AsyncIterator[World]:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        yield World(foreman, store)


def notes(duty: ForemanFollowed) -> str:
    return "\n".join(duty.found().notes)


async def test_foreman_is_asked_at_once_and_then_every_five_minutes(world: World) -> None:
    one = world.member("p1")
    await one.beat()
    assert world.told == {"p1": "3.19.0"}
    world.foreman.version = "5.0.0"
    for _ in range(59):
        world.clock.ticks += 5
        await one.beat()
    assert (world.told, len(world.foreman.asked)) == ({"p1": "3.19.0"}, 1)
    world.clock.ticks += 5
    await one.beat()
    assert (world.told, len(world.foreman.asked)) == ({"p1": "5.0.0"}, 2)
    assert notes(one) == ""


async def test_what_one_member_heard_all_say_at_their_next_beats(world: World) -> None:
    one, two = world.member("p1"), world.member("p2")
    for member in (one, two):
        await member.beat()
    world.foreman.version = "5.0.0"
    # One that starts asks at once; the others have not to ask for it.
    await world.member("p3").beat()
    for member in (one, two):
        await member.beat()
    assert world.told == dict.fromkeys(("p1", "p2", "p3"), "5.0.0")
    assert len(world.foreman.asked) == 3


async def test_who_starts_while_foreman_is_away_says_what_was_heard_from_the_first_answer_on(world: World) -> None:
    await world.member("p1").beat()
    world.foreman.stop()
    two = world.member("p2")
    await two.begin()
    assert world.told["p2"] == "3.19.0"
    await two.beat()
    assert world.told["p2"] == "3.19.0"
    assert notes(two).startswith(
        f"Foreman's version was not heard, and this member says 3.19.0, as p1 heard: GET {world.foreman.url}/api/v2/status"
    )


async def test_after_a_failure_foreman_is_asked_sooner_and_never_more_seldom_than_usually(world: World) -> None:
    world.foreman.raw = (503, "later")
    one, begun = world.member("p1"), world.clock.ticks
    at = []
    while world.clock.ticks - begun < 2000:
        before = len(world.foreman.asked)
        await one.beat()
        if len(world.foreman.asked) > before:
            at.append(world.clock.ticks - begun)
        world.clock.ticks += 5
    assert at == [0, 5, 15, 35, 75, 155, 315, 615, 915, 1215, 1515, 1815]
    assert world.told["p1"] == "5.0.0"
    world.foreman.raw = None
    world.clock.ticks += 300
    await one.beat()
    assert (world.told["p1"], notes(one)) == ("3.19.0", "")


async def test_a_refused_token_is_shown_again_after_five_minutes_or_when_there_is_another(world: World) -> None:
    world.foreman.token = "another-token-of-the-same-user"
    one = world.member("p1")
    for _ in range(30):
        await one.beat()
        world.clock.ticks += 5
    assert len(world.foreman.asked) == 1
    assert "answered 401" in notes(one)
    assert TOKEN not in notes(one)
    world.foreman.token_file.write_text(world.foreman.token)
    await one.beat()
    assert (world.told["p1"], notes(one)) == ("3.19.0", "")


@pytest.mark.parametrize("raw", ['{"version": "latest"}', "[]", "<html>", '{"version": "5.0.0\\n"}'])
async def test_what_is_no_version_is_said_and_changes_nothing(world: World, raw: str) -> None:
    one = world.member("p1")
    await one.beat()
    world.foreman.raw = (200, raw)
    world.clock.ticks += 300
    await one.beat()
    assert world.told["p1"] == "3.19.0"
    assert "/api/v2/status" in notes(one)
    assert "and this member says 3.19.0" in notes(one)


async def test_while_the_store_is_away_a_member_says_what_it_hears_and_gives_it_later(
    world: World, tmp_path: Path
) -> None:
    missing = tmp_path / "missing"
    async with opened(Secret(f"sqlite:///{missing}/muster.db")) as dead:
        one = world.member("p1", store=dead)
        await one.begin()
        await one.beat()
        assert (world.told["p1"], notes(one)) == ("3.19.0", "")
        missing.mkdir()
        world.foreman.stop()
        world.clock.ticks += 5
        await one.beat()
        two = world.member("p2", store=dead)
        await two.begin()
        assert world.told["p2"] == "3.19.0"


async def test_a_store_that_hangs_keeps_nobody_from_starting_and_is_not_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.member("p1").beat()
    answers = asyncio.Event()
    ask = world.store.ask

    async def late(*arguments: Any, **values: Any) -> list[dict[str, Any]]:
        await answers.wait()
        return await ask(*arguments, **values)

    monkeypatch.setattr(duties, "_BEGIN_S", 0.01)
    monkeypatch.setattr(world.store, "ask", late)
    two = world.member("p2")
    await two.begin()
    assert "p2" not in world.told
    answers.set()
    async with asyncio.timeout(10):
        while "p2" not in world.told:
            await asyncio.sleep(0.01)
    assert world.told["p2"] == "3.19.0"
    await two.end()


async def test_a_late_answer_of_before_an_upgrade_is_not_said_after_it(world: World, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    async with contextlib.AsyncExitStack() as stack:
        cut_off = await stack.enter_async_context(opened(Secret(f"sqlite:///{missing}/muster.db")))
        one = world.member("p1", store=cut_off)
        await one.beat()
        missing.mkdir()
        whole = await stack.enter_async_context(opened(Secret(f"sqlite:///{missing}/muster.db")))
        world.clock.ticks += 60
        world.foreman.version = "5.0.0"
        await world.member("p2", store=whole).beat()
        await one.beat()
    assert world.told == {"p1": "5.0.0", "p2": "5.0.0"}


async def test_where_nobody_may_ask_what_was_heard_counts_and_what_to_set_is_said(world: World) -> None:
    one = world.member("p1", url=world.foreman.url)
    await one.begin()
    await one.beat()
    assert world.told["p1"] == "5.0.0"
    assert notes(one) == (
        "Foreman's version is not known, and this member says 5.0.0: write foreman.version, or foreman.url, api_user and "
        "api_token_file, so that Foreman can be asked"
    )
    await world.member("p2").beat()
    await one.beat()
    assert world.told["p1"] == "3.19.0"
    assert notes(one).startswith(
        "Foreman's version is not asked any more, and this member says 3.19.0, as was last heard"
    )


async def test_where_no_foreman_is_named_nothing_is_said_of_it(world: World) -> None:
    one = world.member("p1", trusted_hosts=[])
    await one.beat()
    assert (world.told["p1"], notes(one)) == ("5.0.0", "")
