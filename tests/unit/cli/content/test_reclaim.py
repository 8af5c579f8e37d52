"""``muster content reclaim``: a job for each member that is there, or for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content import work
from muster.content.mirror.ledger import Ledger
from muster.content.mirror.publications import Publication
from muster.store.engine import Store
from muster.store.writing import Change
from tests.unit.cli.calls import run
from tests.unit.cli.content.mirroring import M2, NAMES, answered, beat, done_by, in_store, mirroring, publish, yum


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


def test_what_the_cluster_file_names_no_more_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = mirroring(tmp_path)
    publish(file, yum(), Publication("gone", {"": M2}, "http://origin.test/gone"))
    beat(file, NAMES[0])
    path = "/pulp/content/muster/library/yum/gone"
    dry = run(file, "content", "reclaim", "--dry-run")
    assert dry.stderr.splitlines() == [
        f"{path} would be, unless that changed within a day, given no more.",
        "Publications of gone would be, unless that changed within a day, forgotten.",
    ]
    # Another member may have a newer file.
    assert run(file, "content", "reclaim", "--no-wait").stderr == ""

    async def aged(store: Store) -> None:
        async with store.write() as uow:
            for text in ("content_distributions SET since = 0", "content_publications SET published_at = 0"):
                await uow.change(Change(f"UPDATE {text}"), [{}])

    in_store(file, aged)
    done = run(file, "content", "reclaim", "--no-wait")
    assert done.stderr.splitlines() == [f"{path} is given no more.", "Publications of gone are forgotten."]
    assert [p.repository for p in in_store(file, lambda store: Ledger(store).publications())] == ["rocky"]
    assert run(file, "content", "reclaim", "--no-wait").stderr == ""
