"""What is read out of an answer to ``/v2/features``; ``tests/contract/test_what_members_tell.py`` asks members."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.kernel.errors import Unavailable
from muster.observed.features import _said

RECORDED = Path(__file__).parents[2] / "wire/recorded/smart-proxy"


def recorded(route: str) -> Any:
    lines = (json.loads(line) for file in ("auth.jsonl", "root.jsonl") for line in (RECORDED / file).open())
    return next(json.loads(r["body"]) for r in lines if r["path"] == route and r["status"] == 200)


def test_what_runs_by_the_new_answer_is_what_the_old_one_lists() -> None:
    running = _said(recorded("/v2/features"), "https://proxy")
    assert running.features == set(recorded("/features"))
    assert "realm" not in running.features
    assert running.settings["registration"] == {"registration_url": "https://proxy.example.com:9090"}


def test_a_feature_that_failed_says_nothing_of_its_settings() -> None:
    running = _said({"dns": {"state": "failed", "settings": {"use_provider": "x"}}}, "https://proxy")
    assert (running.features, running.settings) == (frozenset(), {})


@pytest.mark.parametrize("answer", [[], 5, None, {"dns": "running"}, {"dns": None}])
def test_what_is_no_answer_is_refused_with_where_it_came_from(answer: Any) -> None:
    with pytest.raises(Unavailable, match="https://proxy answers /v2/features with no mapping"):
        _said(answer, "https://proxy")
