"""What the fault matrix makes of a measured duration."""

from __future__ import annotations

import math

import pytest

from tests.faults.fault import Outcome


@pytest.mark.parametrize(
    ("took_s", "broken", "late"),
    [(0.5, 0, 0), (1.5, 0, 0), (1.6, 0, 1), (10.0, 0, 1), (10.1, 1, 0), (math.inf, 1, 0), (math.nan, 1, 0)],
)
def test_a_duration_is_late_on_a_noisy_machine_and_broken_when_nothing_explains_it(
    took_s: float, broken: int, late: int
) -> None:
    outcome = Outcome()
    outcome.promise_within("down_s", took_s, 0.5)
    assert (len(outcome.broken), len(outcome.late)) == (broken, late), outcome
    assert all("down_s" in s and "0.5 s" in s for s in outcome.broken + outcome.late)
