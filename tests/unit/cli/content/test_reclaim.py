"""``muster content reclaim``: a job for each member that is there, or for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content import work
from muster.content.mirror.ledger import Ledger
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import NAMES, answered, beat, done_by, mirroring


def test_each_member_that_is_there_does_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def reclaimed(ledger: Ledger, number: int, holder: str) -> None:
        await ledger.end(number, holder, "done", "3.0 GiB are free again", {"freed_bytes": 3 << 30})

    file = mirroring(tmp_path)
    beat(file, *NAMES)
    dry = run(file, "content", "reclaim", "--dry-run")
    assert dry.stdout.splitlines() == [f"reclaim on {name} would be asked for." for name in NAMES]
    monkeypatch.setattr(work, "slept", done_by(file, ("reclaim",), reclaimed))
    done = run(file, "content", "reclaim")
    assert (done.return_value, done.stdout.splitlines()) == (
        0, [f"reclaim on {name}: 3.0 GiB are free again" for name in NAMES],
    )  # fmt: skip
    said = answered(file, "reclaim", "--member", NAMES[1])
    assert [(j["member"], j["result"]) for j in said["jobs"]] == [(NAMES[1], {"freed_bytes": 3 << 30})]
