from __future__ import annotations

from typing import Any

import pytest

from muster.features.templates.settings import TemplatesSettings
from tests.unit.content.test_handed import cluster


@pytest.mark.parametrize(
    ("foreman", "doubts"), [({}, 1), ({"url": "http://foreman.test"}, 1), ({"url": "https://foreman.test"}, 0)]
)
def test_it_needs_a_foreman_over_tls(foreman: dict[str, Any], doubts: int) -> None:
    found = TemplatesSettings().doubts(cluster(**foreman))
    assert len(found) == doubts
    assert all("foreman.url" in sentence for sentence in found)


def test_boot_loaders_speak_plain_http() -> None:
    assert TemplatesSettings().on("http")
    assert TemplatesSettings().on("https")
