from __future__ import annotations

import pytest

from tests.histories.history import Call, Outcome
from tests.histories.judge import judged
from tests.histories.kept import KeptAddresses


def calls(*said: tuple[str, float, float, Outcome, bool | None]) -> list[Call]:
    return [
        Call(n, "host", operation, "192.0.2.7", None, begun, ended, outcome, answer)
        for n, (operation, begun, ended, outcome, answer) in enumerate(said, 1)
    ]


OFFERED = ("offer", 0.0, 1.0, "ok", None)
ADDED = ("add", 2.0, 3.0, "ok", None)


@pytest.mark.parametrize(
    "said",
    [
        [OFFERED, ("holds", 1.5, 1.6, "ok", False), ADDED, ("holds", 4, 5, "ok", True)],
        [OFFERED, ADDED, ("add", 2, 5, "refused", None), ("remove", 6, 7, "ok", None), ("offer", 6, 9, "ok", None)],
        [ADDED, ("remove", 4, 5, "ok", None), ("remove", 4, 5, "ok", None), ("add", 6, 7, "ok", None)],
        [OFFERED, ("remove", 2, 3, "ok", None), ("holds", 4, 5, "ok", False)],
    ],
)
def test_what_can_be_is_accepted(said: list[tuple[str, float, float, Outcome, bool | None]]) -> None:
    assert judged(KeptAddresses(), calls(*said)) == []


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("given twice", [OFFERED, ("offer", 0.5, 3, "ok", None)]),
        ("given twice", [OFFERED, ADDED, ("offer", 4, 5, "ok", None)]),
        ("given twice", [ADDED, ("add", 2, 5, "ok", None)]),
        ("given twice", [OFFERED, ("remove", 2, 3, "ok", None), ("offer", 4, 5, "ok", None)]),
        ("seen as what it is not", [ADDED, ("holds", 4, 5, "ok", False)]),
        ("seen as what it is not", [OFFERED, ("add", 2, 3, "refused", None)]),
    ],
)
def test_what_cannot_be_is_named(fault: str, said: list[tuple[str, float, float, Outcome, bool | None]]) -> None:
    (found,) = judged(KeptAddresses(), calls(*said))
    assert found.fault == fault
