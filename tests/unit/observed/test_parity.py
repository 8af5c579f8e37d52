from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster.cluster.file import ClusterFile, own_certname
from muster.cluster.sections import ExpectedDifference
from muster.kernel.settings import parse
from muster.observed.parity import (
    ABSENT,
    Drift,
    brief,
    compared,
    fields_of,
    lasting,
    measured,
    of_another_file,
    of_certificate,
    of_muster,
    of_wire,
    openly,
    spoken,
    unneeded,
)
from muster.pki.facts import CertificateFacts

NOW = datetime(2026, 11, 22, tzinfo=UTC)
P1, P2, P3 = "proxy01.example.com", "proxy02.example.com", "proxy03.example.com"
VERSION = {"version": "3.11.0", "modules": {"dns": "3.11.0", "templates": "3.11.0"}}
DNS = {
    "http_enabled": True,
    "https_enabled": True,
    "settings": {"use_provider": "dns_nsupdate"},
    "state": "running",
    "capabilities": ["b", "a"],
}
TEMPLATES = {**DNS, "settings": {"template_url": "http://proxy.example.com:8000"}, "capabilities": []}
OFF = {**DNS, "http_enabled": False, "settings": {"use_provider": None}, "state": "disabled"}


def told(**features: Any) -> dict[str, Any]:
    """Return the facts of a member with these features; they say what DNS and TEMPLATES say unless given."""
    given = {"dns": DNS, "templates": TEMPLATES, **features}
    return of_wire(VERSION, given, [n for n, f in given.items() if f["state"] == "running"])


def drifted(facts: dict[str, Any], *expected: ExpectedDifference) -> dict[str, Drift]:
    return {d.field: d for d in compared(facts, expected)}


def provider(name: str) -> dict[str, Any]:
    return {**DNS, "settings": {"use_provider": name}}


def test_members_that_say_the_same_do_not_drift() -> None:
    facts = {P1: told(), P2: told(), P3: told()}
    assert compared(facts) == []
    assert fields_of(facts) == 1 + 2 * 7


def test_the_member_that_differs_from_most_is_named_with_both_values() -> None:
    found = drifted({P1: told(), P2: told(dns=provider("dns_memory")), P3: told()})
    assert list(found) == ["dns.settings.use_provider"]
    drift = found["dns.settings.use_provider"]
    assert (drift.differing, drift.majority, drift.agreed) == ((P2,), "dns_nsupdate", True)
    assert drift.values == {P1: "dns_nsupdate", P2: "dns_memory", P3: "dns_nsupdate"}
    assert drift.sentence == f"dns.settings.use_provider differs: {P2} has dns_memory, most have dns_nsupdate"


def test_without_a_majority_every_member_differs() -> None:
    (drift,) = compared({P1: told(), P2: told(dns=provider("dns_memory"))})
    assert (drift.differing, drift.majority, drift.agreed) == ((P1, P2), None, False)
    said = f"dns_nsupdate on {P1}, dns_memory on {P2}"
    assert drift.sentence == f"Members disagree about dns.settings.use_provider: {said}"


def test_null_is_a_value_like_any_other() -> None:
    (drift,) = compared({P1: told(dns=provider(None)), P2: told(), P3: told(dns=provider(None))})  # type: ignore[arg-type]
    assert (drift.differing, drift.majority, drift.agreed) == ((P2,), None, True)
    assert "most have nothing" in drift.sentence


def test_a_setting_that_one_member_does_not_expose_is_absent_there() -> None:
    without = {**TEMPLATES, "settings": {}}
    (drift,) = compared({P1: told(), P2: told(), P3: told(templates=without)})
    assert (drift.field, drift.values[P3]) == ("templates.settings.template_url", ABSENT)


@pytest.mark.parametrize("state", ["failed", "disabled"])
def test_a_feature_that_does_not_run_is_one_drift_whatever_else_it_says(state: str) -> None:
    found = drifted({P1: told(), P2: told(dns={**OFF, "state": state}), P3: told()})
    assert list(found) == ["dns.state"]
    assert found["dns.state"].values == {P1: "running", P2: state, P3: "running"}


def test_a_disabled_feature_is_as_good_as_none() -> None:
    bmc = told(bmc=OFF)
    assert compared({P1: told(), P2: bmc}) == []
    assert "bmc" not in bmc


def test_a_feature_only_one_member_has_is_disabled_on_the_others() -> None:
    found = drifted({P1: told(), P2: told(bmc=DNS), P3: told()})
    assert {f: d.values for f, d in found.items()} == {
        "bmc.state": {P1: "disabled", P2: "running", P3: "disabled"},
    }


def test_the_order_of_capabilities_does_not_count_but_a_capability_does() -> None:
    assert compared({P1: told(), P2: told(dns={**DNS, "capabilities": ["a", "b"]})}) == []
    found = drifted({P1: told(), P2: told(dns={**DNS, "capabilities": ["a"]}), P3: told()})
    assert found["dns.capabilities"].values[P2] == ["a"]
    assert found["dns.capabilities"].sentence == f"dns.capabilities differs: {P2} has a, most have a, b"


def test_versions_count_of_the_proxy_and_of_each_module() -> None:
    newer = {"version": "3.12.0", "modules": {"dns": "3.12.0", "templates": "3.11.0"}}
    names = ["dns", "templates"]
    found = drifted({P1: told(), P2: of_wire(newer, {"dns": DNS, "templates": TEMPLATES}, names), P3: told()})
    assert list(found) == ["dns.version", "version"]


def test_a_proxy_too_old_to_tell_its_settings_still_tells_its_features() -> None:
    old = of_wire(VERSION, {}, ["dns"])
    assert old["dns"] == {"state": "running", "listed": True, "version": "3.11.0"}


def test_a_feature_that_runs_and_is_not_listed_differs() -> None:
    unlisted = of_wire(VERSION, {"dns": DNS, "templates": TEMPLATES}, ["templates"])
    assert list(drifted({P1: told(), P2: unlisted, P3: told()})) == ["dns.listed"]


def test_a_member_that_did_not_answer_is_not_held_against_features() -> None:
    silent = {"certificate": {"smartproxy": {"state": "presented", "chain": "TLS-NAME"}}}
    other = {**told(), "certificate": {"smartproxy": {"state": "presented", "chain": "verified"}}}
    assert list(drifted({P1: other, P2: silent, P3: other})) == ["certificate.smartproxy.chain"]


def test_certificates_of_services_that_one_member_alone_serves_are_compared_with_nobody() -> None:
    signer = {**told(), "certificate": {"puppetca": {"state": "presented", "chain": "verified"}}}
    assert compared({P1: signer, P2: told(), P3: told()}) == []


def test_a_port_that_shows_no_certificate_is_one_drift() -> None:
    good = {**told(), "certificate": {"https": {"state": "presented", "chain": "verified", "issuer": "CN=x"}}}
    bad = {**told(), "certificate": {"https": {"state": "TLS-REFUSED"}}}
    assert list(drifted({P1: good, P2: bad, P3: good})) == ["certificate.https.state"]


def test_what_only_members_of_one_kind_know_is_compared_among_them() -> None:
    ours = {**told(), "muster": {"version": "0.1.0"}}
    assert compared({P1: ours, P2: ours, P3: told()}) == []
    newer = {**told(), "muster": {"version": "0.2.0"}}
    assert drifted({P1: ours, P2: newer, P3: told()})["muster.version"].differing == (P1, P2)


EXPECTED = ExpectedDifference(field="dns.settings.*", members=(P2,), reason="its own zone")


def code(**environments: str) -> dict[str, Any]:
    """Return what a member tells whose host has Puppet's code."""
    named = {f"puppet_code.{name}": digest for name, digest in environments.items()}
    return {"version": "3.11.0", "muster": {"version": "1", "puppet_code": "read", **named}}


def test_puppets_code_is_compared_environment_by_environment_among_the_hosts_that_have_any() -> None:
    facts = {
        P1: code(production="a", testing="t"),
        P2: code(production="b", testing="t"),
        P3: code(production="a"),
        "proxy04.example.com": {"version": "3.11.0", "muster": {"version": "1"}},
        "ruby.example.com": {"version": "3.11.0"},
    }
    found = drifted(facts)
    assert {f: (d.differing, d.majority) for f, d in found.items()} == {
        "muster.puppet_code.production": ((P2,), "a"),
        "muster.puppet_code.testing": ((P3,), "t"),
    }
    assert found["muster.puppet_code.testing"].values == {P1: "t", P2: "t", P3: ABSENT}
    assert compared({P1: facts[P1], "proxy04.example.com": facts["proxy04.example.com"]}) == []


@pytest.mark.parametrize("state", ["absent", "unreadable"])
def test_a_host_whose_puppet_code_cannot_be_read_is_one_drift(state: str) -> None:
    without = {"version": "3.11.0", "muster": {"version": "1", "puppet_code": state}}
    found = drifted({P1: code(production="a", testing="t"), P2: code(production="a", testing="t"), P3: without})
    assert {f: d.differing for f, d in found.items()} == {"muster.puppet_code": (P3,)}
    assert found["muster.puppet_code"].sentence == f"muster.puppet_code differs: {P3} has {state}, most have read"


def test_a_declared_difference_is_shown_with_its_reason_and_is_no_drift() -> None:
    facts = {P1: told(), P2: told(dns=provider("dns_memory"))}
    (drift,) = compared(facts, [EXPECTED])
    assert (drift.differing, drift.expected) == ((), {P2: "its own zone"})
    assert drift.sentence == f"{P2}: dns.settings.use_provider differs as expected (its own zone)"
    assert unneeded([drift], [EXPECTED]) == []


def test_a_declared_difference_excuses_its_members_only_and_does_not_vote() -> None:
    facts = {P1: told(), P2: told(dns=provider("dns_memory")), P3: told(dns=provider("dns_memory"))}
    (drift,) = compared(facts, [EXPECTED])
    assert (drift.differing, drift.agreed, drift.expected) == ((P1, P3), False, {P2: "its own zone"})


def test_a_declared_difference_without_members_excuses_all_and_one_field_only() -> None:
    for_all = ExpectedDifference(field="version", reason="mixed kinds")
    other = of_wire({**VERSION, "version": "3.11.0-develop"}, {"dns": provider("x"), "templates": TEMPLATES}, [])
    found = drifted({P1: told(), P2: other, P3: told()}, for_all)
    assert found["version"].differing == ()
    assert found["version"].expected == {P2: "mixed kinds"}
    assert found["dns.settings.use_provider"].differing == (P2,)


def test_names_in_a_declared_difference_match_in_any_case() -> None:
    shouted = ExpectedDifference.model_validate({**EXPECTED.model_dump(), "members": [P2.upper()]})
    (drift,) = compared({P1: told(), P2: told(dns=provider("dns_memory"))}, [shouted])
    assert drift.differing == ()


def test_a_declared_difference_that_nobody_shows_is_unneeded() -> None:
    assert unneeded(compared({P1: told(), P2: told()}, [EXPECTED]), [EXPECTED]) == [EXPECTED]


CERTIFICATE = CertificateFacts(
    subject_cn=P1,
    names=(P1, "proxy.example.com"),
    addresses=("192.0.2.11",),
    issuer="CN=CA",
    not_before=NOW - timedelta(days=1),
    not_after=NOW + timedelta(days=90),
    serial=1,
    fingerprint_sha256="ab",
    is_ca=False,
    key="EC secp256r1",
)


def test_certificates_that_differ_only_in_the_members_own_names_are_alike() -> None:
    mine = of_certificate(CERTIFICATE, (P1, "192.0.2.11"), NOW)
    other = replace(CERTIFICATE, subject_cn=P2, names=(P2.upper(), "proxy.example.com"), serial=2)
    later = replace(other, not_after=NOW + timedelta(days=89))
    assert of_certificate(later, (f"{P2}.", "192.0.2.12"), NOW) == mine
    assert "proxy.example.com" in mine["names"]


@pytest.mark.parametrize("domain", ["example.com", f"{'long.' * 12}example.com"])
def test_certificates_that_the_members_puppet_cas_issue_to_themselves_are_alike(domain: str) -> None:
    def facts(member: str) -> dict[str, Any]:
        own = own_certname(member)
        shown = replace(CERTIFICATE, subject_cn=own, names=(member, "proxy.example.com", own))
        return of_certificate(shown, (member,), NOW)

    first, second = f"proxy01.{domain}", f"proxy02.{domain}"
    assert facts(first) == facts(second)
    assert facts(first)["names"] == ["(its own name)", "proxy.example.com"]
    # Another member's is a drift, whoever it is issued to.
    shown = replace(CERTIFICATE, subject_cn=own_certname(second), names=(first, "proxy.example.com"))
    assert of_certificate(shown, (first,), NOW)["subject"] == own_certname(second)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"names": (P1,)}, "names"),
        ({"names": (P1, "proxy.example.com", "other.example.com")}, "names"),
        ({"issuer": "CN=Other CA"}, "issuer"),
        ({"key": "RSA 2048"}, "key"),
        ({"subject_cn": "somebody.example.com"}, "subject"),
        ({"not_after": NOW - timedelta(seconds=1)}, "expires"),
        ({"not_after": NOW + timedelta(days=6)}, "expires"),
    ],
)
def test_certificates_differ_in(changes: dict[str, Any], field: str) -> None:
    mine = of_certificate(CERTIFICATE, (P1,), NOW)
    other = of_certificate(replace(CERTIFICATE, **changes), (P1,), NOW)
    assert [k for k in mine if mine[k] != other[k]] == [field]


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (timedelta(seconds=-1), "expired"),
        (timedelta(hours=23), "within 1 day"),
        (timedelta(days=6), "within 7 days"),
        (timedelta(days=29), "within 30 days"),
        (timedelta(days=30), "in more than 30 days"),
    ],
)
def test_the_end_of_a_certificate_counts_by_its_nearness(left: timedelta, said: str) -> None:
    assert of_certificate(replace(CERTIFICATE, not_after=NOW + left), (), NOW)["expires"] == said


def cluster(**changes: Any) -> ClusterFile:
    return ClusterFile.model_validate(
        {
            "schema": 1,
            "cluster": "demo",
            "address": "proxy.example.com",
            "store": {"url": "sqlite:///a.db"},
            "members": [{"id": 1, "name": P1, "address": "127.0.0.11"}],
            **changes,
        }
    )


def test_a_cluster_file_counts_by_its_meaning() -> None:
    mine = of_muster("0.1.0", 1, cluster())
    assert of_muster("0.1.0", 1, cluster(generation="installer")) == mine
    assert of_muster("0.1.0", 1, cluster(store={"url": "sqlite:///b.db"})) == mine
    assert of_muster("0.1.0", 1, cluster(generation="seed")) != mine
    assert of_muster("0.1.0", 1, cluster(features={"dns": {"provider": "memory"}})) != mine


def test_facts_in_the_store_are_flat_and_short_and_equal_when_the_facts_are() -> None:
    long = ["x" * 100]
    facts = brief({"dns": {"state": "running", "settings": {"use_provider": long}}, "version": None})
    assert facts == {
        "dns.state": "running",
        "dns.settings.use_provider": facts["dns.settings.use_provider"],
        "version": None,
    }
    assert len(facts["dns.settings.use_provider"]) == 16
    assert brief({"a": list(long)})["a"] == facts["dns.settings.use_provider"]
    assert brief({"a": ["y" * 100]})["a"] != facts["dns.settings.use_provider"]


def test_brief_facts_drift_where_the_facts_do() -> None:
    facts = {P1: told(), P2: told(dns=provider("dns_memory")), P3: told(bmc=DNS)}
    short = {m: brief(f) for m, f in facts.items()}
    assert [(d.field, d.differing) for d in compared(short)] == [(d.field, d.differing) for d in compared(facts)]
    assert len(compared(facts)) == 2


def test_values_are_spoken_as_a_person_reads_them() -> None:
    assert [spoken(v) for v in (None, [], ["a", 1], True, 3, "x")] == ["nothing", "nothing", "a, 1", "true", "3", "x"]


def test_what_a_proxy_says_of_itself_can_neither_break_the_comparison_nor_reach_the_terminal_raw() -> None:
    odd = of_wire({"version": 3, "modules": "many"}, {"dns": {"capabilities": 7, "state": ["x"], "\x1b[2J": 1}}, [])
    found = compared({P1: told(), P2: odd, P3: {**told(), "evil": "\x1b[2J"}})
    assert any("\\x1b" in d.field for d in compared({P1: of_wire(VERSION, {"\x1b": DNS}, []), P2: told()}))
    assert "\x1b" not in "".join(d.field + d.sentence for d in found) + spoken(["\x1b[2J"])


def test_what_only_trusted_hosts_are_told_can_be_left_out_and_the_rest_is_as_it_was() -> None:
    facts = {**told(), "certificate": {"smartproxy": {"names": ["a"]}}, "muster": {"schema": "1"}}
    left = openly(facts)
    assert left["dns"] == {"state": "running", "listed": True, "version": "3.11.0"}
    assert {n: left[n] for n in ("version", "certificate", "muster")} == {
        n: facts[n] for n in ("version", "certificate", "muster")
    }
    assert compared({P1: told(), P2: told(dns=provider("dns_memory"))}) != []
    assert compared({P1: openly(told()), P2: openly(told(dns=provider("dns_memory")))}) == []


def test_a_drift_says_everything_as_json() -> None:
    (drift,) = compared({P1: told(), P2: told(dns=provider("dns_memory"))}, [EXPECTED])
    assert drift.as_json() == {
        "field": "dns.settings.use_provider",
        "values": {P1: "dns_nsupdate", P2: "dns_memory"},
        "majority": "dns_nsupdate",
        "agreed": True,
        "differing": (),
        "expected": {P2: "its own zone"},
        "sentence": drift.sentence,
        "lasted_s": 0.0,
    }


@pytest.mark.parametrize(
    ("lasted_s", "said"),
    [
        (0, ""),
        (59.9, ""),
        (60, ", for 1 minute or longer"),
        (3599, ", for 59 minutes or longer"),
        (7200, ", for 2 hours or longer"),
        (86_400, ", for 1 day or longer"),
        (10 * 86_400, ", for 10 days or longer"),
    ],
)
def test_how_long_members_differ_is_said_in_one_unit(lasted_s: float, said: str) -> None:
    assert lasting(lasted_s) == said


def test_members_with_another_cluster_file_than_ours_are_named() -> None:
    cluster = parse(FILE).parsed(ClusterFile)
    ours = of_muster("1.0", 3, cluster)
    changed = of_muster("1.0", 3, cluster.model_copy(update={"min_ready": 0}))
    told = {
        "p1.test": brief({"muster": ours}), "p2.test": brief({"muster": changed}),
        "p3.test": brief({"muster": {**changed, "version": "0.9"}}), "gone.test": brief({"muster": changed}),
    }  # fmt: skip
    assert of_another_file(cluster, told, "1.0") == ["p2.test"]
    assert of_another_file(cluster, {"p4.test": {}}, "1.0") == []


FILE = """
schema: 1
cluster: demo
address: cluster.test
store: {url: sqlite:////nowhere/x.db}
members:
- {id: 1, name: p1.test, address: 127.0.0.11}
- {id: 2, name: p2.test, address: 127.0.0.12}
- {id: 3, name: p3.test, address: 127.0.0.13}
- {id: 4, name: p4.test, address: 127.0.0.14}
"""


def test_a_secret_of_a_feature_is_no_fact_but_that_there_is_one_is() -> None:
    def pulp(password: str | None) -> dict[str, object]:
        settings = {"pulp_url": "https://pulp.test", "username": "admin", "password": password}
        return of_wire(VERSION, {"pulpcore": {"state": "running", "settings": settings}}, ["pulpcore"])

    assert "hunter2" not in str(pulp("hunter2"))
    assert pulp("hunter2")["pulpcore"]["settings"]["username"] == "admin"  # type: ignore[index]
    (drift,) = compared({P1: pulp("hunter2"), P2: pulp(None), P3: pulp("hunter3")})
    assert (drift.field, drift.differing) == ("pulpcore.settings.password", (P2,))


def test_members_are_measured_by_what_is_right_also_where_most_have_something_else() -> None:
    found = measured("content./r", {"a": "old", "b": "old", "c": "new"}, "new", "shown is")
    assert found is not None
    assert (found.differing, found.majority) == (("a", "b"), "new")
    assert found.sentence == "content./r differs: a has old, b has old, shown is new"
    assert measured("content./r", {"a": "new"}, "new", "shown is") is None
    declared = ExpectedDifference(field="content.*", members=("a",), reason="far away")
    found = measured("content./r", {"a": "old", "b": "new"}, "new", "shown is", [declared])
    assert found is not None
    assert (found.differing, found.expected) == ((), {"a": "far away"})
