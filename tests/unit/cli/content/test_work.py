"""Work as commands await it: nobody there, progress, a store that goes away, an interruption."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from muster.cli.content import work
from muster.content.mirror.ledger import Ledger
from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import NAMES, beat, done_by, in_store, mirroring

Slept = Callable[[float], Awaitable[None]]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = mirroring(tmp_path)
    beat(made, *NAMES)
    return made


def steps(*each: Slept) -> Slept:
    """Return what waits so the first time, so the second, and so on."""
    left = list(each)

    async def slept(seconds: float) -> None:
        await left.pop(0)(seconds)

    return slept


async def told(ledger: Ledger, number: int, holder: str) -> None:
    await ledger.tell(number, holder, 1, 4, "packages\x1b[2J")


def test_where_nobody_is_there_it_is_asked_for_and_not_awaited(tmp_path: Path) -> None:
    file = mirroring(tmp_path)
    done = run(file, "content", "sync", "rocky")
    assert done.return_value == 4
    assert done.stderr == "None of proxy01.test, proxy02.test is there: what is asked for waits until one is.\n"
    assert done.stdout == "sync of rocky: job 1 is asked.\n"
    dry = run(file, "content", "sync", "rocky", "--dry-run")
    assert (dry.return_value, dry.stdout.splitlines()[0], dry.stderr) == (0, done.stderr.strip(), "")


def test_how_far_it_is_is_said_now_and_then_in_lines(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(_: float) -> None:
        async with work_on(file) as ledger:
            for number in (1, 2):
                await ledger.end(number, f"{NAMES[number - 1]}/1", "done", "Well")

    monkeypatch.setattr(work, "_LINE_EVERY_S", 0.0)
    take = done_by(file, ("sync",), told)
    monkeypatch.setattr(work, "slept", steps(take, take, ends))
    done = run(file, "content", "sync", "--all")
    assert done.stderr.splitlines() == [
        "0 of 2 jobs over, 0 running",
        "0 of 2 jobs over, 2 running; sync of rocky: 25 %, packages\\x1b[2J",
    ]
    assert done.return_value == 0


def test_on_a_terminal_one_line_renews_itself(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(_: float) -> None:
        async with work_on(file) as ledger:
            await ledger.end(1, f"{NAMES[0]}/1", "done", "Well")

    monkeypatch.setattr(work, "columns_watched", lambda: 31)
    monkeypatch.setattr(work, "slept", steps(done_by(file, ("sync",), told), ends))
    done = run(file, "content", "sync", "rocky")
    # What tells a terminal to wipe the line is for terminals alone, and is taken out here.
    assert done.stderr == "\rsync of rocky: waits for a me…\rsync of rocky: 25 %, packages…\r"
    assert done.stdout == "sync of rocky: Well\n"


def test_an_interruption_leaves_the_job_and_says_how_to_end_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "slept", interrupted)
    done = run(file, "content", "sync", "rocky", "debian")
    assert done.return_value == 130
    assert "Jobs 1 2 go on: muster content jobs tells of them, muster content cancel JOB ends one." in done.stderr
    assert {j.state for j in in_store(file, lambda store: Ledger(store).jobs())} == {"asked"}


def test_a_store_that_is_away_for_a_moment_ends_no_wait_and_one_that_stays_away_does(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def does(ledger: Ledger, number: int, holder: str) -> None:
        await ledger.end(number, holder, "done", "Well")

    jobs, failures = Ledger.jobs, [1, 2]

    async def sometimes(self: Ledger, limit: int = 50, *, is_open: bool | None = None) -> object:
        if failures:
            failures.pop()
            raise Unavailable("The store did not answer")
        return await jobs(self, limit, is_open=is_open)

    monkeypatch.setattr(Ledger, "jobs", sometimes)
    monkeypatch.setattr(work, "slept", done_by(file, ("sync",), does))
    assert run(file, "content", "sync", "rocky").return_value == 0
    failures.extend(range(5))
    monkeypatch.setattr(work, "_UNANSWERED_S", -1.0)
    with pytest.raises(Unavailable):
        run(file, "content", "sync", "rocky")


@asynccontextmanager
async def work_on(file: Path) -> AsyncIterator[Ledger]:
    """Hold the ledger of a cluster open, while a command waits."""
    async with opened(Secret(f"sqlite:///{file.parent}/muster.db")) as store:
        yield Ledger(store)
