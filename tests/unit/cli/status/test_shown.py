"""What a person sees of the cluster."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from muster.cli.status.shown import _here, _is_alarming, _of_balancer, _of_steward, shown
from muster.observed.status import _unchecked
from tests.unit.cli.status.found import DRAINED, RESTING, answered, found_of, member
from tests.unit.cli.terminal import CLEAN, EVIL, printed


def test_reasons_notes_and_sentences_are_shown_and_not_obeyed() -> None:
    answer = {"service": "smartproxy", "member": "proxy01.test", "state": "draining", "reason": EVIL, "notes": [EVIL]}
    found = {
        "cluster": "demo",
        "address": "proxy.test",
        "members": [{"name": "proxy01.test", "sentence": f"draining: {EVIL}"}],
        "services": [
            {
                "name": "smartproxy",
                "listen_port": 9090,
                "also_listen_ports": [],
                "balance": "leastconn",
                "members": [answer],
            }
        ],
        "store": {"ok": False, "trouble": EVIL},
        "steward": {"sentence": EVIL, "by": "x"},
        "balancers": [{"name": "lb1", "said": None}],
        "balancer": {"ok": False, "trouble": EVIL, "servers": []},
    }
    said = printed(shown(found))
    assert said.count(CLEAN) == 6
    assert said.replace("\n", "").isprintable()


def test_what_several_members_note_alike_is_shown_once() -> None:
    answers = [{**answered(name, "smartproxy"), "notes": ["known to all"]} for name in ("p1", "p2")]
    answers.append({**answered("p3", "smartproxy"), "notes": ["its own", "known to all"]})
    said = printed(shown(found_of(*(member(n) for n in ("p1", "p2", "p3")), answers=answers)))
    assert "p1, p2, p3: known to all" in said
    assert "p3: its own" in said
    assert said.count("known to all") == 1


def test_without_the_store_nobody_is_said_never_to_have_reported() -> None:
    def said(trouble: str) -> str:
        return printed(shown({
            "cluster": "demo", "address": "proxy.test", "members": [], "services": [], "steward": {"sentence": "", "by": ""},
            "store": {"ok": not trouble, "trouble": trouble}, "balancers": [{"name": "lb1", "said": None, "unchecked": []}],
            "balancer": {"ok": True, "trouble": "", "servers": [], "connections": 0},
        }))  # fmt: skip

    assert "Balancer lb1 never reported." in said("")
    assert "never reported" not in said("The store (x) did not carry out a read: connection refused")


def of_balancer(lives: dict[str, Any], **said: Any) -> tuple[str, bool]:
    told = {
        "engine": "HAProxy 2.6", "generation": "abc", "sessions": {"p1.test": 2}, "totals": {}, "trouble": "",
        "opinions": {}, "blind": False, "silent": False, "age_s": 0.0, **said,
    }  # fmt: skip
    balancer = {"name": "lb1", "said": told, "unchecked": _unchecked(told, lives)}
    return _of_balancer(balancer), _is_alarming(balancer)


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
    said = printed(shown(found_of(*members, answers=answers), 400))
    row = next(r for r in said.splitlines() if "smartproxy" in r)
    assert [c.strip() for c in row.strip("│ ").split("│")][3:] == ["maintenance", "drained", "drained, unreachable"]
    assert ("p1 smartproxy: refused" in said, "p3 smartproxy: refused" in said) == (False, True)


def test_a_member_that_is_down_is_complained_of_once_and_by_no_other_service() -> None:
    services = ("anaconda", "http", "smartproxy")
    down = [answered("p1", s, "unreachable", f"GET https://127.0.0.1/{s} failed") for s in services]
    said = printed(shown(found_of(member("p1", stands="unreachable"), answers=down), 400))
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
    for part in shown(found, 80):
        console.print(part)
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in out.getvalue()
    assert any("proxy07" in r and "unready" in r and "puppet unready, 5 ready" in r for r in lines)
    assert any("proxy12" in r and "all 6 ready" in r for r in lines)


def test_who_is_steward_is_said_and_that_nobody_is() -> None:
    steward = {"sentence": "3 of 3 members are ready.", "by": "member p3.test 123.456", "decides": True}
    (said,) = _of_steward(steward)
    assert said.plain == "Steward (member p3.test): 3 of 3 members are ready."
    (said,) = _of_steward({**steward, "decides": False})
    assert said.plain.startswith(
        "Nobody decides now: no member and no balancer reports. member p3.test said last: 3 of"
    )


def test_haproxy_s_words_are_put_into_ours() -> None:
    servers = [
        {"backend": "puppet", "server": "p1.test", "status": s, "check": c, "sessions": 0}
        for s, c in (("UP", "L7OK"), ("NOLB", "L7OKC"), ("DRAIN (agent)", "L7OK"), ("DOWN", "L4CON"), ("MAINT", ""))
    ]
    said, _ = _here({"trouble": None, "servers": servers})
    assert said == (
        "HAProxy on this host: 0 connections; out: puppet/p1 takes nothing new, puppet/p1 is drained, "
        "puppet/p1 is down (L4CON), puppet/p1 is in maintenance"
    )


def test_a_stopped_balancer_is_called_stopped() -> None:
    assert of_balancer({}, engine="", generation="") == ("Balancer lb1 is stopped.", True)
