from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from muster.app.duties.services import ServicesObserved, StorageMetrics
from muster.app.listed import Listed
from muster.cluster.service import FREE, TOTAL, USED, Seen, Told
from muster.cluster.services import Services, register
from muster.edge.feature import Features
from muster.kernel.secrets import Secret
from muster.store.engine import Store, opened

pytestmark = pytest.mark.anyio

NAME = "proxy01.example.com"
ROOM = {TOTAL: 100, USED: 40, FREE: 60}


def duty(store: Store, known: list[Seen], registry: CollectorRegistry) -> ServicesObserved:
    feature = SimpleNamespace(observed=lambda _: tuple(known))
    served = SimpleNamespace(feature=feature, answers=True, service=None)
    features = cast(Features, SimpleNamespace(served={"pulpcore": served}))
    listed = cast(Listed, SimpleNamespace(cluster=SimpleNamespace(members=[])))
    return ServicesObserved(NAME, features, listed, store, "me", cast(Any, None), registry)


async def facts(store: Store) -> dict[str, Any]:
    from muster.cluster.service import of_settings

    found = await register(store, {"pulp": of_settings("pulp", "https://pulp.test")})
    return {f.name: f.value for f in found.services["pulp"].facts}


async def test_what_features_know_is_told_at_once_and_then_now_and_then(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        known: list[Seen] = []
        one = duty(store, known, registry)
        await one.beat()
        assert await facts(store) == {}
        known.append(Seen("pulp", {"versions": {"core": "1"}, **ROOM}))
        await one.beat()
        assert await facts(store) == {"versions": {"core": "1"}, **ROOM}
        labels = {"member": NAME, "kind": "pulp"}
        assert registry.get_sample_value("muster_storage_free_bytes", labels) == 60
        # Figures change all the time, and their age says how old they are.
        known[0] = Seen("pulp", {"versions": {"core": "1"}, **ROOM, FREE: 50})
        await one.beat()
        assert (await facts(store))[FREE] == 60
        assert registry.get_sample_value("muster_storage_free_bytes", labels) == 50
        for _ in range(12):
            await one.beat()
        assert (await facts(store))[FREE] == 50
        known[0] = Seen("pulp", {"versions": {"core": "2"}})
        await one.beat()
        # A figure that is absent is no error and no sample.
        assert await facts(store) == {"versions": {"core": "2"}}
        assert registry.get_sample_value("muster_storage_free_bytes", labels) is None
        known.clear()
        await one.beat()
        assert await facts(store) == {"versions": {"core": "2"}}


async def test_without_a_store_the_metric_goes_on(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    async with opened(Secret(f"sqlite:///{tmp_path}/missing/muster.db")) as store:
        one = duty(store, [Seen("pulp", ROOM)], registry)
        await one.beat()
    assert registry.get_sample_value("muster_storage_total_bytes", {"member": NAME, "kind": "pulp"}) == 100


async def test_what_was_known_of_a_member_that_there_is_no_longer_is_forgotten(tmp_path: Path) -> None:
    async with opened(Secret(f"sqlite:///{tmp_path}/muster.db")) as store:
        await Services(store).tell(Told("gone.example.com", "asked by gone.example.com", {"pulp": {"facts": {"x": 1}}}))
        await Services(store).tell(Told(NAME.upper(), "asked by itself", {"pulp": {"facts": {"y": 1}}}))
        await duty(store, [Seen("pulp", ROOM)], CollectorRegistry()).beat()
        assert await facts(store) == {**ROOM, "y": 1}


def test_who_is_no_member_any_more_has_no_disk() -> None:
    registry = CollectorRegistry()
    shown = StorageMetrics(registry)
    for name in ("a", "b"):
        shown.show(name, [Seen(f"pulp@{name}", ROOM)])
    shown.keep({"b"})
    assert registry.get_sample_value("muster_storage_used_bytes", {"member": "a", "kind": "pulp"}) is None
    assert registry.get_sample_value("muster_storage_used_bytes", {"member": "b", "kind": "pulp"}) == 40


def test_what_one_member_no_longer_says_leaves_the_others_be() -> None:
    registry = CollectorRegistry()
    shown = StorageMetrics(registry)
    shown.show("a", [Seen("pulp@a", ROOM)])
    shown.show("b", [Seen("pulp@b", ROOM)])
    shown.show("a", [])
    assert registry.get_sample_value("muster_storage_used_bytes", {"member": "a", "kind": "pulp"}) is None
    assert registry.get_sample_value("muster_storage_used_bytes", {"member": "b", "kind": "pulp"}) == 40
