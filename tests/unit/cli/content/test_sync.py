"""``muster content sync``: asked for, awaited, failed, interrupted, left."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content import work
from muster.content.mirror.ledger import Ledger
from muster.kernel.errors import NotFound
from tests.unit.cli.calls import run, wrong_usage
from tests.unit.cli.content.mirroring import answered, beat, done_by, in_store, mirroring


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = mirroring(tmp_path)
    beat(made, "proxy01.test")
    return made


def test_each_that_is_named_is_asked_for_once_and_its_end_awaited(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def does(ledger: Ledger, number: int, holder: str) -> None:
        job = await ledger.job(number)
        await ledger.end(number, holder, "done", f"{job.repository} is as it was", {"packages": 3})

    monkeypatch.setattr(work, "slept", done_by(file, ("sync",), does))
    done = run(file, "content", "sync", "rocky", "debian", "rocky")
    assert (done.return_value, done.stdout.splitlines()) == (
        0, ["sync of rocky: rocky is as it was", "sync of debian: debian is as it was"],
    )  # fmt: skip
    said = answered(file, "sync", "--all")
    assert (said["done"], [j["result"] for j in said["jobs"]]) == (True, [{"packages": 3}] * 2)
    assert "@" in said["jobs"][0]["asked_by"]


def test_one_that_failed_says_why_and_the_others_are_done(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def does(ledger: Ledger, number: int, holder: str) -> None:
        is_rocky = (await ledger.job(number)).repository == "rocky"
        await ledger.end(number, holder, *(("failed", "The origin said 404") if is_rocky else ("done", "Well")))

    monkeypatch.setattr(work, "slept", done_by(file, ("sync",), does))
    done = run(file, "content", "sync", "--all")
    assert (done.return_value, done.stdout) == (1, "sync of debian: Well\n")
    assert "sync of rocky: failed: The origin said 404\n" in done.stderr
    said = answered(file, "sync", "rocky")
    assert (said["done"], said["jobs"][0]["state"]) == (False, "failed")


def test_a_dry_run_says_what_is_under_way_and_asks_for_nothing(file: Path) -> None:
    in_store(file, lambda store: Ledger(store).ask("sync", "debian", "", "ann"))
    dry = run(file, "content", "sync", "--all", "--dry-run")
    assert dry.stdout.splitlines() == [
        "sync of rocky would be asked for.",
        "sync of debian is asked as job 1 already, and would be awaited.",
    ]
    assert [j["job"] for j in answered(file, "sync", "--all", "--dry-run")["jobs"]] == [None, 1]
    assert len(in_store(file, lambda store: Ledger(store).jobs())) == 1


def test_one_that_is_left_is_asked_for_and_named(file: Path) -> None:
    left = run(file, "content", "sync", "rocky", "--no-wait")
    assert (left.return_value, left.stdout) == (0, "sync of rocky: job 1 is asked.\n")
    said = answered(file, "sync", "rocky", "--no-wait")
    assert (said["done"], [j["id"] for j in said["jobs"]]) == (False, [1])


def test_what_is_named_and_all_at_once_or_nothing_is_wrong_usage(file: Path, tmp_path: Path) -> None:
    assert wrong_usage("content", "sync", "--cluster", str(file))
    assert wrong_usage("content", "sync", "rocky", "--all", "--cluster", str(file))
    with pytest.raises(NotFound, match="names no repository to mirror"):
        run(mirroring(tmp_path, "content: {mirror: {}}\n"), "content", "sync", "--all")
