"""What has one cause is said once, first causes first."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from muster.cli import doctor
from muster.doctor.causes import dead, grouped
from muster.doctor.matrix import Cell, Entrance
from muster.kernel.findings import Finding

MEMBERS = ["Proxy01.test", "proxy02.test", "proxy03.test"]
SERVICES = ("anaconda", "smartproxy")
DOOR = Entrance("balancer", "192.0.2.1", "through the balancer")


def cell(service: str, path: str, code: str = "", *, asked: bool = True) -> Cell:
    findings = (Finding(code, f"{service} on {path}", f"{code} of {path} for {service}", "c", "r"),) if code else ()
    return Cell(service, path, path, not code, code or "ok", findings, asked)


def cells(*down: str, code: str = "TLS-REFUSED", resting: str = "") -> list[Cell]:
    return [
        cell(s, p, ("SERVICE-DOWN" if s == "anaconda" else code) if p in down else "", asked=p != resting)
        for p in (*(m.lower() for m in MEMBERS), DOOR.path)
        for s in SERVICES
    ]


def told(found: list[Cell], *more: Finding) -> list[tuple[str, str, int, int]]:
    """Return code, place, how many are alike, and how many follow, for each cause."""
    is_here_down = any(f.code == "BALANCER-DOWN" for f in more)
    findings = [
        *dead(MEMBERS, [DOOR], found, is_here_down=is_here_down),
        *(f for c in found for f in c.findings),
        *more,
    ]
    causes = grouped(findings, MEMBERS, [DOOR])
    assert sorted(map(str, (f for c in causes for f in c.findings))) == sorted(map(str, dict.fromkeys(findings)))
    return [(c.finding.code, c.finding.place, len(c.alike), len(c.follows)) for c in causes]


def silent(member: str) -> Finding:
    return Finding("MEMBER-SILENT", member, f"{member} is silent", "its process", f"serve {member}")


def test_what_all_members_say_of_foremans_version_is_said_once() -> None:
    said = "Foreman's version is not known, and this member says 5.0.0"
    notes = [Finding("MEMBER-NOTE", m, f"{m}: {said}", "c", "r", "warning") for m in MEMBERS]
    other = Finding("MEMBER-NOTE", MEMBERS[0], f"{MEMBERS[0]}: the disk is slow", "c", "r", "warning")
    unknown = Finding("FOREMAN-VERSION-UNKNOWN", "Foreman", "Members say that", "c", "r", "warning")
    assert told([], unknown, other, *notes) == [
        ("FOREMAN-VERSION-UNKNOWN", "Foreman", 0, 3),
        ("MEMBER-NOTE", MEMBERS[0], 0, 0),
    ]
    assert told([], *notes) == [("MEMBER-NOTE", MEMBERS[0], 2, 0)]


@pytest.mark.parametrize("code", ["MEMBER-NOTE", "MEMBER-UNREADY"])
def test_what_members_say_of_several_things_is_said_of_each(code: str) -> None:
    said = [
        (0, "feature dns, provider ns2: no connection"), (1, "feature dns, provider ns2: was not asked"),
        (1, "feature realm: the keytab is old"), (2, "drains"),
    ]  # fmt: skip
    found = [
        Finding(code, MEMBERS[n], f"{MEMBERS[n]}: {what}", "It says so itself.", "r", "warning") for n, what in said
    ]
    assert told([], *found) == [(code, MEMBERS[0], 1, 0), (code, MEMBERS[1], 0, 0), (code, MEMBERS[2], 0, 0)]


def test_what_is_alike_of_one_place_is_shown_whole() -> None:
    found = [
        Finding("BMC-PROVIDER-ABSENT", "feature bmc", f"{n} cannot be used", "c", "r") for n in ("redfish", "pyghmi")
    ]
    (cause,) = grouped(found, MEMBERS, [])
    parts = doctor.shown({
        "cluster": "demo", "address": "proxy.test", "members": [], "outside": None, "entrances": [], "healthy": False,
        "services": [], "cells": [], "causes": [{"code": cause.finding.code, "place": "feature bmc", "findings": 2}],
        "findings": [{**f.as_json(), "because": None} for f in cause.findings],
    }, 80)  # fmt: skip
    said = [str(part) for part in parts]
    assert [s for s in said if "cannot be used" in s] == [
        "BMC-PROVIDER-ABSENT: redfish cannot be used", "    also: pyghmi cannot be used",
    ]  # fmt: skip


def test_everything_about_a_dead_member_follows_from_one_finding() -> None:
    out = Finding("BALANCER-OUT", "smartproxy on proxy02.test", "HAProxy has it out", "c", "r")
    assert told(cells("proxy02.test"), silent("proxy02.test"), out) == [("MEMBER-DOWN", "proxy02.test", 0, 4)]


def test_a_cluster_that_was_not_started_is_one_error() -> None:
    down = cells("proxy01.test", "proxy02.test", "proxy03.test", "balancer")
    store = Finding("STORE-DOWN", "store", "There is no store /x.db; a member makes it when it first starts", "c", "r")
    nowhere = [Finding("SERVICE-NOWHERE", s, f"nobody for {s}", "c", "r") for s in SERVICES]
    found = told(down, store, *nowhere, *map(silent, MEMBERS))
    assert found == [("CLUSTER-DOWN", ", ".join(MEMBERS), 0, 8 + 1 + 2 + 3)]


def test_several_dead_members_are_one_cause_in_several_places() -> None:
    found = told(cells("proxy01.test", "proxy02.test"), silent("Proxy01.test"), silent("proxy02.test"))
    assert found == [("MEMBER-DOWN", "Proxy01.test", 1, 6)]


def test_who_answers_on_one_port_is_not_dead_and_a_refused_certificate_is_no_silence() -> None:
    one = [cell(s, "proxy02.test", "TLS-REFUSED" if s == "smartproxy" else "") for s in SERVICES]
    assert dead(MEMBERS, [DOOR], one) == []
    assert dead(MEMBERS, [DOOR], cells("proxy02.test", code="TLS-CA")) == []
    assert dead(MEMBERS, [DOOR], cells("proxy02.test", resting="proxy02.test")) == []


def test_a_balancer_that_is_not_there_is_one_error_and_haproxy_s_own_socket_knows_better() -> None:
    assert told(cells("balancer")) == [("ENTRANCE-DOWN", "192.0.2.1", 0, 2)]
    down = Finding("BALANCER-DOWN", "HAProxy", "no socket", "c", "r")
    assert told(cells("balancer"), down) == [("BALANCER-DOWN", "HAProxy", 0, 2)]


def test_a_ruby_member_is_not_started_with_our_own_commands() -> None:
    def remedy(ruby: set[str], *down: str) -> str:
        (finding,) = dead(MEMBERS, [], cells(*down), ruby=ruby)
        return finding.remedy

    everybody = tuple(m.lower() for m in MEMBERS)
    assert "foreman-proxy" in remedy({MEMBERS[1]}, "proxy02.test")
    assert "muster-member" not in remedy({MEMBERS[1]}, "proxy02.test")
    assert "foreman-proxy" not in remedy({MEMBERS[0]}, "proxy02.test")
    assert "muster-member" not in remedy(set(MEMBERS), *everybody)
    assert "foreman-proxy" not in remedy(set(), *everybody)
    assert "of Ruby members systemctl start foreman-proxy" in remedy({MEMBERS[0]}, *everybody)


def test_a_dead_store_comes_first_and_what_quotes_it_follows() -> None:
    words = "The store (postgresql muster@db/muster) did not carry out a read: connection refused"
    store = Finding("STORE-DOWN", "store", words, "stopped", "start it")
    quotes = [
        Finding(
            "MEMBER-UNREADY", f"puppetca on {m}", f"{m} is not ready for puppetca: the Puppet CA: {words}", "c", "r"
        )
        for m in MEMBERS
    ]
    other = Finding("TLS-EXPIRED", "smartproxy on proxy02.test", "expired", "c", "r")
    nowhere = Finding("SERVICE-NOWHERE", "puppetca", "nobody for puppetca", "c", "r")
    warning = Finding("ADDRESS-UNKNOWN", "proxy.test", "no address", "c", "r", "warning")
    door = Finding(
        "SERVICE-DOWN", "puppetca on balancer", "Service puppetca does not work: the socket closed", "c", "r"
    )
    found = told(cells(), warning, other, *quotes, nowhere, door, store)
    assert found == [
        ("STORE-DOWN", "store", 0, 5), ("TLS-EXPIRED", "smartproxy on proxy02.test", 0, 0),
        ("ADDRESS-UNKNOWN", "proxy.test", 0, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("width", [80, 200])
def test_twelve_dead_members_are_a_screenful(width: int) -> None:
    names = [f"proxy{n:02d}.example.net" for n in range(1, 14)]
    found = [cell(s, n, "TLS-REFUSED" if n != names[12] else "") for n in names for s in (*SERVICES, "https", "puppet")]
    findings = [*dead(names, [], found), *(f for c in found for f in c.findings), *map(silent, names[:12])]
    causes = grouped(findings, names, [])
    shown = doctor.shown({
        "cluster": "demo", "address": "proxy.test", "members": names, "outside": None, "entrances": [],
        "healthy": False, "services": [{"name": s, "listen_port": 1} for s in SERVICES],
        "cells": [c.as_json() for c in found],
        "causes": [{"code": c.finding.code, "place": c.finding.place, "findings": len(c.findings)} for c in causes],
        "findings": [
            {**f.as_json(), "because": c.finding.code if f in c.follows else None} for c in causes for f in c.findings
        ],
    }, width)  # fmt: skip
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=False)
    for part in shown:
        console.print(part)
    lines = out.getvalue().splitlines()
    assert len(lines) <= 40
    assert "…" not in out.getvalue()
    assert "the same of: proxy02.example.net" in out.getvalue()
    assert "72 errors of 1 cause." in out.getvalue()


def test_what_is_behind_a_member_explains_what_the_member_and_the_balancer_say() -> None:
    def about(code: str, member: str) -> Finding:
        return Finding(code, f"https on {member}", f"{code} of {member}", f"cause of {code}", "r")

    members = [m.lower() for m in MEMBERS[:2]]
    nowhere = Finding("SERVICE-NOWHERE", "https", "nobody for https", "c", "r")
    codes = ("MEMBER-UNREADY", "BALANCER-OUT", "CONTENT-BACKEND")
    found = told(cells(), *(about(c, m) for c in codes for m in members), nowhere)
    assert found == [("CONTENT-BACKEND", "https on proxy01.test", 1, 5)]
    out = told(cells(), *(about(c, m) for c in codes[:2] for m in members))
    assert out == [("MEMBER-UNREADY", "https on proxy01.test", 1, 2)]
    assert told(cells(), about("BALANCER-OUT", members[0])) == [("BALANCER-OUT", "https on proxy01.test", 0, 0)]


def test_a_member_that_is_out_for_a_repository_follows_from_what_is_found_of_that() -> None:
    behind = Finding("CONTENT-BEHIND", "/r", "/r: the Pulp of Proxy01.test still carries revision 1", "c", "r")
    other = Finding("CONTENT-BEHIND", "/r2", "/r2: the Pulp of proxy02.test still carries revision 1", "c", "r")
    why = "is not ready for https: /r: its Pulp still carries revision 1"
    out = Finding("MEMBER-UNREADY", "https on proxy01.test", f"proxy01.test {why}", "c2", "r")
    else_out = Finding("MEMBER-UNREADY", "https on proxy03.test", f"proxy03.test {why}", "c2", "r")
    assert told(cells(), behind, other, out) == [("CONTENT-BEHIND", "/r", 1, 1)]
    assert told(cells(), behind, else_out) == [
        ("CONTENT-BEHIND", "/r", 0, 0), ("MEMBER-UNREADY", "https on proxy03.test", 0, 0),
    ]  # fmt: skip


def test_a_pulp_that_answers_for_nothing_answers_for_no_repository() -> None:
    gone = Finding("CONTENT-BACKEND", "https on proxy01.test", "no answer", "c", "r")
    silent = [
        Finding("CONTENT-UNREACHED", p, f"{p}: the Pulp of Proxy01.test gives none", "c", "r") for p in ("/a", "/b")
    ]
    other = Finding("CONTENT-UNREACHED", "/a", "/a: the Pulp of proxy02.test gives none", "c", "r", "warning")
    assert told(cells(), gone, *silent, other) == [
        ("CONTENT-BACKEND", "https on proxy01.test", 0, 2), ("CONTENT-UNREACHED", "/a", 0, 0),
    ]  # fmt: skip


def test_too_few_ready_members_follow_from_one_that_is_down_and_stand_alone_when_somebody_wanted_it() -> None:
    short = [Finding("SERVICE-SHORT", s, f"1 member is ready for {s}", "c", "r", "warning") for s in SERVICES]
    assert told(cells("proxy02.test"), *short) == [("MEMBER-DOWN", "proxy02.test", 0, 4)]
    assert told(cells(), *short) == [("SERVICE-SHORT", SERVICES[0], 1, 0)]
