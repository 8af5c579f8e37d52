"""``muster content verify``: a job for each member that is there, or for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content import work
from muster.content.mirror.ledger import Ledger
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import NAMES, answered, beat, done_by, in_store, mirroring


async def verified(ledger: Ledger, number: int, holder: str) -> None:
    is_damaged = "proxy02" in (await ledger.job(number)).member
    await ledger.end(
        number, holder, *(("failed", "2 files are damaged") if is_damaged else ("done", "9 files are well"))
    )


def test_each_member_that_is_there_does_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = mirroring(tmp_path)
    beat(file, *NAMES)
    monkeypatch.setattr(work, "slept", done_by(file, ("verify",), verified))
    done = run(file, "content", "verify")
    assert (done.return_value, done.stdout) == (1, "verify on proxy01.test: 9 files are well\n")
    assert "verify on proxy02.test: failed: 2 files are damaged\n" in done.stderr
    said = answered(file, "verify", "--member", "proxy01.test")
    assert [(j["member"], j["kind"], j["state"]) for j in said["jobs"]] == [("proxy01.test", "verify", "done")]


def test_one_that_is_not_there_is_asked_and_not_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = mirroring(tmp_path)
    beat(file, "proxy01.test")
    monkeypatch.setattr(work, "slept", done_by(file, ("verify",), verified))
    done = run(file, "content", "verify", "--member", "proxy02.test")
    assert (done.return_value, done.stdout) == (4, "verify on proxy02.test: job 1 is asked.\n")
    assert done.stderr == "proxy02.test is not there: what is asked for waits until then.\n"
    assert run(file, "content", "verify").return_value == 0
    assert [j.member for j in in_store(file, lambda store: Ledger(store).jobs())] == ["proxy01.test", "proxy02.test"]
