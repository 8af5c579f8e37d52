from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from muster.features.puppetca.status import as_foreman_sees

NAME = "web01.example.com"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ({"state": "requested"}, "pending"),
        ({"state": "signed", "not_after": "2099-01-01T00:00:00UTC"}, "valid"),
        ({"state": "signed", "not_after": "2021-01-01T00:00:00UTC"}, "revoked"),
        ({"state": "signed", "not_after": "some day"}, "valid"),
        ({"state": "revoked", "not_after": "2099-01-01T00:00:00UTC"}, "revoked"),
    ],
)
def test_states_are_told_in_foremans_words(status: dict[str, Any], state: str) -> None:
    assert as_foreman_sees({"name": NAME, **status}, datetime(2026, 1, 1, tzinfo=UTC)).state == state
