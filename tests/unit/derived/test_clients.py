"""What hosts are told of the cluster: rhsm.conf, yggdrasil, reports, repositories, sources, records, lines of hosts."""

from __future__ import annotations

import configparser
import importlib
import shlex
import tomllib
from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Site
from muster.derived.outputs import output
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.settings import parse
from tests.unit.balancer.test_model import HEAD, document

MIRROR = """\
content:
  mirror:
    environments: [library, production]
    repositories:
      baseos: {kind: yum, url: https://origin.example.net/baseos}
      debian: {kind: deb, url: https://origin.example.net/debian, suites: [bookworm, bookworm-updates], components: [main],
        architectures: [amd64, all]}
services: {https: {}, puppet: {}}
"""


def documents(file: str, rest: str, *, member: str | None = None, **given: Any) -> tuple[Document, ...]:
    cluster = document(rest).parsed(ClusterFile)
    output = importlib.import_module(f"muster.derived.{file}").OUTPUT
    return tuple(output.rendered(modelled(cluster), cluster, Site(member=member, given=given)))


def text(file: str, rest: str, **given: Any) -> str:
    (found,) = documents(file, rest, **given)
    return found.text


@pytest.mark.parametrize(
    ("rest", "port", "baseurl"),
    [
        ("generation: seed\n", "8443", "https://cluster.test/pulp/repos"),
        ("", "443", "https://cluster.test/pulp/content"),
        ("generation: foremanctl\n", "443", "https://cluster.test/pulp/content"),
        ("services: {https: {listen_port: 7443}}\n", "7443", "https://cluster.test:7443/pulp/content"),
    ],
)
def test_subscriptions_and_repositories_are_at_the_address_of_the_generation(
    rest: str, port: str, baseurl: str
) -> None:
    """docs/facts/deployment.md §4.3: the seed's values, and today's."""
    read = configparser.ConfigParser(interpolation=None)
    read.read_string(text("rhsm_conf", f"signer: proxy02.test\n{rest}"))
    assert dict(read["server"]) == {"hostname": "cluster.test", "port": port, "prefix": "/rhsm"}
    assert read["rhsm"]["baseurl"] == baseurl


def test_a_host_is_registered_by_commands_that_hold_no_secret() -> None:
    rest = "signer: proxy02.test\nclients: {organization: ACME_Europe, activation_keys: [web, db]}\n"
    lines = text("rhsm_conf", rest, register=True).replace("\\\n", "").splitlines()
    config, register = (shlex.split(line) for line in lines if line.startswith("subscription-manager"))
    assert "--server.hostname=cluster.test" in config
    assert "--rhsm.baseurl=https://cluster.test/pulp/content" in config
    assert {"--org=ACME_Europe", "--activationkey=web,db", "--serverurl=https://cluster.test:443/rhsm"} <= set(register)
    with pytest.raises(Misconfigured, match="clients:"):
        text("rhsm_conf", "signer: proxy02.test\n", register=True)


def test_yggdrasil_finds_the_broker_where_there_is_one() -> None:
    found = tomllib.loads(text("yggdrasil", "signer: proxy02.test\nservices: {mqtt: {listen_port: 8883}}\n"))
    assert found == {"broker": ["mqtts://cluster.test:8883"]}
    with pytest.raises(Misconfigured, match="mqtt"):
        text("yggdrasil", "signer: proxy02.test\n")


@pytest.mark.parametrize(("generation", "port"), [("seed", 9090), ("installer", 9090), ("foremanctl", 8443)])
def test_reports_go_to_the_smart_proxy(generation: str, port: int) -> None:
    found = text("scap_client", f"generation: {generation}\nsigner: proxy02.test\n")
    assert yaml.safe_load(found) == {":server": "cluster.test", ":port": port}
    assert found.startswith(":server: ")


def test_repositories_are_those_of_the_last_environment_or_of_one_that_is_named() -> None:
    rest = f"signer: proxy02.test\n{MIRROR}"
    assert (
        "baseurl=https://cluster.test/pulp/content/muster/production/yum/baseos" in text("dnf_repos", rest).splitlines()
    )
    assert "/muster/library/yum/baseos" in text("dnf_repos", rest, environment="library")
    with pytest.raises(Rejected, match="library, production"):
        text("dnf_repos", rest, environment="staging")
    with pytest.raises(Misconfigured, match="mirrors no repositories"):
        text("dnf_repos", "signer: proxy02.test\n")


def test_sources_name_suites_and_components_and_no_architecture_that_is_none() -> None:
    lines = text("apt_sources", f"signer: proxy02.test\n{MIRROR}").splitlines()
    assert lines == [
        "# debian",
        "Types: deb",
        "URIs: https://cluster.test/pulp/content/muster/production/deb/debian",
        "Suites: bookworm bookworm-updates",
        "Components: main",
        "Architectures: amd64",
    ]
    with pytest.raises(Misconfigured, match="components"):
        text("apt_sources", f"signer: proxy02.test\n{MIRROR.replace('components: [main],', '')}")


RECORDS = """\
signer: proxy02.test
aliases: [proxies.test]
balancers: [{name: lb1, address: 10.0.0.7}, {name: lb2, address: "2001:db8::8"}]
network: {dns_zone: test, dns_server: ns1.test, dns_ttl_s: 300}
"""


def test_the_address_leads_to_the_virtual_one_or_to_every_balancer() -> None:
    lines = text("dns_zone", RECORDS).splitlines()
    for name in ("cluster.test.", "proxies.test."):
        assert {f"{name} 300 IN A 10.0.0.7", f"{name} 300 IN AAAA 2001:db8::8"} <= set(lines)
    assert "proxy01.test. 300 IN A 10.0.0.1" in lines
    virtual = (
        RECORDS.replace('"2001:db8::8"', "10.0.0.8") + "virtual_address: {address: 10.0.0.10/24, interface: eth0}\n"
    )
    lines = text("dns_zone", virtual).splitlines()
    assert [line for line in lines if line.startswith("cluster.test.")] == ["cluster.test. 300 IN A 10.0.0.10"]
    # Nothing leads back to the cluster's name: what asks from there is a host with a name of its own.
    assert not any("PTR cluster" in line for line in lines)
    assert "; 1.0.0.10.in-addr.arpa. 300 IN PTR proxy01.test." in lines


def test_a_name_in_another_zone_is_said_and_not_put_into_this_one() -> None:
    lines = text("dns_zone", RECORDS.replace("proxies.test", "proxies.example.net")).splitlines()
    assert [line for line in lines if "proxies.example.net" in line] == [
        "; not in this zone: proxies.example.net A 10.0.0.7",
        "; not in this zone: proxies.example.net AAAA 2001:db8::8",
    ]


def test_an_update_replaces_all_addresses_of_a_name_in_one_message() -> None:
    lines = text("nsupdate", RECORDS).splitlines()
    assert lines[1] == "server ns1.test"
    first = lines[: lines.index("send")]
    at = first.index("update delete cluster.test. A")
    assert first[at : at + 4] == [
        "update delete cluster.test. A",
        "update delete cluster.test. AAAA",
        "update add cluster.test. 300 A 10.0.0.7",
        "update add cluster.test. 300 AAAA 2001:db8::8",
    ]


def test_without_a_zone_or_an_address_nothing_is_guessed() -> None:
    with pytest.raises(Misconfigured, match="virtual_address"):
        text("dns_zone", "signer: proxy02.test\nnetwork: {dns_zone: test}\n")
    with pytest.raises(Misconfigured, match="dns_zone"):
        text("dns_zone", "signer: proxy02.test\nbalancers: [{address: 10.0.0.7}]\n")


@pytest.mark.parametrize(
    "balancer", ["address: lb2.test", "address: 10.0.0.8, bind: lb2.test", "address: 'fe80::8%eth0'"]
)
@pytest.mark.parametrize("word", ["dns_zone", "nsupdate"])
def test_records_that_would_lead_past_a_balancer_are_none(balancer: str, word: str) -> None:
    rest = "signer: proxy02.test\nnetwork: {dns_zone: test}\n"
    with pytest.raises(Misconfigured, match="would not lead to balancer lb2"):
        text(word, f"{rest}balancers: [{{name: lb1, address: 10.0.0.7}}, {{name: lb2, {balancer}}}]\n")


def test_a_balancer_on_every_address_of_its_host_is_found_at_its_own() -> None:
    rest = "signer: proxy02.test\nnetwork: {dns_zone: test}\nbalancers: [{address: 10.0.0.7, bind: 0.0.0.0}]\n"
    assert "cluster.test. 3600 IN A 10.0.0.7" in text("dns_zone", rest)


@pytest.mark.parametrize("address", ["far.example.net", "fe80::1%eth0"])
def test_a_member_without_a_record_is_said(address: str) -> None:
    cluster = parse(HEAD.replace("10.0.0.1", f"'{address}'") + RECORDS).parsed(ClusterFile)
    for word in ("dns-zone", "nsupdate"):
        found = output(word)
        assert found is not None
        (one,) = found.rendered(modelled(cluster), cluster, Site())
        assert f"; no record of proxy01.test: its address in the file is {address}" in one.text.splitlines()


def test_a_member_without_lines_of_hosts_is_said() -> None:
    cluster = parse(HEAD.replace("10.0.0.1", "far.example.net") + RECORDS).parsed(ClusterFile)
    hosts = output("hosts")
    assert hosts is not None
    assert [d.name for d in hosts.rendered(modelled(cluster), cluster, Site())] == ["proxy02.test/hosts"]
    (said,) = hosts.lacks(modelled(cluster), cluster, Site())
    assert "No line of Proxy01.test: its address in the file is the name far.example.net" in said


def test_a_member_is_asked_under_the_cluster_s_names() -> None:
    found = documents("hosts", RECORDS)
    assert [d.name for d in found] == ["Proxy01.test/hosts", "proxy02.test/hosts"]
    assert "10.0.0.1 cluster.test proxies.test" in found[0].text.splitlines()
    # The signer's CA is on another port there than behind the balancer, and the other one is none (the seed's own remark).
    assert "# puppetca is asked on port 8140 there, not on 8141" in found[1].text
    assert "# puppetca is not on this member" in found[0].text
    assert len(documents("hosts", RECORDS, member="proxy02")) == 1
