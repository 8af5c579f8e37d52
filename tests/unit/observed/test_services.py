"""What is taken of a Ruby member's word for its Pulp; ``tests/contract/test_services_of_members.py`` asks some."""

from __future__ import annotations

from typing import Any

import pytest

from muster.cluster.service import FREE, TOTAL, USED
from muster.observed.services import of_entry

SETTINGS = {
    "pulp_url": "https://old.test", "content_app_url": "https://lb.test/pulp/content", "mirror": True,
    "rhsm_url": "https://lb.test:443/rhsm", "username": "admin", "password": "hunter2",
}  # fmt: skip


def test_places_and_facts_are_taken_and_no_password() -> None:
    found = of_entry(
        {"settings": SETTINGS, "capabilities": ["core", "rpm"]}, {"storage": {"total": 9, "used": 4, "free": 5}}
    )
    assert found == {
        "control_url": "https://old.test",
        "client_urls": {"any": "https://lb.test/pulp/content"},
        "facts": {
            "mirror": True, "capabilities": ["core", "rpm"], "rhsm_url": "https://lb.test:443/rhsm",
            TOTAL: 9, USED: 4, FREE: 5,
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    "entry",
    [
        {}, {"settings": None}, {"settings": {"pulp_url": "javascript:x", "content_app_url": 5, "mirror": "yes"}},
        {"settings": {"pulp_url": "https://u:p@h"}, "capabilities": "rpm"},
    ],
)  # fmt: skip
def test_what_is_odd_is_left_out(entry: dict[str, Any]) -> None:
    assert of_entry(entry, "no status") == {"facts": {"mirror": False}}
