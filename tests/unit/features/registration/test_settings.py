from __future__ import annotations

from typing import Any

import pytest

from muster.cluster.file import ClusterFile
from muster.features.registration.settings import RegistrationSettings, has_templates
from tests.unit.content.test_handed import cluster


def having(features: dict[str, Any]) -> ClusterFile:
    return cluster(url="https://foreman.test").model_copy(update={"features": features})


@pytest.mark.parametrize(
    ("features", "has"),
    [
        ({}, False),
        ({"templates": {"enabled": "no"}}, False),
        ({"templates": {"enabled": False}}, False),
        ({"templates": {}}, True),
        ({"templates": {"enabled": "http"}}, True),
        ({"templates": {"enabled": True}}, True),
    ],
)
def test_it_needs_templates(features: dict[str, Any], *, has: bool) -> None:
    assert has_templates(having(features)) is has
    said = "fails on members: 'templates' required by 'registration' could not be found."
    assert RegistrationSettings().doubts(having(features)) == (() if has else (said,))
