"""``muster repairs``: listed, tried at once, given up; tried dry; as text and as JSON."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from muster.app.settings import cluster_store, loaded
from muster.kernel.errors import NotFound
from muster.policy.groups.journal import Journal, Missed, Written
from tests.unit.cli.calls import run, wrong_usage

ADDED = {"name": "web.test", "type": "A", "data": "192.0.2.1"}


@pytest.fixture
def missed(file: Path) -> Path:
    """A cluster where ns2 has not had two changes of DNS, one of which it refused, and a DHCP server one."""

    async def miss() -> None:
        async with cluster_store(loaded(file)) as store:
            for group, provider, is_stuck in (("dns", "ns2", False), ("dns", "ns2", True), ("dhcp", "kea", False)):
                journal = Journal(store, group, ["ns1", provider])
                written = Written("web.test", "add", ADDED)
                holder = (await journal.begin(written)).holder
                await journal.end(written, holder, [Missed(provider, "no answer", is_stuck)])

    asyncio.run(miss())
    return file


def listed(file: Path) -> list[Any]:
    found: list[Any] = json.loads(run(file, "repairs", "list", "--json").output)["repairs"]
    return found


def test_what_providers_have_not_had_is_listed_with_its_reason(missed: Path) -> None:
    assert [(r["group"], r["provider"], r["stuck"]) for r in listed(missed)] == [
        ("dns", "ns2", False), ("dns", "ns2", True), ("dhcp", "kea", False),
    ]  # fmt: skip
    one, other, _ = run(missed, "repairs", "list").output.splitlines()
    assert one.startswith("1: dns, provider ns2: add name web.test, type A, data 192.0.2.1; since 20")
    assert one.endswith("waits, tried 0 times: no answer")
    assert other.endswith("refused: no answer")


def test_none_is_a_sentence_and_an_empty_list(with_store: Path) -> None:
    assert run(with_store, "repairs", "list").output == "Every provider of every group has had every change.\n"
    assert listed(with_store) == []


def test_one_that_was_refused_is_tried_at_once(missed: Path) -> None:
    dry = run(missed, "repairs", "retry", "2", "--dry-run")
    assert dry.output.endswith("Nothing was changed; 1 repair would be set to be tried at once.\n")
    assert [r["stuck"] for r in listed(missed)] == [False, True, False]
    assert run(missed, "repairs", "retry", "2").output.endswith("1 repair set to be tried at once.\n")
    assert [r["stuck"] for r in listed(missed)] == [False, False, False]


def test_those_of_a_provider_are_given_up_and_no_others(missed: Path) -> None:
    said = json.loads(run(missed, "repairs", "drop", "--all", "--group", "dns", "--dry-run", "--json").output)
    assert (said["dry_run"], [r["id"] for r in said["repairs"]]) == (True, [1, 2])
    assert len(listed(missed)) == 3
    run(missed, "repairs", "drop", "--all", "--provider", "ns2")
    assert [r["provider"] for r in listed(missed)] == ["kea"]
    assert run(missed, "repairs", "drop", "3").output.endswith("1 repair dropped.\n")
    assert listed(missed) == []


def test_one_that_is_not_there_changes_nothing(missed: Path) -> None:
    with pytest.raises(NotFound, match="There is no repair 8, 9; nothing was changed"):
        run(missed, "repairs", "drop", "1", "9", "8")
    assert len(listed(missed)) == 3


def test_a_provider_that_no_group_has_is_named_as_that(missed: Path) -> None:
    with pytest.raises(NotFound, match="of a group; there are dhcp: kea; dns: ns2"):
        run(missed, "repairs", "drop", "--all", "--group", "dhcp", "--provider", "ns2")
    assert len(listed(missed)) == 3
    assert run(missed, "repairs", "retry", "--all", "--provider", "kea").output.endswith(
        "1 repair set to be tried at once.\n"
    )


@pytest.mark.parametrize("arguments", [(), ("1", "--all"), ("1", "--group", "dns"), ("x",), ("0",)])
@pytest.mark.parametrize("command", ["retry", "drop"])
def test_which_ones_are_meant_has_to_be_said(command: str, arguments: tuple[str, ...]) -> None:
    assert wrong_usage("repairs", command, *arguments)
