"""Keepers follow what a Pulp serves, and nothing but keepers is ever changed there."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from muster.content import backend
from muster.content.backend import Patience
from muster.content.pulp import Pulp
from muster.content.retention import keepers
from muster.content.retention.keepers import Keepers, asked_within, distributed
from muster.content.views import Views
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.servers.pulp_api_stand_in import PulpApi

pytestmark = pytest.mark.anyio

AT = "/pulp/content/org/repo"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every beat is a whole look, also after one that failed."""
    for name in ("_LOOK_EVERY_S", "_AGAIN_S", "_SELDOM_S"):
        monkeypatch.setattr(keepers, name, 0.0)


@dataclass
class World:
    """A Pulp with one repository, and what clients ask for."""

    api: PulpApi
    keepers: Keepers
    carried: dict[str, str]
    asked: list[str]
    repository: str
    is_store_away: bool = False
    _serial: int = 0
    published: list[str] = field(default_factory=list)

    async def serve(self) -> str:
        """Publish once more, and look; return the publication."""
        self._serial += 1
        made = self.api.publish(self.repository, self._serial)
        self.carried[AT] = f"digest {self._serial}"
        await self.keepers.beat()
        return made

    def ring(self) -> list[str | None]:
        """Return the publication of each keeper there is, by number."""
        found = [self.api.at(f"org/muster-keep/{n}/repo") for n in range(8)]
        return [one["publication"] for one in found if one is not None]


@contextlib.asynccontextmanager
async def world(count: int = 3, **distribution: Any) -> AsyncIterator[World]:
    api = PulpApi()
    repository = api.add("repositories", retain_repo_versions=1)
    api.distribute("org/repo", **{"repository": repository, **distribution})
    carried: dict[str, str] = {}
    asked = [AT]

    async def asks() -> Collection[str]:
        if it.is_store_away:
            raise Unavailable("the store does not answer")
        return asked

    with api.running():
        async with backend.opened("Pulp's API", api.url, Patience(2.0, 5.0, 5.0)) as behind:
            own = Keepers(Pulp(behind), lambda: carried, asks, cluster="site", count=count)
            it = World(api, own, carried, asked, repository)
            yield it


async def test_each_publication_is_kept_until_the_ring_has_come_round() -> None:
    async with world() as it:
        served = [await it.serve() for _ in range(3)]
        assert it.ring() == served
        served.append(await it.serve())
        assert it.ring() == [served[3], *served[1:3]]
        assert it.keepers.trouble == ""


async def test_what_has_not_changed_is_not_turned_again() -> None:
    async with world() as it:
        await it.serve()
        changes = it.api.changes()
        await it.keepers.beat()
        assert it.api.changes() == changes


async def test_a_member_that_starts_anew_goes_on() -> None:
    async with world() as it:
        served = [await it.serve() for _ in range(4)]
        before = it.ring()
        anew = Keepers(it.keepers._pulp, lambda: it.carried, it.keepers._asked, cluster="site", count=3)
        await anew.beat()
        assert it.ring() == before
        it.keepers = anew
        served.append(await it.serve())
        assert it.ring() == [served[3], served[4], served[2]]


async def test_a_distribution_of_one_publication_keeps_that() -> None:
    async with world() as it:
        publication = it.api.publish(it.repository, 7)
        source = it.api.at("org/repo")
        assert source is not None
        source |= {"publication": publication, "repository": None}
        it.carried[AT] = "seventh"
        await it.keepers.beat()
        assert it.ring() == [publication]


async def test_what_distributes_checkpoints_or_nothing_has_no_keepers() -> None:
    for given in ({"checkpoint": True}, {"repository": None}):
        async with world(**given) as it:
            await it.serve()
            assert it.ring() == []
            assert it.keepers.trouble == ""


async def test_another_guard_is_another_guard_of_the_keepers() -> None:
    async with world(content_guard="/pulp/api/v3/contentguards/one/") as it:
        await it.serve()
        source, kept = it.api.at("org/repo"), it.api.at("org/muster-keep/0/repo")
        assert source is not None
        assert kept is not None
        assert (kept["content_guard"], kept["hidden"]) == (source["content_guard"], True)
        for guard in ("/pulp/api/v3/contentguards/two/", None):
            source["content_guard"] = guard
            await it.keepers.beat()
            assert kept["content_guard"] == guard


async def test_keepers_go_with_their_repository_and_when_nobody_asks_for_it() -> None:
    async with world() as it:
        await it.serve()
        it.carried.clear()
        await it.keepers.beat()
        assert len(it.ring()) == 1
        # Who asks is not known while the store is away.
        it.asked.clear()
        it.is_store_away = True
        await it.keepers.beat()
        assert len(it.ring()) == 1
        it.is_store_away = False
        await it.keepers.beat()
        assert it.ring() == []
        await it.serve()
        assert len(it.ring()) == 1
        it.api.objects = {h: o for h, o in it.api.objects.items() if o.get("base_path") != "org/repo"}
        await it.keepers.beat()
        assert it.ring() == []


async def test_a_smaller_ring_loses_the_rest() -> None:
    async with world() as it:
        served = [await it.serve() for _ in range(3)]
        it.keepers._count = 2
        await it.keepers.beat()
        assert it.ring() == served[:2]


async def test_without_keepers_ours_go_and_nothing_else_does() -> None:
    async with world() as it:
        await it.serve()
        foreign = {"muster-keep/0/x": {}, "muster-keep/1/x": {"muster_keeper": "other"}, "x": {"muster_keeper": "site"}}
        for base, labels in foreign.items():
            it.api.distribute(base, pulp_labels=labels)
        none = Keepers(it.keepers._pulp, lambda: it.carried, it.keepers._asked, cluster="site", count=0)
        await none.beat()
        assert none.is_over
        assert it.ring() == []
        assert all(it.api.at(base) is not None for base in (*foreign, "org/repo"))
        asked = len(it.api.asked)
        await none.beat()
        assert len(it.api.asked) == asked, "Pulp is left alone afterwards"


async def test_who_may_not_ask_and_wants_none_asks_once() -> None:
    async with world(count=0) as it:
        it.api.broken = (403, b"")
        await it.keepers.beat()
        await it.keepers.beat()
        assert len(it.api.asked) == 1


async def test_an_api_that_refuses_or_is_away_is_named_and_tried_again() -> None:
    async with world() as it:
        for broken, why in (((401, b""), "answers 401"), ((500, b""), "answers 500"), ((200, b"x"), "no JSON")):
            it.api.broken = broken
            await it.serve()
            assert why in it.keepers.trouble
        it.api.broken = None
        await it.keepers.beat()
        assert it.keepers.trouble == ""
        assert len(it.ring()) == 1


async def test_what_pulp_does_not_take_is_named_and_the_others_are_kept() -> None:
    async with world() as it:
        it.api.task = "failed"
        await it.serve()
        assert "it has overlaps" in it.keepers.trouble
        it.api.task = "completed"
        await it.serve()
        assert it.keepers.trouble == ""


async def test_what_clients_asked_for_is_read_from_the_store(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/store.db")) as store:
        await Views(store).ask({AT: None})
        assert await asked_within(store, 60.0)() == [AT]
        assert await asked_within(store, -60.0)() == []


def test_what_a_distribution_may_have_as_a_whole() -> None:
    suite = "/pulp/content/org/archive/dists/stable"
    assert distributed([AT, "/elsewhere/x", "/pulp/content/muster-keep/1/x", suite]) == {"org/repo": AT}


async def test_what_a_list_lacks_that_changed_between_its_pages_is_asked_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with world() as it:
        others = [it.api.add("repositories") for _ in range(2)]
        hrefs = [it.api.distribute(f"org/a{n}", repository=one) for n, one in enumerate(others)]
        for one in others:
            it.api.publish(one, 1)
        it.carried.update(dict.fromkeys(("/pulp/content/org/a0", "/pulp/content/org/a1"), "digest"))
        it.asked.extend(it.carried)
        await it.serve()
        kept = it.api.at("org/muster-keep/0/a1")
        assert kept is not None
        listed = it.api._listed

        def removing(path: str, query: dict[str, list[str]]) -> dict[str, Any]:
            found = listed(path, query)
            # What comes after it moves from the second page to the first, which has been read.
            if "base_path__in" in query:
                it.api.objects.pop(hrefs[0], None)
            return found

        monkeypatch.setattr(it.api, "_listed", removing)
        await it.keepers.beat()
        assert it.api.at("org/muster-keep/0/a1") == kept
        assert it.api.at("org/muster-keep/0/repo") is not None
        await it.keepers.beat()
        assert it.api.at("org/muster-keep/0/a0") is None, "its repository is gone"
