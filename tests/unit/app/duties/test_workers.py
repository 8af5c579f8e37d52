from __future__ import annotations

import re
from pathlib import Path

from muster.app.duties import workers
from muster.app.duties.workers import Workers

PAGE = Path(__file__).parents[4] / "docs" / "admin" / "content.md"


def test_a_worker_that_hangs_is_ended_as_soon_as_the_page_says() -> None:
    said = re.search(r"one that hangs for ([0-9]+) s is killed", " ".join(PAGE.read_text().split()))
    assert said is not None
    assert workers._FALL * (workers._WELL_TIMEOUT_S + Workers.every_s) <= int(said[1])
