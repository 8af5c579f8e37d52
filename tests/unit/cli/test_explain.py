from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from muster.cli.explain import explain
from tests.unit.cli.terminal import CLEAN, EVIL

STORY: dict[str, Any] = {
    "mac": "52:54:00:b0:07:02", "names": ["h2.example.com"], "addresses": ["192.0.2.10"], "stage": "menu",
    "stops": f"It stops. {EVIL}", "cut": True, "lost": {"proxy02.example.com": 3},
    "happenings": [
        {"at": "2026-11-30T11:54:04.123Z", "member": "proxy01.example.com", "kind": "tftp", "what": EVIL, "ok": False},
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    "asked",
    [["52:54:00:b0:07:02"], ["52-54-00-B0-07-02"], ["h2.example.com"], ["h2"], ["--boot", "192.0.2.10"],
     ["--since", "2h", "192.0.2.10"], ["--boot", "2001:db8::1"]],
)  # fmt: skip
def test_a_machine_that_boots_is_told_of_line_by_line(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    seen: list[Any] = []

    async def collected(*given: Any) -> dict[str, Any]:
        seen.append(given[1:])
        return STORY

    monkeypatch.setattr("muster.cli.explain.collected", collected)
    told = CliRunner().invoke(explain, asked)
    assert told.exit_code == 0, told
    assert told.output.splitlines() == [
        "52:54:00:b0:07:02 (h2.example.com, 192.0.2.10)",
        "  older than this is kept no more, or is more than is shown",
        "2026-11-30 UTC",
        f"  11:54:04  proxy01  {CLEAN}",
        "  proxy02 could not tell 3 more, of this or of other machines",
        f"It stops. {CLEAN}",
    ]
    assert seen == [(asked[-1], 7200.0 if "--since" in asked else None)]
    assert json.loads(CliRunner().invoke(explain, [*asked, "--json"]).output) == STORY


@pytest.mark.parametrize("wrong", [["--since", "1y", "h2"], ["--since", "9" * 99 + "d", "h2"], ["--failed", "h2"]])
def test_what_is_no_question_is_an_error(wrong: list[str]) -> None:
    assert CliRunner().invoke(explain, wrong).exit_code == 2


@pytest.mark.parametrize("connection", ["192.0.2.1", "192.0.2.1:4711", "2001:db8::1", "[2001:db8::1]:4711"])
def test_an_address_alone_is_a_client_of_the_balancer(monkeypatch: pytest.MonkeyPatch, connection: str) -> None:
    asked: list[str] = []

    def found(_: object, what: str, **__: object) -> list[object]:
        asked.append(what)
        return []

    monkeypatch.setattr("muster.balancer.haproxy.journal.found", found)
    CliRunner().invoke(explain, [connection, "--json"])
    assert asked == [connection]


def test_a_connection_is_explained_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded:
        sentence = EVIL
        failed = False

    monkeypatch.setattr("muster.balancer.haproxy.journal.found", lambda *_, **__: [Recorded()])
    assert CliRunner().invoke(explain, ["192.0.2.1"]).output == f"{CLEAN}\n"
