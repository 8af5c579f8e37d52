from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from muster.app.duties.services import ServicesObserved, StorageMetrics
from muster.app.listed import Listed
from muster.cluster.service import FREE, TOTAL, USED, Seen
from muster.cluster.services import register
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


def test_what_one_member_no_longer_says_leaves_the_others_be() -> None:
    registry = CollectorRegistry()
    shown = StorageMetrics(registry)
    shown.show("a", [Seen("pulp@a", ROOM)])
    shown.show("b", [Seen("pulp@b", ROOM)])
    shown.show("a", [])
    assert registry.get_sample_value("muster_storage_used_bytes", {"member": "a", "kind": "pulp"}) is None
    assert registry.get_sample_value("muster_storage_used_bytes", {"member": "b", "kind": "pulp"}) == 40
