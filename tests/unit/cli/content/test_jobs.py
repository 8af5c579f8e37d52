"""``muster content jobs``: how work stands, and what environments got."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.content.jobs import percent, shown, shown_promotions
from muster.content.mirror.ledger import Ledger
from muster.store.engine import Store
from tests.unit.cli.calls import run, wrong_usage
from tests.unit.cli.content.mirroring import M2, answered, in_store, mirroring, narrow, promoted, publish, yum
from tests.unit.cli.terminal import CLEAN, EVIL, printed


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = mirroring(tmp_path)

    async def filled(store: Store) -> None:
        ledger = Ledger(store)
        for name in ("rocky", "debian", "third"):
            await ledger.ask("sync", name, "", "ann@desk")
        await ledger.ask("verify", "", "proxy02.test", "bob@desk")
        for holder in ("p1/1", "p1/2"):
            await ledger.take(holder, "proxy01.test", ["sync"])
        await ledger.tell(1, "p1/1", 30, 90, "fetching packages")
        await ledger.end(2, "p1/2", "failed", "http://origin.test/debian/dists/stable/InRelease answered 404")
        await ledger.cancel(3, by="bob@desk")

    in_store(made, filled)
    return made


def test_the_newest_is_first_with_what_it_does_or_did(file: Path) -> None:
    said = run(file, "content", "jobs").stdout
    assert said.splitlines() == [
        "4  verify on proxy02.test",
        "    asked for 0 s; asked for by bob@desk",
        "3  sync third",
        "    cancelled 0 s ago; asked for by ann@desk",
        "    Cancelled by bob@desk",
        "2  sync debian",
        "    failed 0 s ago; asked for by ann@desk",
        "    http://origin.test/debian/dists/stable/InRelease answered 404",
        "1  sync rocky",
        "    running for 0 s, 33 %, by p1/1; asked for by ann@desk",
        "    fetching packages",
    ]
    assert narrow(said)
    assert [j["id"] for j in answered(file, "jobs")["jobs"]] == [4, 3, 2, 1]
    assert [j["id"] for j in answered(file, "jobs", "--open", "--most", "5")["jobs"]] == [4, 1]
    assert [j["id"] for j in answered(file, "jobs", "--most", "1")["jobs"]] == [4]
    in_store(file, lambda store: Ledger(store).cancel(1, by="bob@desk"))
    assert "    being cancelled for 0 s, 33 %, by p1/1" in run(file, "content", "jobs", "--open").stdout


def test_what_environments_got_is_told_with_who_did_it(file: Path) -> None:
    assert run(file, "content", "jobs", "--promotions").stdout == "There are none.\n"
    publish(file, yum(), yum(M2))
    promoted(file, yum(M2), "test")
    said = run(file, "content", "jobs", "--promotions").stdout
    first, second, third = said.splitlines()[::2]
    assert (first[21:], second[21:], third[21:]) == (" test  rocky", " library  rocky", " library  rocky")
    assert said.splitlines()[1] == f"    {yum(M2).digest[:12]}, was nothing, by ann@desk"
    assert said.splitlines()[3] == f"    {yum(M2).digest[:12]}, was {yum().digest[:12]}, by p1"
    assert narrow(said)
    told = answered(file, "jobs", "--promotions", "--most", "1")["promotions"]
    assert [(m["environment"], m["publication"], m["previous"]) for m in told] == [("test", yum(M2).digest, "")]
    assert wrong_usage("content", "jobs", "--promotions", "--open", "--cluster", str(file))


def test_nobody_knows_how_far_it_is_or_it_is_said() -> None:
    assert [percent({"done": d, "of": o}) for d, o in ((5, 0), (0, 9), (1, 3), (9, 9), (12, 9))] == [
        "", "0 %", "33 %", "100 %", "100 %",
    ]  # fmt: skip


def test_what_members_left_in_the_store_is_shown_and_not_obeyed() -> None:
    job = {
        "id": 1, "kind": "sync", "repository": EVIL, "member": EVIL, "state": "running", "asked_by": EVIL, "asked_at": 1.0,
        "started_at": 2.0, "ended_at": None, "holder": EVIL, "done": 1, "of": 2, "sentence": EVIL, "is_unwanted": False,
    }  # fmt: skip
    move = {"at": 1.0, "by": EVIL, "environment": EVIL, "repository": EVIL, "publication": EVIL, "previous": EVIL}
    for said in (printed(shown({"now": 3.0, "jobs": [job]})), printed(shown_promotions({"promotions": [move]}))):
        assert CLEAN in said
        assert said.replace("\n", "").isprintable()
