"""Which URLs lead clients past the cluster; ``tests/contract/test_what_members_tell.py`` asks members for theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.doctor.urls import misled
from muster.observed.features import Running

FIRST, SECOND, THIRD = "proxy01.test", "proxy02.test", "proxy03.test"
ADDRESS, ALIAS = "proxy.example.com", "content.example.com"
RECORDED = Path(__file__).parents[2] / "wire/recorded/smart-proxy/auth.jsonl"

REGISTRATION = f"https://{ADDRESS}:9090"
TEMPLATES = f"http://{ADDRESS}:8000"
# As foreman-installer makes them from the registration URL (docs/facts/deployment.md §3.4).
PULP = {"content_app_url": f"https://{ADDRESS}/pulp/content", "rhsm_url": f"https://{ADDRESS}:443/rhsm", "mirror": True}

Settings = dict[str, dict[str, Any]]


def well(name: str) -> Settings:
    return {
        "registration": {"registration_url": REGISTRATION},
        "templates": {"template_url": TEMPLATES},
        "pulpcore": {**PULP, "pulp_url": f"https://{name}"},
        "container_gateway": {},
        "dns": {"use_provider": "dns_nsupdate"},
    }


def cluster(kind: str = "foreman", **changes: Any) -> ClusterFile:
    content: dict[str, Any] = {
        "schema": 1,
        "cluster": "demo",
        "address": ADDRESS,
        "aliases": [ALIAS],
        "store": {"url": "sqlite:////nowhere/x.db"},
        "members": [
            {"id": i, "name": n, "address": f"192.0.2.{i}", "kind": kind}
            for i, n in enumerate((FIRST, SECOND, THIRD), 1)
        ],
        "signer": FIRST,
    }
    return ClusterFile.model_validate(content | changes)


def found(of: ClusterFile, **told: Settings) -> list[tuple[str, str, str, str]]:
    """Return code, severity, place and sentence; ``told`` by the first label, the others are well."""
    settings = {str(m.name): told.get(str(m.name).split(".")[0], well(str(m.name))) for m in of.members}
    running = {n: Running(frozenset(s), s) for n, s in settings.items()}
    findings = misled(of, modelled(of), running)
    assert all(f.cause and f.remedy for f in findings), findings
    return [(f.code, f.severity, f.place, f.sentence) for f in findings]


def but(name: str, feature: str, **changed: Any) -> Settings:
    settings = well(name)
    return {**settings, feature: {**settings[feature], **changed}}


@pytest.mark.parametrize("kind", ["muster", "foreman"])
def test_members_that_all_send_clients_to_the_cluster_are_no_finding(kind: str) -> None:
    assert found(cluster(kind)) == []


@pytest.mark.parametrize(
    ("feature", "setting", "url"),
    [
        ("registration", "registration_url", f"https://{SECOND}:9090"),
        ("templates", "template_url", f"http://{SECOND}:8000"),
        ("pulpcore", "content_app_url", f"https://{SECOND}/pulp/content"),
        ("pulpcore", "rhsm_url", f"https://{SECOND}/rhsm"),
        # None up to now tells it (docs/facts/smart-proxy-protocol.md §18.1).
        ("container_gateway", "client_endpoint", f"https://{SECOND}"),
        ("registration", "registration_url", "no URL"),
        ("registration", "registration_url", f"https://{ADDRESS}:99999"),
        ("registration", "registration_url", f"ftp://{ADDRESS}"),
        ("pulpcore", "rhsm_url", 5),
    ],
)
@pytest.mark.parametrize("kind", ["muster", "foreman"])
def test_a_url_that_leads_past_the_cluster_is_named_with_what_was_told(
    kind: str, feature: str, setting: str, url: Any
) -> None:
    said = found(cluster(kind), proxy02=but(SECOND, feature, **{setting: url}))
    assert said == [
        (
            "MEMBER-URL",
            "error",
            f"{setting} on {SECOND}",
            f"{SECOND} tells Foreman {setting} {url}, whose host is not {ADDRESS} nor {ALIAS}",
        )
    ]


def test_what_a_recorded_ruby_proxy_tells_is_read() -> None:
    lines = (json.loads(line) for line in RECORDED.read_text().splitlines())
    body = next(r["body"] for r in lines if r["path"] == "/v2/features" and r["status"] == 200)
    told = {n: e["settings"] for n, e in json.loads(body).items() if e["state"] == "running"}
    assert found(cluster(), proxy01=told, proxy02=told, proxy03=told) == [
        (
            "MEMBER-URL-PORT",
            "error",
            f"template_url on {name}",
            f"{name} tells Foreman template_url http://{ADDRESS}:18000, and balancers offer no port 18000; "
            "they offer 80, 443, 8000, 8140, 8141, 9090",
        )
        for name in (FIRST, SECOND, THIRD)
    ]


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"http://{ADDRESS}:9090", "balancers offer smartproxy there, which is TLS"),
        (f"https://{ADDRESS}:8000", "balancers offer anaconda there, which is no TLS"),
        (f"http://{ADDRESS}:0", "balancers offer no port 0"),
    ],
)
def test_a_port_that_speaks_otherwise_is_as_good_as_none(url: str, why: str) -> None:
    ((code, _, _, sentence),) = found(
        cluster(), **{n: but(f"{n}.test", "templates", template_url=url) for n in ("proxy01", "proxy02", "proxy03")}
    )[:1]
    assert (code, why in sentence) == ("MEMBER-URL-PORT", True)


def test_ports_are_those_of_this_cluster() -> None:
    services: dict[str, Any] = {"smartproxy": {"listen_port": 8443, "member_port": 8443}}
    of = cluster(services=services)
    assert {(c, p) for c, _, p, _ in found(of)} == {
        ("MEMBER-URL-PORT", f"registration_url on {n}") for n in (FIRST, SECOND, THIRD)
    }
    new = f"https://{ADDRESS}:8443"
    told = {n: but(f"{n}.test", "registration", registration_url=new) for n in ("proxy01", "proxy02", "proxy03")}
    assert found(of, **told) == []
    services["smartproxy"]["also_listen_ports"] = [9090]
    assert found(cluster(services=services)) == found(cluster(services=services), **told) == []


# The group.


@pytest.mark.parametrize("absent", [None, ""])
def test_one_member_without_a_registration_url_dropped_out_of_the_group(absent: str | None) -> None:
    assert found(cluster(), proxy02=but(SECOND, "registration", registration_url=absent)) == [
        (
            "MEMBER-UNGROUPED",
            "error",
            f"registration_url on {SECOND}",
            f"{SECOND} tells Foreman no registration_url, which is told {REGISTRATION} by {FIRST}",
        )
    ]


def test_nobody_s_registration_url_is_a_warning_of_ruby_members_who_put_their_own_name_there() -> None:
    told = {n: but(f"{n}.test", "registration", registration_url=None) for n in ("proxy01", "proxy02", "proxy03")}
    assert [(c, s) for c, s, *_ in found(cluster(), **told)] == [("MEMBER-UNGROUPED", "warning")] * 3
    assert found(cluster("muster"), **told) == []


def test_where_registration_does_not_run_it_is_missing_and_not_ungrouped() -> None:
    told = well(SECOND)
    del told["registration"]
    assert found(cluster(), proxy02=told) == []


def test_two_registration_hosts_are_two_groups_even_if_both_lead_to_the_cluster() -> None:
    other = f"https://{ALIAS}:9090/"
    ((code, severity, place, sentence),) = found(cluster(), proxy02=but(SECOND, "registration", registration_url=other))
    assert (code, severity, place) == ("MEMBER-URLS-DIFFER", "error", "registration_url")
    assert sentence == (
        f"Members tell Foreman different registration_url: {REGISTRATION} on {FIRST}, {THIRD}; {other} on {SECOND}"
    )
    ((code, severity, *_),) = found(cluster(), proxy02=but(SECOND, "templates", template_url=f"http://{ALIAS}:8000"))
    assert (code, severity) == ("MEMBER-URLS-DIFFER", "warning")


@pytest.mark.parametrize("same", [REGISTRATION + "/", f"https://{ADDRESS.upper()}:9090", f"https://{ADDRESS}.:9090"])
def test_the_same_url_written_otherwise_is_the_same(same: str) -> None:
    assert found(cluster(), proxy02=but(SECOND, "registration", registration_url=same)) == []


# Where a member's own Pulp is.


@pytest.mark.parametrize("setting", ["pulp_url", "pulp_endpoint"])
@pytest.mark.parametrize(
    ("url", "whose"),
    [
        (f"https://{ADDRESS}", "the cluster's, behind which is now this member's Pulp and now another's"),
        (f"https://{ALIAS}/", "the cluster's, behind which is now this member's Pulp and now another's"),
        (f"https://{FIRST}", f"member {FIRST}'s"),
        ("https://elsewhere.test", "none of this member's"),
    ],
)
def test_a_pulp_that_is_not_the_member_s_own(setting: str, url: str, whose: str) -> None:
    feature = "pulpcore" if setting == "pulp_url" else "container_gateway"
    assert found(cluster(), proxy02=but(SECOND, feature, **{setting: url})) == [
        (
            "MEMBER-PULP-URL",
            "error",
            f"{setting} on {SECOND}",
            f"{SECOND} tells Foreman {setting} {url}, whose host is {whose}",
        )
    ]


@pytest.mark.parametrize("url", ["https://PROXY02.test/", "https://192.0.2.2:443"])
def test_its_own_name_or_address_is_its_own(url: str) -> None:
    assert found(cluster(), proxy02=but(SECOND, "pulpcore", pulp_url=url)) == []


@pytest.mark.parametrize(
    ("api", "codes"),
    [
        ("http://127.0.0.1:24817", ["MEMBER-PULP-URL"] * 3),
        ("unix:/run/pulpcore-api.sock", ["MEMBER-PULP-URL"] * 3),
        ("http://{address}:24817", ["MEMBER-PULP-URL"] * 3),
        ("http://pulp.test:24817", []),
        (None, ["MEMBER-PULP-URL"] * 3),
    ],
)
def test_of_members_of_ours_the_cluster_s_name_will_do_when_one_pulp_is_behind_all(
    api: str | None, codes: list[str]
) -> None:
    of = cluster("muster", content={"pulp_api_url": api})
    told = {n: but(f"{n}.test", "pulpcore", pulp_url=f"https://{ADDRESS}") for n in ("proxy01", "proxy02", "proxy03")}
    assert [c for c, *_ in found(of, **told)] == codes


def test_members_of_ours_may_share_a_pulp_on_a_host_of_its_own() -> None:
    assert found(cluster("muster"), proxy02=but(SECOND, "pulpcore", pulp_url="https://pulp.test")) == []


# What is passed over, and what is not repeated.


def test_a_difference_that_the_cluster_file_declares_is_none() -> None:
    declared = [{"field": "registration.settings.*", "members": [SECOND], "reason": "for the DMZ"}]
    of = cluster(expected_differences=declared)
    for url in (None, f"https://{SECOND}:9090", f"https://{ALIAS}:9090"):
        assert found(of, proxy02=but(SECOND, "registration", registration_url=url)) == []
    assert found(of, proxy03=but(THIRD, "registration", registration_url=None)) != []


def test_who_does_not_answer_is_somebody_else_s_business() -> None:
    of = cluster()
    assert misled(of, modelled(of), {FIRST: Running(frozenset(well(FIRST)), well(FIRST))}) == []
    assert misled(of, modelled(of), {}) == []


def test_settings_that_are_told_to_others_only_are_one_warning_where_there_are_any() -> None:
    of = cluster()
    closed = {n: Running(frozenset({"dns", "registration"}), unseen="it tells nobody") for n in (FIRST, SECOND)}
    closed[THIRD] = Running(frozenset({"dns"}), unseen="it tells nobody")
    (one,) = misled(of, modelled(of), closed)
    assert (one.code, one.severity, one.place) == ("MEMBER-URLS-UNSEEN", "warning", f"{FIRST}, {SECOND}")
    assert one.sentence == f"Which URLs {FIRST}, {SECOND} tell Foreman was not looked at: it tells nobody"


def test_a_password_in_a_url_is_not_repeated() -> None:
    url = f"https://admin:hunter2@{SECOND}:9090"
    ((_, _, _, sentence),) = found(cluster(), proxy02=but(SECOND, "registration", registration_url=url))
    assert "hunter2" not in sentence
    assert f"https://…@{SECOND}:9090" in sentence


def test_a_url_cannot_write_on_a_terminal() -> None:
    url = f"https://{ADDRESS}\x1b[31m"
    ((code, *_, sentence),) = found(cluster(), proxy02=but(SECOND, "registration", registration_url=url))
    assert (code, "\x1b" in sentence) == ("MEMBER-URL", False)
