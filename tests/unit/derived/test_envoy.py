from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.balancer.model import Balancing
from muster.cluster.file import Balancer, ClusterFile
from muster.derived.envoy import EnvoyPaths, lacks, rendered
from muster.kernel.errors import Rejected
from tests.unit.balancer.test_model import document

PATHS = EnvoyPaths(Path("/etc/muster/envoy"), Path("/run/muster"), Path("/etc/muster/pki/balancer"))


def model(rest: str = "") -> Balancing:
    return modelled(document(rest).parsed(ClusterFile))


def files(rest: str = "", *, bind: str = "*", of: Balancing | None = None) -> dict[str, Any]:
    which = Balancer.model_validate({"name": "lb1", "address": "10.0.0.9", "bind": bind, "maxconn": 500})
    return json.loads(json.dumps(dict(rendered(of or model(rest), which=which, paths=PATHS))))  # type: ignore[no-any-return]


def resource(of: dict[str, Any], file: str, name: str) -> dict[str, Any]:
    (found,) = [r for r in of[file]["resources"] if name in (r.get("name"), r.get("cluster_name"))]
    assert isinstance(found, dict)
    return found


def everywhere(of: Any) -> list[dict[str, Any]]:
    below = list(of.values()) if isinstance(of, dict) else of if isinstance(of, list) else []
    return ([of] if isinstance(of, dict) else []) + [x for b in below for x in everywhere(b)]


def test_every_file_that_is_named_is_there_and_every_cluster_too() -> None:
    it = files("generation: seed\n")
    watched = {x["path_config_source"]["path"] for x in everywhere(it) if "path_config_source" in x}
    assert watched == {f"/etc/muster/envoy/{name}" for name in it if name != "bootstrap.json"}
    clusters = {r["name"] for r in it["clusters.json"]["resources"]}
    proxied = {x["cluster"] for x in everywhere(it["listeners.json"]) if "stat_prefix" in x}
    assert proxied == clusters == {s.name for s in model("generation: seed\n").services}


def test_every_resource_says_its_type_and_an_endpoints_file_holds_one() -> None:
    it = files()
    kinds = {
        "listeners.json": "config.listener.v3.Listener",
        "clusters.json": "config.cluster.v3.Cluster",
        "endpoints-https.json": "config.endpoint.v3.ClusterLoadAssignment",
    }
    for name, kind in kinds.items():
        assert {r["@type"] for r in it[name]["resources"]} == {f"type.googleapis.com/envoy.{kind}"}
    assert all(len(it[n]["resources"]) == 1 for n in it if n.startswith("endpoints-"))


def test_members_are_asked_over_mutual_tls_on_their_own_port_and_clients_bytes_pass_untouched() -> None:
    it = files("services:\n  smartproxy: {member_port: 9443}\n")
    puppet = resource(it, "clusters.json", "puppet")
    (check,) = puppet["health_checks"]
    assert check["http_health_check"] == {"host": "cluster.test", "path": "/health/ready?service=puppet"}
    criteria = check["transport_socket_match_criteria"]
    (asking,) = [m for m in puppet["transport_socket_matches"] if m["match"] == criteria]
    tls = asking["transport_socket"]["typed_config"]
    assert tls["sni"] == "cluster.test"
    assert tls["common_tls_context"]["validation_context"]["trusted_ca"] == {
        "filename": "/etc/muster/pki/balancer/ca.pem"
    }
    last = puppet["transport_socket_matches"][-1]
    assert (last["match"], last["transport_socket"]["name"]) == ({}, "envoy.transport_sockets.raw_buffer")
    ours, theirs = resource(it, "endpoints-puppet.json", "puppet")["endpoints"][0]["lb_endpoints"]
    assert ours["endpoint"]["health_check_config"] == {"port_value": 9443}
    assert theirs["endpoint"]["health_check_config"] == {"disable_active_health_check": True}


def test_only_our_members_own_ports_get_a_version_two_header() -> None:
    it = files()
    for service in model().services:
        for endpoint in resource(it, f"endpoints-{service.name}.json", service.name)["endpoints"][0]["lb_endpoints"]:
            proxied = "envoy.transport_socket_match" in endpoint["metadata"]["filter_metadata"]
            ours = endpoint["endpoint"]["hostname"] == "proxy01.test"
            assert proxied == (ours and service.name in ("smartproxy", "anaconda"))
    assert {x["version"] for x in everywhere(it) if "version" in x} == {"V2"}


def test_source_is_a_ring_whose_keys_are_the_permanent_numbers() -> None:
    it = files()
    assert resource(it, "clusters.json", "https")["lb_policy"] == "RING_HASH"
    chain = resource(it, "listeners.json", "https")["filter_chains"][0]
    assert chain["filters"][0]["typed_config"]["hash_policy"] == [{"source_ip": {}}]
    endpoints = resource(it, "endpoints-https.json", "https")["endpoints"][0]["lb_endpoints"]
    assert [e["metadata"]["filter_metadata"]["envoy.lb"]["hash_key"] for e in endpoints] == ["11", "12"]


def test_only_tls_waits_for_a_client_hello() -> None:
    it = files()
    https, http = resource(it, "listeners.json", "https"), resource(it, "listeners.json", "http")
    assert https["filter_chains"][0]["filter_chain_match"] == {"transport_protocol": "tls"}
    assert https["listener_filters_timeout"] == "5s"
    assert "filter_chain_match" not in http["filter_chains"][0]


def test_all_members_serve_when_no_check_succeeds_and_one_that_left_the_file_leaves_at_once() -> None:
    for cluster in files()["clusters.json"]["resources"]:
        assert cluster["common_lb_config"]["healthy_panic_threshold"]["value"] < 100 / 200
        assert cluster["ignore_health_on_host_removal"] is True


def test_members_that_are_names_are_resolved_by_envoy() -> None:
    it = files("services:\n  http: {maxconn_per_member: 9}\n", of=None)
    assert "endpoints-http.json" in it
    named = model()
    first = named.services[0]
    servers = (replace(first.servers[0], address="proxy01.test"), *first.servers[1:])
    it = files(of=replace(named, services=(replace(first, servers=servers),)))
    assert "endpoints-http.json" not in it
    assert resource(it, "clusters.json", "http")["type"] == "STRICT_DNS"


def test_limits_are_the_balancers_and_the_members() -> None:
    it = files("services:\n  http: {maxconn_per_member: 9}\n")
    breakers = resource(it, "clusters.json", "http")["circuit_breakers"]
    assert breakers["thresholds"][0]["max_connections"] == 500
    assert breakers["per_host_thresholds"] == [{"max_connections": 9}]
    assert {
        x["max_active_downstream_connections"] for x in everywhere(it) if "max_active_downstream_connections" in x
    } == {500}


def test_what_envoy_lacks_is_said() -> None:
    said = " ".join(lacks(model(), Balancer(address="10.0.0.9", metrics_port=9101)))
    for words in ("One client address", "metrics", "http, https"):
        assert words in said


@pytest.mark.parametrize("bad", ["x\ny", "a b", "${x}", "", 'x"y'])
def test_nothing_hostile_reaches_the_files(bad: str) -> None:
    good = model()
    first = good.services[0]
    for spoilt in (
        replace(good, cluster=bad),
        replace(good, address=bad),
        replace(good, services=(replace(first, name=bad),)),
        replace(good, services=(replace(first, servers=(replace(first.servers[0], name=bad),)),)),
        replace(good, services=(replace(first, servers=(replace(first.servers[0], address=bad),)),)),
    ):
        with pytest.raises(Rejected):
            files(of=spoilt)


def test_the_ports_of_a_service_lead_to_the_same_servers() -> None:
    it = files("services: {smartproxy: {also_listen_ports: [8443]}}\n")
    found = resource(it, "listeners.json", "smartproxy")
    assert found["address"]["socket_address"]["port_value"] == 9090
    assert [one["address"]["socket_address"]["port_value"] for one in found["additional_addresses"]] == [8443]
