from __future__ import annotations

import xml.etree.ElementTree as ET

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.firewalld import OUTPUT
from muster.derived.output import Site
from tests.unit.balancer.test_model import document
from tests.unit.derived.test_reach import TWO

REST = TWO + "network: {foreman: [10.0.0.5/32], clients: [10.0.0.0/8, 'fd00::/8'], direct: [10.9.0.0/16]}\n"
OPEN = TWO + "network: {foreman: [10.0.0.5/32]}\n"


def files(rest: str = REST) -> dict[str, ET.Element]:
    cluster = document(rest).parsed(ClusterFile)
    return {d.name: ET.fromstring(d.text) for d in OUTPUT.rendered(modelled(cluster), cluster, Site())}  # noqa: S314 - our own


def ports(policy: ET.Element, verdict: str) -> set[str]:
    return {p.attrib["port"] for r in policy.iter("rule") if r.find(verdict) is not None for p in r.iter("port")}


def test_every_ipset_that_a_policy_names_is_there_and_of_the_rules_family() -> None:
    found = files()
    named = {
        (name.partition("/policies/")[0], source.attrib["ipset"], rule.attrib["family"])
        for name, policy in found.items()
        if "/policies/" in name
        for rule in policy.iter("rule")
        for source in rule.iter("source")
    }
    families = {"inet": "ipv4", "inet6": "ipv6"}
    made = {
        (host, file.removesuffix(".xml"), families[ipset.find("option").attrib["value"]])  # type: ignore[union-attr]
        for name, ipset in found.items()
        for host, slash, file in [name.partition("/ipsets/")]
        if slash
    }
    assert named == made


def test_what_is_opened_to_some_is_refused_to_others_afterwards() -> None:
    for name, policy in files().items():
        if "/policies/" not in name:
            continue
        assert ports(policy, "accept") == ports(policy, "reject")
        for rule in policy.iter("rule"):
            assert (int(rule.attrib["priority"]) > 0) is (rule.find("reject") is not None)
            # firewalld takes the way of refusing for one family only.
            assert rule.find("reject") is None or "family" in rule.attrib
    assert ports(files()["proxy02.test/policies/muster.xml"], "accept") == {"80", "443", "8000", "8140", "9090"}


def test_clients_that_nobody_named_are_all() -> None:
    policy = files(OPEN)["balancers/lb2/policies/muster-clients.xml"]
    assert ports(policy, "reject") == set()
    assert not list(policy.iter("source"))


def test_policies_come_before_zones_and_leave_them_what_is_not_theirs() -> None:
    for name, policy in files().items():
        if "/policies/" in name:
            assert int(policy.attrib["priority"]) < 0
            assert policy.attrib["target"] == "CONTINUE"


def test_only_clients_come_in_by_the_zone_that_is_named() -> None:
    found = files(REST.replace("network: {", "network: {firewall_zone: external, "))
    zones = {n: z.attrib["name"] for n, p in found.items() for z in p.iter("ingress-zone")}
    assert zones["balancers/lb1/policies/muster-clients.xml"] == "external"
    assert {z for n, z in zones.items() if not n.endswith("muster-clients.xml")} == {"ANY"}


def test_balancers_hear_each_other() -> None:
    policy = files()["balancers/lb2/policies/muster.xml"]
    assert [p.attrib["value"] for p in policy.iter("protocol")] == ["vrrp"]
    entries = [e.text for e in files()["balancers/lb2/ipsets/muster-balancers-4.xml"].iter("entry")]
    assert entries == ["10.0.0.7"]
