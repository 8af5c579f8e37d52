from __future__ import annotations

import json
from dataclasses import replace

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.table import Table, lines, tabled
from muster.kernel.errors import Rejected
from muster.kernel.settings import parse
from tests.unit.balancer.test_model import HEAD, document


def table(rest: str = "") -> Table:
    of = document(rest).parsed(ClusterFile)
    return tabled(of, modelled(of))


def test_every_service_stands_with_ports_members_and_what_to_ask() -> None:
    puppetca = next(s for s in table().services if s.name == "puppetca")
    ours, theirs = puppetca.members
    assert (puppetca.listen_port, ours.port, ours.check, ours.check_port) == (8141, 8140, "HTTPS GET", 9090)
    assert ours.path == "/health/ready?service=puppetca"
    assert (theirs.check, theirs.check_port, theirs.path) == ("HTTPS GET", 8140, "/status/v1/simple/ca")
    assert (theirs.expects, theirs.verified, theirs.client_certificate) == ("status 200 with running", False, False)
    assert puppetca.beside == "HTTPS GET port 8140/status/v1/simple/ca, status 200 with running"


def test_members_that_ask_another_port_beside_them_are_named() -> None:
    both = HEAD.replace(", kind: foreman}", ", ports: {puppet: 18140}}") + "authority: {}\n"
    of = parse(both).parsed(ClusterFile)
    it = tabled(of, modelled(of))
    said = next(s.beside for s in it.services if s.name == "puppet")
    asked = "/status/v1/simple, status 200 with running"
    assert said == f"HTTPS GET port 8140{asked}; proxy02.test: HTTPS GET port 18140{asked}"
    assert next(s.beside for s in it.services if s.name == "smartproxy") == ""


def test_how_each_program_is_asked_is_said() -> None:
    it = table("generation: seed\nservices:\n  puppet: {check: {ca_file: /etc/puppet/ca.pem}}\n  https: {check: tcp}\n")
    said = {s.name: lines(replace(it, services=(s,)))[-7:] for s in it.services}
    wanted = {
        "http": "TCP connect 10.0.0.2:80 ",
        "anaconda": "HTTP GET 10.0.0.2:8000/version ",
        "rhsm": "TLS handshake 10.0.0.2:8443 ",
        "amqp": "TCP connect 10.0.0.2:5647 ",
        "puppet": "HTTPS GET 10.0.0.2:8140/status/v1/simple, status 200 with running, certificate of /etc/puppet/ca.pem ",
        "puppetca": "HTTPS GET 10.0.0.2:8140/status/v1/simple/ca, status 200 with running, any certificate ",
    }
    for name, words in wanted.items():
        assert any(words in line for line in said[name]), said[name]


def test_checks_need_a_header_only_where_members_refuse_without() -> None:
    accepted = {m.proxy for s in table().services for m in s.members}
    assert accepted == {"no", "may"}
    assert not any(m.check_needs_proxy for s in table().services for m in s.members)
    required = table("edge: {proxy_protocol: required}\n")
    assert {m.proxy for s in required.services for m in s.members} == {"no", "must"}
    assert {m.name for s in required.services for m in s.members if m.check_needs_proxy} == {"proxy01.test"}


def test_the_table_for_people_says_what_the_one_for_programs_says() -> None:
    it = table("generation: seed\nbalancers: [{address: 10.0.0.9}]\n")
    said = "\n".join(lines(it))
    for service in it.services:
        assert f"{service.name}: port {service.listen_port}, " in said
    assert "HTTPS GET 10.0.0.1:9090/health/ready?service=docker" in said
    assert "HTTPS GET 10.0.0.2:9090/version, client certificate" in said
    assert "10.0.0.9" in said
    assert json.loads(json.dumps(it.as_json()))["services"][2]["spread"] == "persistence by source address"


def test_no_name_can_break_a_line() -> None:
    of = document().parsed(ClusterFile)
    good = modelled(of)
    with pytest.raises(Rejected):
        tabled(of, replace(good, services=(replace(good.services[0], name="a\nb"),)))
    first = good.services[0]
    with pytest.raises(Rejected):
        tabled(of, replace(good, services=(replace(first, servers=(replace(first.servers[0], name="x y"),)),)))


def test_all_ports_of_a_service_are_said() -> None:
    it = table("services: {smartproxy: {also_listen_ports: [8443]}}\n")
    assert any(line.startswith("smartproxy: port 9090 and 8443, TLS") for line in lines(it))
