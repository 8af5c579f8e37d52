from __future__ import annotations

from math import inf

import pytest

from tests.histories.history import Call, Outcome
from tests.histories.judge import judged
from tests.histories.tokens import Tokens


def calls(*said: tuple[str, float, float, Outcome]) -> list[Call]:
    return [
        Call(n, "host", operation, "token", None, begun, inf if outcome == "unknown" else ended, outcome)
        for n, (operation, begun, ended, outcome) in enumerate(said, 1)
    ]


MADE = ("make", 0.0, 1.0, "ok")


@pytest.mark.parametrize(
    "said",
    [
        [MADE, ("use", 2, 3, "ok"), ("use", 4, 5, "refused")],
        [MADE, ("use", 2, 5, "refused"), ("use", 2, 5, "ok")],
        [MADE, ("use", 2, 0, "unknown"), ("use", 4, 5, "refused")],
        [MADE, ("use", 2, 0, "unknown"), ("use", 4, 5, "ok"), ("use", 6, 7, "refused")],
        [("use", 0, 5, "ok"), ("make", 1, 6, "ok")],
        [MADE, ("withdraw", 2, 3, "ok"), ("use", 4, 5, "refused"), ("withdraw", 6, 7, "refused")],
    ],
)
def test_what_can_be_is_accepted(said: list[tuple[str, float, float, Outcome]]) -> None:
    assert judged(Tokens(), calls(*said)) == []


@pytest.mark.parametrize(
    ("fault", "said", "core"),
    [
        ("used twice", [MADE, ("use", 2, 5, "ok"), ("use", 2, 5, "ok")], [2, 3]),
        ("withdrawn and used", [MADE, ("withdraw", 2, 3, "ok"), ("use", 4, 5, "ok")], [2, 3]),
        ("acknowledged and lost", [MADE, ("use", 2, 3, "refused")], [1, 2]),
        ("used though nobody made it", [("use", 0, 1, "ok"), ("make", 2, 3, "ok")], [1]),
    ],
)
def test_what_cannot_be_is_named(fault: str, said: list[tuple[str, float, float, Outcome]], core: list[int]) -> None:
    (found,) = judged(Tokens(), calls(*said))
    assert (found.fault, [c.number for c in found.calls]) == (fault, core)
