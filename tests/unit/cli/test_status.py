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


def test_without_the_store_nobody_is_said_never_to_have_reported() -> None:
    def said(trouble: str) -> str:
        return printed(status.shown({
            "cluster": "demo", "address": "proxy.test", "members": [], "services": [], "steward": {"sentence": "", "by": ""},
            "store": {"ok": not trouble, "trouble": trouble}, "balancers": [{"name": "lb1", "said": None, "unchecked": []}],
            "balancer": {"ok": True, "trouble": "", "servers": [], "connections": 0},
        }))  # fmt: skip

    assert "Balancer lb1 never reported." in said("")
    assert "never reported" not in said("The store (x) did not carry out a read: connection refused")


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


def member(name: str, **more: Any) -> dict[str, Any]:
    given = {"name": f"{name}.test", "stands": "ready", "sentence": "ready", "life": {"state": "ready", "reason": ""}}
    return {**given, **more}


def answered(name: str, service: str, state: str = "ready", reason: str = "") -> dict[str, Any]:
    return {"service": service, "member": f"{name}.test", "state": state, "reason": reason, "notes": []}


def found_of(*members: dict[str, Any], answers: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    names = dict.fromkeys(a["service"] for a in answers)
    services = [
        {"name": n, "listen_port": 1, "balance": "random", "members": [a for a in answers if a["service"] == n]}
        for n in names
    ]
    return {
        "cluster": "demo", "address": "proxy.test", "members": list(members), "services": services, "nowhere": [],
        "store": {"ok": True, "trouble": None}, "steward": {"sentence": "", "by": "", "decides": True},
        "balancers": [], "balancer": None, **more,
    }  # fmt: skip


def knows(kind: str = "muster", /, **more: Any) -> status.Known:
    given = {
        "kind": kind,
        "said": {"state": "ready", "reason": "", "silent": False, "age_s": 0.4} if kind == "muster" else None,
        "life": {"state": "ready", "reason": "nobody else was ready"},
        "answers": [answered("p", "anaconda"), answered("p", "smartproxy")],
    }
    return status.Known(**{**given, **more})


DEAD = [answered("p", s, "unreachable", "refused") for s in ("anaconda", "smartproxy")]
SILENT = {"state": "ready", "reason": "", "silent": True, "age_s": 32.4}
DRAINED = {"state": "drained", "reason": "drained by root: kernel update"}
RESTING = {"state": "maintenance", "reason": "put into maintenance by root: host is off"}
LEAVES = {"state": "draining", "reason": "drained by root: kernel update", "silent": False, "age_s": 0.1}
LEAVING = [answered("p", "smartproxy", "draining", "drained by root: kernel update")]


@pytest.mark.parametrize(
    ("known", "stands", "as_wished", "sentence"),
    [
        (knows(), "ready", True, "ready"),
        (knows(said=SILENT, answers=DEAD), "unreachable", False, "silent for 32 s"),
        (knows(said=SILENT), "silent", False, "silent for 32 s, though it answers: ready"),
        (knows(said=None, answers=DEAD), "unreachable", False, "never reported"),
        (knows("foreman", answers=DEAD), "unreachable", False, "it does not answer"),
        (knows("foreman", life=None), "ready", True, "ready"),
        (knows("foreman", life=DRAINED), "drained", True, "drained, by root: kernel update"),
        (knows("foreman", life=DRAINED, answers=DEAD), "drained", False,
         "drained, by root: kernel update; it does not answer"),
        (knows(life=DRAINED, said=LEAVES, answers=LEAVING), "drained", True, "drained, by root: kernel update"),
        (knows(life=DRAINED), "drained", True, "drained, by root: kernel update; it still says ready"),
        (knows(life=RESTING, said=SILENT, answers=DEAD), "maintenance", True,
         "in maintenance, by root: host is off; silent for 32 s"),
        (knows(life={"state": "warming", "reason": "it came up"}, waiting="no check has ended yet: x"), "warming", True,
         "warming: it came up (no check has ended yet: x)"),
        (knows(life=None, waiting="the cluster file of the steward does not list it"), "ready", True,
         "nobody decided about it: the cluster file of the steward does not list it"),
        (knows(store_answers=False, answers=DEAD), "unreachable", False,
         "it does not answer; where it stands is unknown, the store did not answer"),
        (knows(answers=[answered("p", "anaconda"), answered("p", "smartproxy", "unready", "no key")]), "unready", False,
         "not ready for smartproxy"),
    ],
)  # fmt: skip
def test_a_member_is_said_to_stand_in_one_place(
    known: status.Known, stands: str, as_wished: bool, sentence: str
) -> None:
    assert (known.stands, known.is_as_wished, known.sentence) == (stands, as_wished, sentence)


def test_the_table_shows_what_was_decided_about_a_member_and_what_goes_against_it() -> None:
    members = [
        member("p1", life=RESTING, stands="maintenance"),
        member("p2", life=DRAINED, stands="drained"),
        member("p3", life=DRAINED, stands="drained"),
    ]
    answers = [
        answered("p1", "smartproxy", "unreachable", "refused"), answered("p2", "smartproxy"),
        answered("p3", "smartproxy", "unreachable", "refused"),
    ]  # fmt: skip
    said = printed(status.shown(found_of(*members, answers=answers), 400))
    row = next(r for r in said.splitlines() if "smartproxy" in r)
    assert [c.strip() for c in row.strip("│ ").split("│")][3:] == ["maintenance", "drained", "drained, unreachable"]
    assert ("p1 smartproxy: refused" in said, "p3 smartproxy: refused" in said) == (False, True)


def test_a_member_that_is_down_is_complained_of_once_and_by_no_other_service() -> None:
    services = ("anaconda", "http", "smartproxy")
    down = [answered("p1", s, "unreachable", f"GET https://127.0.0.1/{s} failed") for s in services]
    said = printed(status.shown(found_of(member("p1", stands="unreachable"), answers=down), 400))
    assert said.count("GET https") == 1
    assert "p1, 3 services: GET https://127.0.0.1/anaconda failed" in said


def test_twelve_members_are_readable_at_80_columns() -> None:
    names = [f"proxy{n:02d}" for n in range(1, 13)]
    services = ("http", "https", "anaconda", "puppet", "puppetca", "smartproxy")
    answers = [
        answered(n, s, "unready" if (n, s) == ("proxy07", "puppet") else "ready") for n in names for s in services
    ]
    found = found_of(*(member(n) for n in names), answers=answers)
    found["members"][6]["stands"] = "unready"
    out = io.StringIO()
    console = Console(file=out, width=80, force_terminal=False)
    for part in status.shown(found, 80):
        console.print(part)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out.getvalue()
    assert any("proxy07" in r and "unready" in r and "puppet unready, 5 ready" in r for r in lines)
    assert any("proxy12" in r and "all 6 ready" in r for r in lines)


def test_who_is_steward_is_said_and_that_nobody_is() -> None:
    steward = {"sentence": "3 of 3 members are ready.", "by": "member p3.test 123.456", "decides": True}
    (said,) = status._of_steward(steward)
    assert said.plain == "Steward (member p3.test): 3 of 3 members are ready."
    (said,) = status._of_steward({**steward, "decides": False})
    assert said.plain.startswith(
        "Nobody decides now: no member and no balancer reports. member p3.test said last: 3 of"
    )


def test_haproxy_s_words_are_put_into_ours() -> None:
    servers = [
        {"backend": "puppet", "server": "p1.test", "status": s, "check": c, "sessions": 0}
        for s, c in (("UP", "L7OK"), ("NOLB", "L7OKC"), ("DRAIN (agent)", "L7OK"), ("DOWN", "L4CON"), ("MAINT", ""))
    ]
    said, _ = status._here({"trouble": None, "servers": servers})
    assert said == (
        "HAProxy on this host: 0 connections; out: puppet/p1 takes nothing new, puppet/p1 is drained, "
        "puppet/p1 is down (L4CON), puppet/p1 is in maintenance"
    )


def test_a_stopped_balancer_is_called_stopped() -> None:
    assert of_balancer({}, engine="", generation="") == ("Balancer lb1 is stopped.", True)
