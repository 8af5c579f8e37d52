"""Whose contents are new: a table; what comes of it in a store, tests/contract/test_consumer_ledger.py shows."""

from __future__ import annotations

import pytest

from muster.content.consumer.ledger import Seen, is_new, version

ROWS = [Seen("c", 3), Seen("b", 2), Seen("a", 1)]


@pytest.mark.parametrize(
    ("digest", "own", "expected"),
    [
        ("c", None, False),
        ("c", Seen("a", 1), False),
        # Nobody ever had it.
        ("d", None, True),
        ("d", Seen("a", 1), True),
        # It had it already, whether or not it is known still.
        ("b", Seen("b", 2), False),
        ("forgotten", Seen("forgotten", 1), False),
        # It came from something newer, or from something older.
        ("b", Seen("c", 3), True),
        ("b", Seen("a", 1), False),
        ("a", None, False),
    ],
)
def test_contents_are_new_when_somebody_changed_to_them(digest: str, own: Seen | None, expected: bool) -> None:
    assert is_new(digest, ROWS, own) is expected


def test_the_first_is_new_and_its_version_above_all_that_single_proxies_made() -> None:
    assert is_new("a", [], None)
    assert version(1) == "1.1"
