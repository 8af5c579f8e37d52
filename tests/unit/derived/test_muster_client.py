"""What muster-bootstrap is told: the values of the outputs for each program, typed nowhere twice."""

from __future__ import annotations

import json
from typing import Any

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived import apt_sources, dnf_repos, muster_client, puppet_conf, rhsm_conf
from muster.derived.output import Site
from tests.unit.balancer.test_model import document
from tests.unit.derived.test_clients import MIRROR


def told(rest: str) -> tuple[dict[str, Any], dict[str, str]]:
    cluster = document(rest).parsed(ClusterFile)
    served = muster_client.served(modelled(cluster), cluster)
    values: dict[str, Any] = json.loads(served["muster-client.json"])
    assert values == muster_client.values(modelled(cluster), cluster)
    return values, served


def test_they_are_those_of_the_other_outputs() -> None:
    rest = f"signer: proxy02.test\n{MIRROR}"
    cluster = document(rest).parsed(ClusterFile)
    balancing = modelled(cluster)
    values, served = told(rest)
    assert values["address"] == "cluster.test"
    assert values["puppet"] == puppet_conf.values(balancing)
    assert values["puppet"] == {"server": "cluster.test", "ca_server": "cluster.test", "ca_port": "8141"}
    assert values["rhsm"] == rhsm_conf.values(balancing, cluster)
    assert values["repositories"] == {"dnf": "/pub/muster.repo", "apt": "/pub/muster.sources"}
    assert served["muster.repo"] == dnf_repos.rendered(balancing, cluster, Site())
    assert served["muster.sources"] == apt_sources.rendered(balancing, cluster, Site())
    assert values["register"] == "https://cluster.test:9090/register"


def test_what_the_cluster_does_not_have_is_none() -> None:
    off = "services: {https: {enabled: false}, puppet: {enabled: false}, puppetca: {enabled: false}}\n"
    values, served = told(off)
    assert values["puppet"] is values["rhsm"] is None
    assert values["repositories"] == {"dnf": None, "apt": None}
    assert list(served) == ["muster-client.json"]


def test_the_seeds_ports_are_the_seeds() -> None:
    values, _ = told("generation: seed\nsigner: proxy02.test\n")
    assert values["rhsm"]["server"]["port"] == "8443"
    assert values["rhsm"]["rhsm"]["baseurl"] == "https://cluster.test/pulp/repos"
