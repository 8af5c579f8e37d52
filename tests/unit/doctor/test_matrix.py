"""Which entrances are asked, by what the cluster file says of its balancers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.table import Table

from muster.app.offers import modelled
from muster.cli.doctor import shown
from muster.cluster.file import ClusterFile
from muster.doctor import matrix
from muster.doctor.matrix import Cell, Entrance, Prober, entrances, versions
from muster.foreman import questions
from muster.foreman.answers import Answer

ADDRESS = "cluster.test"
ONE, TWO, VIRTUAL = "192.0.2.8", "192.0.2.9", "192.0.2.10"


def cluster(*binds: str, virtual: bool = False) -> ClusterFile:
    content: dict[str, Any] = {
        "schema": 1,
        "cluster": "demo",
        "address": ADDRESS,
        "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [{"id": 1, "name": "proxy01.test", "address": "192.0.2.1"}],
        "balancers": [{"name": f"lb{i}", "address": f"192.0.2.{7 + i}", "bind": b} for i, b in enumerate(binds, 1)],
    }
    if virtual:
        content["virtual_address"] = {"address": f"{VIRTUAL}/24", "interface": "eth0"}
    return ClusterFile.model_validate(content)


def asked(of: ClusterFile, **given: str) -> list[tuple[str, str, str]]:
    return [(e.path, e.host, e.words) for e in entrances(of, **given)]


@pytest.mark.parametrize(("bind", "host"), [(ONE, ONE), ("*", ADDRESS)])
def test_one_balancer_is_asked_where_it_listens_or_else_at_the_address(bind: str, host: str) -> None:
    assert asked(cluster(bind)) == [("balancer", host, "through the balancer")]


def test_without_a_balancer_nobody_is_asked_but_outside() -> None:
    assert asked(cluster()) == []
    assert asked(cluster(), outside="203.0.113.1") == [("outside", "203.0.113.1", "from outside")]


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (cluster(ONE, TWO), [("balancer", ONE, "through lb1"), ("balancer lb2", TWO, "through lb2")]),
        (
            cluster(ONE, TWO, virtual=True),
            [
                ("balancer", ONE, "through lb1"),
                ("balancer lb2", TWO, "through lb2"),
                ("address", ADDRESS, "at the address"),
            ],
        ),
        (
            cluster("*", "*", virtual=True),
            [
                ("balancer", ADDRESS, "at the address"),
                ("balancer lb1", ONE, "through lb1"),
                ("balancer lb2", TWO, "through lb2"),
            ],
        ),
        (
            cluster("*", TWO),
            [
                ("balancer", ADDRESS, "at the address"),
                ("balancer lb1", ONE, "through lb1"),
                ("balancer lb2", TWO, "through lb2"),
            ],
        ),
        # Both bind the address that moves: nothing leads to the one that does not have it.
        (cluster(VIRTUAL, VIRTUAL, virtual=True), [("balancer", VIRTUAL, "at the address")]),
    ],
    ids=["two", "two and an address", "every address", "mixed", "the virtual address alone"],
)
def test_each_of_several_balancers_is_asked_and_so_is_the_address_they_share(
    of: ClusterFile, expected: list[tuple[str, str, str]]
) -> None:
    assert asked(of) == expected


def test_a_balancer_that_is_named_is_asked_instead() -> None:
    assert asked(cluster(ONE, TWO, virtual=True), balancer_host="203.0.113.9", outside="203.0.113.1") == [
        ("balancer", "203.0.113.9", "through the balancer"),
        ("outside", "203.0.113.1", "from outside"),
    ]


def test_each_entrance_has_a_column() -> None:
    ways_in = entrances(cluster(ONE, TWO), outside="203.0.113.1")
    cells = [
        {
            "service": "smartproxy",
            "path": e.path,
            "ok": e.path != "balancer lb2",
            "asked": True,
            "words": f"by {e.path}",
        }
        for e in ways_in
    ]
    found = {
        "cluster": "demo",
        "address": ADDRESS,
        "members": ["proxy01.test"],
        "healthy": False,
        "services": [{"name": "smartproxy", "listen_port": 9090}],
        "entrances": [e.as_json() for e in ways_in],
        "cells": cells,
        "findings": [],
    }
    table = shown(found)[0]
    assert isinstance(table, Table)
    assert [c.header for c in table.columns] == [
        "service",
        "proxy01 direct",
        "through lb1",
        "through lb2",
        "from outside, 203.0.113.1",
    ]
    assert [str(next(iter(c.cells))) for c in table.columns][2:] == ["ok by balancer", "fails", "ok by outside"]


@pytest.mark.anyio
async def test_the_signer_is_asked_at_its_real_port_and_balancers_at_the_one_for_clients(tmp_path: Path) -> None:
    of = cluster(ONE).model_copy(update={"signer": "proxy01.test"})
    prober = Prober(modelled(of), tmp_path / "ca.pem", None, None, datetime.now(UTC), timeout_s=0.2)
    cells = await prober.cells([Entrance("balancer", ONE, "through the balancer")])
    places = {(c.service, c.path): c.place for c in cells}
    # No balancer offers the real one, and on the signer nobody listens on the other (docs/facts/deployment.md §1.6).
    assert places["puppetca", "proxy01.test"] == "192.0.2.1 port 8140"
    assert places["puppetca", "balancer"] == f"{ONE} port 8141"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ('{"version": "3.12.0", "modules": {"dns": "3.12.0"}}', "version 3.12.0, 1 feature"),
        ("[]", "no version"),
        ("7", "no version"),
        ("null", "no version"),
        ('{"version": "3.12.0", "modules": 5}', "no version"),
        ('{"version": "3\\u001b[2J", "modules": {}}', "version 3\\x1b[2J, 0 features"),
    ],
)
async def test_whatever_answers_to_version_is_a_cell(
    answer: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Answering:
        async def call(self, _: str) -> Answer:
            return Answer(200, answer)

        ask = call

    @asynccontextmanager
    async def opened(*_: object, **__: object) -> AsyncIterator[Answering]:
        yield Answering()

    async def nothing(*_: object, **__: object) -> list[object]:
        return []

    monkeypatch.setattr(questions, "opened", opened)
    monkeypatch.setattr(matrix, "verify_port", nothing)
    monkeypatch.setattr(matrix, "client_context", lambda *_, **__: None)
    prober = Prober(modelled(cluster()), tmp_path / "ca.pem", None, None, datetime.now(UTC))
    (cell,) = [c for c in await prober.cells([]) if c.service == "smartproxy"]
    assert words in cell.words
    assert cell.ok is (words != "no version")


@pytest.mark.anyio
async def test_of_a_large_cluster_so_many_ports_are_asked_at_once_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a descriptor or two of 1024 that a shell gives, and what is opened in vain looks as if nobody answered."""
    now, most, calls = 0, 0, 0

    async def cell(_: Prober, service: object, way: object) -> Cell:
        nonlocal now, most, calls
        now, calls = now + 1, calls + 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return Cell("", "", "", True, "")

    monkeypatch.setattr(Prober, "_cell", cell)
    content = cluster().model_dump(by_alias=True, mode="json", exclude_none=True, exclude_defaults=True)
    content["members"] = [{"id": i, "name": f"p{i}.test", "address": f"192.0.2.{i}"} for i in range(1, 61)]
    of = ClusterFile.model_validate({**content, "store": {"url": "sqlite:////x"}})
    await Prober(modelled(of), tmp_path / "ca.pem", None, None, datetime.now(UTC)).cells([])
    assert calls > most == matrix.AT_ONCE


def of_versions(expected: list[dict[str, Any]], **told: str) -> list[str]:
    names = [f"proxy0{i}.test" for i in (1, 2, 3)]
    content = cluster().model_dump(by_alias=True, mode="json", exclude_none=True, exclude_defaults=True)
    content["members"] = [{"id": i, "name": n, "address": f"192.0.2.{i}"} for i, n in enumerate(names, 1)]
    of = ClusterFile.model_validate({**content, "store": {"url": "sqlite:////x"}, "expected_differences": expected})
    cells = [Cell("smartproxy", f"{n}.test", "", True, "", version=v) for n, v in told.items()]
    return [f.sentence for f in versions(of, cells)]


def test_members_that_tell_foreman_different_versions_are_said_with_them() -> None:
    assert of_versions([], proxy01="3.12.0", proxy02="3.12.0") == []
    assert of_versions([], proxy01="3.12.0", proxy02="3.11.0", proxy03="3.12.0") == [
        "Members tell Foreman different versions: proxy01.test 3.12.0, proxy02.test 3.11.0, proxy03.test 3.12.0"
    ]
    declared = [{"field": "*version", "members": ["proxy02.test"], "reason": "upgraded next week"}]
    assert of_versions(declared, proxy01="3.12.0", proxy02="3.11.0", proxy03="3.12.0") == []
