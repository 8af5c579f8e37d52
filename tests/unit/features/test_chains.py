"""What features call is known, so that people and monitoring see breakers that are open."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

import muster.features
from muster import features as rooms
from muster.edge.feature import Surroundings
from muster.policy.metered import OperationMetrics

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("feature", "given", "called"),
    [
        ("realm", {"provider": "memory"}, [("", "memory")]),
        ("dns", {"provider": "memory"}, [("", "memory")]),
        ("bmc", {"bmc_default_provider": "memory"}, [("shell", "shell"), ("memory", "memory")]),
    ],
)
async def test_what_a_feature_calls_is_told(
    feature: str, given: dict[str, object], called: list[tuple[str, str]]
) -> None:
    file = Path("unused")
    around = Surroundings("proxy01.example.com", OperationMetrics(CollectorRegistry()), file, file, file)
    found = rooms.manifests()[feature]
    async with found.opened(found.settings.model_validate(given), around):
        told = [(one["name"], one["provider"]) for one in around.chains.as_json()[feature]["providers"]]
        assert [one for one in told if one in called] == called


def test_no_feature_has_policies_that_nobody_sees() -> None:
    places = Path(muster.features.__file__).parent.rglob("*.py")
    assert not [str(p) for p in places if "policies.built(" in p.read_text()]
