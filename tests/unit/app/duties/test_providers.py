from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from muster.app.duties.providers import Providers
from muster.edge.feature import Feature, Features, ProvidedFeatureSettings, Served, State
from muster.edge.lags import Lag, Lags
from muster.kernel.errors import MusterError, Unavailable
from muster.policy.chains import Chains
from muster.policy.groups.grouped import Asked, Mode, Standing


@dataclass
class Way:
    said: Sequence[Standing]
    mode: Mode = field(default="all")

    async def __call__(self, asked: Asked) -> Any:
        raise AssertionError(asked)

    def standings(self) -> list[Standing]:
        return list(self.said)


def duty(readiness: str, *said: Standing, why: MusterError | None = None, lags: Lags | None = None) -> Providers:
    async def reached(_: object) -> None:
        if why is not None:
            raise why

    feature = Feature("dns", "DNS", ProvidedFeatureSettings, (), lambda _: {}, cast(Any, None), reached=reached)
    settings = ProvidedFeatureSettings.model_validate({"readiness": readiness})
    chains = Chains()
    chains.know("dns", Way(said))
    return Providers(Features({"dns": Served(feature, settings, State.RUNNING)}), chains=chains, lags=lags)


@pytest.mark.parametrize("readiness", ["essential", "functional"])
async def test_a_group_that_does_without_one_of_its_providers_stays_in_service_and_says_so(readiness: str) -> None:
    asked = duty(readiness, Standing("ns1", "asked"), Standing("ns2", "asked", "no answer", pending=3, stuck=1))
    await asked.beat()
    found = asked.found()
    assert not found.down
    assert found.notes == [
        "feature dns, provider ns2: no answer",
        "feature dns, provider ns2: has yet to have 3 changes",
        "feature dns, provider ns2: refused 1 change that others have had (muster repairs list)",
    ]


async def test_an_essential_group_takes_the_member_out_when_no_provider_answers() -> None:
    gone = Standing("ns1", "asked", "no answer", pending=1)
    asked = duty("essential", gone, why=Unavailable("at every provider: no answer"))
    await asked.beat()
    found = asked.found()
    assert found.down == {"smartproxy": "feature dns: at every provider: no answer"}
    # The feature's own sentence names every provider.
    assert found.notes == ["feature dns, provider ns1: has yet to have 1 change"]


async def test_members_are_compared_by_whether_their_providers_answer() -> None:
    near, far = duty("functional"), duty("functional", why=Unavailable("no answer"))
    # A member that just began is no different from the others.
    assert far.facts() == {"dns": "reached"}
    await near.beat()
    await far.beat()
    assert (near.facts(), far.facts()) == ({"dns": "reached"}, {"dns": "away"})


@pytest.mark.parametrize("readiness", ["essential", "functional"])
async def test_who_knows_old_things_of_its_server_says_how_old_and_why_and_stays(readiness: str) -> None:
    lags, lag = Lags(), Lag(3.2, 11.0)
    with lags.told("dns", "isc", "", lambda: lag):
        one = duty(readiness, lags=lags)
        await one.beat()
        assert (one.found().notes, one.known()) == ([], {"dns": "current"})
        lag = Lag(41.6, 11.0, "the disk is gone")
        found = one.found()
        assert not found.down
        assert found.notes == ["feature dns: what it knows of its server is 42 s old: the disk is gone"]
        assert one.known() == {"dns": "behind"}
        lag = Lag(41.6, 11.0)
        assert one.found().notes == ["feature dns: what it knows of its server is 42 s old"]
    assert (one.found().notes, one.known()) == ([], {})


async def test_why_a_server_is_not_reached_is_said_once() -> None:
    lags = Lags()
    with lags.told("dns", "isc", "", lambda: Lag(41.6, 11.0, "no answer")):
        one = duty("functional", why=Unavailable("no answer"), lags=lags)
        await one.beat()
        assert one.found().notes == ["feature dns: no answer", "feature dns: what it knows of its server is 42 s old"]


async def test_of_a_group_the_provider_that_is_behind_is_named() -> None:
    lags = Lags()
    with lags.told("dns", "isc", "a", lambda: Lag(1, 11)), lags.told("dns", "isc", "b", lambda: Lag(20, 11)):
        one = duty("functional", lags=lags)
        assert one.known() == {"dns": "behind"}
        assert one.found().notes == ["feature dns, provider b: what it knows of its server is 20 s old"]
    with lags.told("dns", "isc", "b", lambda: Lag(20, 11)), lags.told("dns", "isc", "a", lambda: Lag(1, 11)):
        assert one.known() == {"dns": "behind"}
