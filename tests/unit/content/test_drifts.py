"""Which Pulps drifted from what clients are shown, for whoever compares members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from muster.cluster.sections import ExpectedDifference
from muster.content import drifts as module
from muster.content.drifts import reading
from muster.content.states import State, states
from muster.observed.parity import Drift
from tests.unit.content.pictures import LAG_S, MEMBERS, NOW, picture, told, version

pytestmark = pytest.mark.anyio

ONE, TWO = version(1), version(2)


class Cluster:
    def __init__(self, *expected: ExpectedDifference) -> None:
        self.expected_differences = expected


async def drifts(
    monkeypatch: pytest.MonkeyPatch, found: Sequence[State], *expected: ExpectedDifference
) -> Sequence[Drift]:
    async def read(*_: Any) -> Sequence[State]:
        return found

    monkeypatch.setattr(module, "states_in", read)
    return await reading(Cluster(*expected))(None)  # type: ignore[arg-type]


def lagging(for_s: float) -> list[State]:
    says = {"p1.test": told(ONE, TWO), "p2.test": told(ONE, TWO), "p3.test": told(TWO, TWO)}
    of = picture(says, ONE, TWO, shown=TWO, shown_s=for_s, left={ONE.digest: NOW - for_s})
    return states(of, MEMBERS, ["https"], LAG_S)


async def test_pulps_that_lag_too_long_drifted_also_when_they_are_most(monkeypatch: pytest.MonkeyPatch) -> None:
    (found,) = await drifts(monkeypatch, lagging(900))
    assert (found.field, found.differing, found.majority) == (
        "content./pulp/content/r",
        ("p1.test", "p2.test"),
        str(TWO),
    )
    assert found.sentence.endswith(f"p2.test has {ONE}, shown is {TWO}")


async def test_pulps_that_have_time_to_follow_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await drifts(monkeypatch, lagging(60)) == []


async def test_what_is_declared_is_no_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ExpectedDifference(field="content.*", members=("p1.test", "p2.test"), reason="another site")
    (found,) = await drifts(monkeypatch, lagging(900), declared)
    assert (found.differing, found.expected) == ((), {"p1.test": "another site", "p2.test": "another site"})


async def test_who_has_nothing_drifted_from_the_one_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    says = {"p1.test": told(TWO, TWO), "p2.test": told(None, TWO), "p3.test": told(None, TWO)}
    found = await drifts(monkeypatch, states(picture(says, TWO, shown=TWO), MEMBERS, ["https"], LAG_S))
    assert [d.differing for d in found] == [("p2.test", "p3.test")]
