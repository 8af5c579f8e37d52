"""``muster content cancel``: before it began, while it runs, and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.content.mirror.ledger import Ledger
from muster.kernel.errors import Conflict, NotFound
from tests.unit.cli.calls import run, wrong_usage
from tests.unit.cli.content.mirroring import answered, in_store, mirroring


def test_one_is_cancelled_once_and_tried_dry_before(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    in_store(file, lambda store: Ledger(store).ask("sync", "rocky", "", "ann"))
    dry = run(file, "content", "cancel", "1", "--dry-run")
    assert dry.stdout == "Nothing was changed; Job 1 (sync rocky) would be cancelled.\n"
    assert in_store(file, lambda store: Ledger(store).job(1)).state == "asked"
    for _ in range(2):
        assert run(file, "content", "cancel", "1").stdout == "Job 1 (sync rocky) is cancelled.\n"
    dry = run(file, "content", "cancel", "1", "--dry-run")
    assert dry.stdout == "Nothing was changed; Job 1 (sync rocky) is cancelled already.\n"
    with pytest.raises(NotFound, match="There is no job 7"):
        run(file, "content", "cancel", "7")


def test_one_that_runs_is_told_so_and_one_that_is_over_stays(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    in_store(file, lambda store: Ledger(store).ask("verify", "", "proxy01.test", "ann"))
    in_store(file, lambda store: Ledger(store).take("proxy01.test/1", "proxy01.test", ["verify"]))
    said = answered(file, "cancel", "1")
    assert said["sentence"] == "Job 1 (verify) is being cancelled: proxy01.test/1 is told at its next step."
    assert (said["job"]["state"], said["job"]["is_unwanted"], said["dry_run"]) == ("running", True, False)
    in_store(file, lambda store: Ledger(store).end(1, "proxy01.test/1", "done", "All is well"))
    with pytest.raises(Conflict, match=r"Job 1 is over \(done\)"):
        run(file, "content", "cancel", "1")


@pytest.mark.parametrize("number", ["0", "-1", "x", "9" * 20])
def test_what_is_no_number_of_a_job_is_wrong_usage(number: str, tmp_path: Path) -> None:
    assert wrong_usage("content", "cancel", "--cluster", str(mirroring(tmp_path)), "--", number)
