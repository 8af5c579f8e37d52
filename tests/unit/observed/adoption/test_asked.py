"""Features that members say they run, compared; ``tests/contract/test_adopt_live.py`` asks servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.observed.adoption import asked
from muster.observed.adoption.asked import differing, unled
from muster.observed.features import Running


def running(*features: str, unknown: tuple[str, ...] = ()) -> Running:
    return Running(frozenset(features), unknown=frozenset(unknown))


def test_a_feature_of_all_is_no_finding_and_one_of_some_names_both_sides() -> None:
    found = differing({"a": running("dns", "tftp"), "b": running("dns"), "c": running("dns", "tftp")})
    assert [(f.code, f.place) for f in found] == [("ADOPT-FEATURES", "tftp on b")]
    assert found[0].sentence == "Feature tftp runs on a, c and not on b, as they answer now"


def test_of_a_member_that_cannot_say_nothing_is_said() -> None:
    assert differing({"a": running("pulpcore"), "b": running(unknown=("pulpcore",))}) == []
    assert differing({"a": running("dns")}) == []
    assert differing({}) == []


@pytest.mark.anyio
async def test_of_a_large_cluster_so_many_connections_are_made_at_once_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is not opened for want of descriptors would be a port that nobody forgot."""
    now, most, calls = 0, 0, 0

    async def refused(*_: object, **__: object) -> None:
        nonlocal now, most, calls
        now, calls = now + 1, calls + 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        raise ConnectionRefusedError

    monkeypatch.setattr(asyncio, "open_connection", refused)
    content: dict[str, Any] = {
        "schema": 1, "cluster": "c", "address": "cluster.test", "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": i, "name": f"p{i}.test", "address": f"192.0.2.{i}"} for i in range(1, 101)],
        "services": {name: {"enabled": False} for name in ("http", "https", "anaconda", "puppet", "puppetca")},
    }  # fmt: skip
    cluster = ClusterFile.model_validate(content)
    assert await unled(modelled(cluster), cluster) == []
    assert calls > most == asked.AT_ONCE
