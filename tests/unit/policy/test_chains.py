from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from muster.kernel.errors import MusterError, Unavailable
from muster.policy.chain import chained
from muster.policy.chain_metrics import ChainMetrics
from muster.policy.chains import Chains
from muster.policy.groups.grouped import Asked, Mode, Standing
from muster.policy.metered import OperationMetrics
from muster.policy.settings import PolicySettings
from tests.unit.policy.shelf import Shelf, ToldShelf

DOWN = Unavailable("no answer")
ONCE = PolicySettings.model_validate({"breaker": {"failures": 1}, "retry": {"attempts": 1}, "deadline_s": 3})


class Way:
    mode: Mode = "all"

    async def __call__(self, asked: Asked) -> Any:
        raise AssertionError(asked)

    def standings(self) -> list[Standing]:
        return [Standing("ns1", "asked"), Standing("ns2", "asked", "no answer", 2, 1), Standing("old", "", "", 4)]


async def told() -> tuple[Chains, CollectorRegistry]:
    chains, registry = Chains(), CollectorRegistry()
    registry.register(ChainMetrics(chains))
    metrics = OperationMetrics(registry)
    for name in ("ns1", "ns2"):
        policies = chains.built("dns", ONCE, metrics, label=name, word="nsupdate", name=name)
        shelf = chained(Shelf, ToldShelf([DOWN if name == "ns2" else "there"]), policies)  # type: ignore[type-abstract]
        try:
            await shelf.lookup("x")
        except MusterError:
            continue
    chains.know("dns", Way())
    chains.built("puppet", PolicySettings(), metrics, label="puppet/puppetserver", word="puppetserver")
    return chains, registry


async def test_a_chain_is_told_outermost_first_with_how_each_provider_is() -> None:
    chains, _ = await told()
    found = chains.as_json()
    assert found["dns"]["mode"] == "all"
    one, other = found["dns"]["providers"]
    assert one["chain"] == ["metered", "breaker (opens after 1 failures, for 5 s to 60 s)", "deadline (3 s)"]
    assert (one["name"], one["provider"], one["breaker"]["state"], one["pending"]) == ("ns1", "nsupdate", "closed", 0)
    assert (other["breaker"]["state"], other["breaker"]["why"]) == ("open", "no answer")
    assert (other["pending"], other["stuck"], other["why"]) == (2, 1, "no answer")
    assert found["dns"]["strangers"] == [{"name": "old", "pending": 4, "stuck": 0}]
    alone = found["puppet"]["providers"][0]
    assert (found["puppet"]["mode"], alone["provider"], alone["chain"][-1]) == (
        None,
        "puppetserver",
        "retry (3 attempts)",
    )
    assert "pending" not in alone


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("muster_breaker_open", {"feature": "dns", "provider": "ns1"}, 0),
        ("muster_breaker_open", {"feature": "dns", "provider": "ns2"}, 1),
        ("muster_breaker_open", {"feature": "puppet", "provider": "puppetserver"}, 0),
        ("muster_group_repairs", {"feature": "dns", "provider": "ns2", "state": "pending"}, 2),
        ("muster_group_repairs", {"feature": "dns", "provider": "ns2", "state": "stuck"}, 1),
        ("muster_group_repairs", {"feature": "dns", "provider": "old", "state": "pending"}, 4),
    ],
)
async def test_breakers_and_repairs_are_measured(name: str, labels: dict[str, str], value: float) -> None:
    _, registry = await told()
    assert registry.get_sample_value(name, labels) == value
