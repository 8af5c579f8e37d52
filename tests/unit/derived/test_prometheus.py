from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Site
from muster.derived.prometheus import OUTPUT, alerts, rules, scraped
from muster.kernel.errors import Misconfigured
from muster.kernel.settings import parse
from tests.unit.balancer.test_model import document

HEAD = """\
schema: 1
cluster: demo
address: cluster.test
store: {url: sqlite:////nowhere/x.db}
"""
LB = "balancers: [{name: lb1, address: 10.0.0.7, metrics_port: 8405}, {name: lb2, address: 10.0.0.8}]\n"
OURS = (
    HEAD + "members: [{id: 1, name: proxy01.test, address: 10.0.0.1}, {id: 2, name: proxy02.test, address: 10.0.0.2}]\n"
)
RUBY = HEAD + "members: [{id: 1, name: proxy01.test, address: 10.0.0.1, kind: foreman}]\n"


def cluster(text: str) -> ClusterFile:
    return parse(text).parsed(ClusterFile)


def jobs(of: ClusterFile) -> dict[str, Any]:
    return {job["job_name"]: job for job in scraped(modelled(of), of)["scrape_configs"]}


def named(text: str) -> dict[str, list[str]]:
    of = cluster(text)
    return {group: [a.name for a in found] for group, found in alerts(modelled(of), of).items()}


def expressions(text: str, name: str) -> list[str]:
    of = cluster(text)
    found = (rule for group in rules(modelled(of), of)["groups"] for rule in group["rules"])
    return [rule["expr"] for rule in found if rule["alert"] == name]


def test_members_of_ours_are_asked_at_their_own_ports_by_the_clusters_name() -> None:
    of = document("generation: foremanctl\n" + LB).parsed(ClusterFile)
    job = jobs(of)["muster-demo"]
    # The Ruby member has no metrics.
    assert job["static_configs"] == [
        {"targets": ["10.0.0.1:8443"], "labels": {"instance": "Proxy01.test", "cluster": "demo"}}
    ]
    assert (job["scheme"], job["tls_config"]["server_name"]) == ("https", "cluster.test")
    moved = cluster(OURS.replace("address: 10.0.0.1}", "address: 'fd00::1', ports: {smartproxy: 8443}}"))
    assert jobs(moved)["muster-demo"]["static_configs"][0]["targets"] == ["[fd00::1]:8443"]


def test_balancers_are_asked_where_their_exporter_listens() -> None:
    job = jobs(cluster(OURS + LB))["muster-balancers-demo"]
    assert job["static_configs"] == [{"targets": ["10.0.0.7:8405"], "labels": {"instance": "lb1", "cluster": "demo"}}]
    bound = LB.replace("metrics_port", "bind: 127.0.0.1, metrics_port")
    assert jobs(cluster(OURS + bound))["muster-balancers-demo"]["static_configs"][0]["targets"] == ["127.0.0.1:8405"]


def test_a_cluster_without_metrics_has_no_configuration() -> None:
    with pytest.raises(Misconfigured, match="metrics_port"):
        jobs(cluster(RUBY))
    assert list(jobs(cluster(RUBY + LB))) == ["muster-balancers-demo"]


def test_only_what_the_cluster_has_is_watched() -> None:
    assert list(named(OURS)) == ["members", "certificates"]
    assert list(named(OURS + "authority: {}\ncontent: {}\n" + LB)) == [
        *("members", "certificates", "puppet-ca", "content", "balancers")
    ]
    assert list(named(RUBY + LB)) == ["balancers"]


def test_members_speak_of_services_that_are_theirs_alone() -> None:
    count = len(modelled(cluster(OURS + "signer: proxy01.test\n")).services)
    assert len(expressions(OURS + "signer: proxy01.test\n", "MusterServiceDown")) == count
    # Of a Ruby member nobody among them knows.
    mixed = OURS.replace("address: 10.0.0.2}", "address: 10.0.0.2, kind: foreman}") + "signer: proxy01.test\n"
    (left,) = expressions(mixed, "MusterServiceDown")
    assert 'service="puppetca",instance=~"(?i:proxy01\\\\.test)"' in left
    assert expressions(mixed, "MusterServiceShort") == []


def test_a_service_is_short_when_one_failure_more_is_too_many() -> None:
    (one,) = expressions(OURS, "MusterServiceShort")
    assert one.endswith("> 0 <= 1")
    (two,) = expressions(OURS + "min_ready: 2\n", "MusterServiceShort")
    assert two.endswith("> 0 <= 2")
    # Who has one member is always short.
    alone = HEAD + "members: [{id: 1, name: proxy01.test, address: 10.0.0.1}]\n"
    assert expressions(alone, "MusterServiceShort") == []


def test_a_list_is_old_when_members_should_have_renewed_it_long_ago() -> None:
    (usual,) = expressions(OURS + "authority: {}\n", "MusterRevocationListOld")
    assert usual.endswith(f"< {15 * 86_400}")
    (short,) = expressions(OURS + "authority: {crl_ttl_days: 10}\n", "MusterRevocationListOld")
    assert short.endswith(f"< {86_400}")


def test_every_expression_looks_at_this_cluster_alone() -> None:
    of = cluster(OURS + "authority: {}\ncontent: {}\n" + LB)
    for group in rules(modelled(of), of)["groups"]:
        for rule in group["rules"]:
            metrics = re.findall(r"\b[a-z_]+\{([^}]*)\}", rule["expr"])
            assert metrics, rule
            assert all(labels.startswith('cluster="demo"') for labels in metrics), rule
            assert rule["labels"]["cluster"] == "demo"
            assert rule["annotations"]["summary"].endswith(".")
            assert rule["annotations"]["description"]


def test_documents_are_yaml_and_hold_no_key() -> None:
    of = cluster(OURS + LB)
    texts = {d.name: d.text for d in OUTPUT.rendered(modelled(of), of, Site())}
    assert list(texts) == ["muster-rules.yml", "prometheus.yml"]
    assert yaml.safe_load(texts["prometheus.yml"]) == scraped(modelled(of), of)
    assert yaml.safe_load(texts["muster-rules.yml"]) == rules(modelled(of), of)
    assert yaml.safe_load(texts["prometheus.yml"])["rule_files"] == ["muster-rules.yml"]
    assert "key_file: /etc/prometheus/muster/key.pem" in texts["prometheus.yml"]
