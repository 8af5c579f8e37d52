"""Where a member is said to stand."""

from __future__ import annotations

from typing import Any

import pytest

from muster.observed.known import Known
from tests.unit.cli.status.found import DRAINED, RESTING, answered


def knows(kind: str = "muster", /, **more: Any) -> Known:
    given = {
        "kind": kind,
        "said": {"state": "ready", "reason": "", "silent": False, "age_s": 0.4} if kind == "muster" else None,
        "life": {"state": "ready", "reason": "nobody else was ready"},
        "answers": [answered("p", "anaconda"), answered("p", "smartproxy")],
    }
    return Known(**{**given, **more})


DEAD = [answered("p", s, "unreachable", "refused") for s in ("anaconda", "smartproxy")]
SILENT = {"state": "ready", "reason": "", "silent": True, "age_s": 32.4}
LEAVES = {"state": "draining", "reason": "drained by root: kernel update", "silent": False, "age_s": 0.1}
LEAVING = [answered("p", "smartproxy", "draining", "drained by root: kernel update")]


@pytest.mark.parametrize(
    ("known", "stands", "as_wished", "sentence"),
    [
        (knows(), "ready", True, "ready"),
        (knows(said=SILENT, answers=DEAD), "unreachable", False, "silent for 32 s"),
        (knows(said=SILENT), "silent", False, "silent for 32 s, though it answers: ready"),
        (knows(said=None, answers=DEAD), "unreachable", False, "never reported"),
        (knows("foreman", answers=DEAD), "unreachable", False, "it does not answer"),
        (knows("foreman", life=None), "ready", True, "ready"),
        (knows("foreman", life=DRAINED), "drained", True, "drained, by root: kernel update"),
        (knows("foreman", life=DRAINED, answers=DEAD), "drained", False,
         "drained, by root: kernel update; it does not answer"),
        (knows(life=DRAINED, said=LEAVES, answers=LEAVING), "drained", True, "drained, by root: kernel update"),
        (knows(life=DRAINED), "drained", True, "drained, by root: kernel update; it still says ready"),
        (knows(life=RESTING, said=SILENT, answers=DEAD), "maintenance", True,
         "in maintenance, by root: host is off; silent for 32 s"),
        (knows(life={"state": "warming", "reason": "it came up"}, waiting="no check has ended yet: x"), "warming", True,
         "warming: it came up (no check has ended yet: x)"),
        (knows(life=None, waiting="the cluster file of the steward does not list it"), "ready", True,
         "nobody decided about it: the cluster file of the steward does not list it"),
        (knows(store_answers=False, answers=DEAD), "unreachable", False,
         "it does not answer; where it stands is unknown, the store did not answer"),
        (knows(answers=[answered("p", "anaconda"), answered("p", "smartproxy", "unready", "no key")]), "unready", False,
         "not ready for smartproxy"),
    ],
)  # fmt: skip
def test_a_member_is_said_to_stand_in_one_place(known: Known, stands: str, as_wished: bool, sentence: str) -> None:
    assert (known.stands, known.is_as_wished, known.sentence) == (stands, as_wished, sentence)
