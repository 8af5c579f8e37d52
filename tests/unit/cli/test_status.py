from __future__ import annotations

import io
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from muster.cli import doctor, muster, parity, status
from muster.cli.explain import explain

# What an older member, or whoever reaches the store, may have left there.
EVIL = "why\x1b]0;owned\x07\n\x9b2J"
CLEAN = "why\\x1b]0;owned\\x07\\n\\x9b2J"


def printed(parts: list[Any]) -> str:
    out = io.StringIO()
    console = Console(file=out, width=400, force_terminal=False)
    for part in parts:
        console.print(part)
    return out.getvalue()


def test_reasons_notes_and_sentences_are_shown_and_not_obeyed() -> None:
    answer = {"service": "smartproxy", "member": "proxy01.test", "state": "draining", "reason": EVIL, "notes": [EVIL]}
    found = {
        "cluster": "demo",
        "address": "proxy.test",
        "members": [{"name": "proxy01.test", "sentence": f"draining: {EVIL}"}],
        "services": [{"name": "smartproxy", "listen_port": 9090, "balance": "leastconn", "members": [answer]}],
        "store": {"ok": False, "trouble": EVIL},
        "steward": {"sentence": EVIL, "by": "x"},
        "balancers": [{"name": "lb1", "said": None}],
        "balancer": {"ok": False, "trouble": EVIL, "servers": []},
    }
    said = printed(status.shown(found))
    assert said.count(CLEAN) == 6
    assert said.replace("\n", "").isprintable()


def test_the_doctors_findings_and_cells_are_shown_and_not_obeyed() -> None:
    entrance = {"path": "balancer", "host": "127.0.0.1", "words": "through the balancer"}
    found = {
        "cluster": "demo",
        "address": "proxy.test",
        "outside": None,
        "members": ["proxy01.test"],
        "entrances": [entrance],
        "healthy": False,
        "services": [{"name": "smartproxy", "listen_port": 9090}],
        "cells": [
            {
                "service": "smartproxy",
                "path": "proxy01.test",
                "asked": True,
                "ok": True,
                "words": f"version [/red]{EVIL}",
            }
        ],
        "findings": [{"code": "X", "severity": "error", "sentence": EVIL, "cause": EVIL, "remedy": EVIL}],
    }
    said = printed(doctor.shown(found))
    assert said.count(CLEAN) == 4
    assert f"ok version [/red]{CLEAN}" in said
    assert said.replace("\n", "").isprintable()


def test_what_members_told_of_themselves_is_shown_and_not_obeyed() -> None:
    found: dict[str, Any] = {
        "cluster": "demo",
        "address": "proxy.test",
        "members": [{"name": "proxy01.test", "kind": "muster"}],
        "fields": 3,
        "drifts": [],
        "unasked": {"proxy01.test": EVIL},
        "notes": [EVIL],
        "unneeded": [{"field": "x", "reason": EVIL}],
    }
    said = printed(parity.shown(found))
    assert said.count(CLEAN) == 3
    assert said.replace("\n", "").isprintable()


def test_watching_is_for_people_and_json_for_programs() -> None:
    said = CliRunner().invoke(muster, ["status", "--watch", "--json", "--cluster", "/nowhere"])
    assert (said.exit_code, "--json" in said.output) == (2, True)


@pytest.mark.parametrize("option", ["--balancer", "--outside"])
@pytest.mark.parametrize("host", ["a..b", "a" * 80 + ".x", "a\x1bb", ""])
def test_the_doctor_asks_only_hosts_that_can_be(option: str, host: str) -> None:
    said = CliRunner().invoke(muster, ["doctor", option, host, "--cluster", "/nowhere"])
    assert (said.exit_code, said.output.replace("\n", "").isprintable()) == (2, True)


def test_a_connection_is_explained_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorded:
        sentence = EVIL
        failed = False

    monkeypatch.setattr("muster.balancer.haproxy.journal.found", lambda *_, **__: [Recorded()])
    assert CliRunner().invoke(explain, ["192.0.2.1"]).output == f"{CLEAN}\n"


def of_balancer(lives: dict[str, Any], **said: Any) -> tuple[str, bool]:
    told = {
        "engine": "HAProxy 2.6", "generation": "abc", "sessions": {"p1.test": 2}, "totals": {}, "trouble": "",
        "opinions": {}, "blind": False, "silent": False, "age_s": 0.0, **said,
    }  # fmt: skip
    balancer = {"name": "lb1", "said": told, "unchecked": status._unchecked(told, lives)}
    return status._of_balancer(balancer), status._is_alarming(balancer)


def test_a_balancer_that_serves_unchecked_says_so() -> None:
    down, up = {"smartproxy": "down"}, {"smartproxy": "up"}
    well = "Balancer lb1: HAProxy 2.6, generation abc, 2 connections, 0 ended so far"
    unchecked = f"{well}; every check of smartproxy fails, so it serves unchecked."
    assert of_balancer({}, opinions={"p1.test": down, "p2.test": down}) == (unchecked, True)
    assert of_balancer({}, opinions={"p1.test": down, "p2.test": up}) == (f"{well}.", False)
    drained = {"P2.test": {"state": "drained"}}
    assert of_balancer(drained, opinions={"p1.test": down, "p2.test": up}) == (unchecked, True)


def test_a_balancer_whose_haproxy_does_not_answer_says_nothing_of_connections() -> None:
    said = of_balancer({}, blind=True, trouble="no answer", opinions={"p1.test": {"smartproxy": "down"}})
    assert said == ("Balancer lb1 sees nothing: no answer.", True)
