"""Ports, members and names in every output are the model's: one cluster in which none has its usual port."""

from __future__ import annotations

import re
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.derived.outputs import outputs
from muster.kernel.settings import parse
from tests.unit.derived.test_outputs import GENERATIONS, LEARNED

SERVICES = ("http", "https", "anaconda", "puppet", "puppetca", "smartproxy", "mqtt", "rhsm", "own-one")
LISTEN = {name: 21001 + n for n, name in enumerate(SERVICES)}
ALSO = {name: 24001 + n for n, name in enumerate(SERVICES)}
MEMBERS = {name: 22001 + n for n, name in enumerate(SERVICES)}
OWN = {name: 23001 + n for n, name in enumerate(SERVICES)}
USUAL = re.compile(r"(?<![0-9.])(?:80|443|8000|8140|8141|8443|9090|1883|5647)(?![0-9.])")

FILE = f"""\
schema: 1
cluster: demo
address: Cluster.test
aliases: [hosts.other.example]
store: {{url: "postgresql://muster@db.test/muster"}}
members:
- {{id: 1, name: ruby01.test, address: 10.9.0.1, kind: foreman}}
- {{id: 2, name: RUBY02.test, address: "2001:db8:9::2", kind: foreman, ports: {OWN}}}
- {{id: 3, name: ours03.test, address: 10.9.0.3}}
- {{id: 4, name: ours04.test, address: "2001:db8:9::4", ports: {OWN}}}
balancers:
- {{name: lb1, address: 10.9.0.7, metrics_port: 25001}}
- {{name: lb2, address: 10.9.0.8, metrics_port: 25002}}
virtual_address: {{address: 10.9.0.10/24, interface: eth0}}
foreman: {{url: "https://foreman.test", organizations: [Ops], lifecycle_environments: [Library]}}
network: {{dns_zone: test, foreman: [10.9.0.5/32], clients: [10.9.0.0/16]}}
signer: ruby02.test
content:
  services: [https]
  mirror:
    repositories:
      baseos: {{kind: yum, url: "https://origin.example.net/baseos"}}
      debian: {{kind: deb, url: "https://origin.example.net/debian", suites: [bookworm], components: [main]}}
services:
{chr(10).join(
    f"  {n}: {{listen_port: {LISTEN[n]}, also_listen_ports: [{ALSO[n]}], member_port: {MEMBERS[n]}}}" for n in SERVICES
)}
"""  # fmt: skip

every = pytest.mark.parametrize("output", outputs(), ids=lambda o: o.word)


def rendered(output: Output) -> tuple[Balancing, ClusterFile, tuple[Document, ...]]:
    (word, *_) = GENERATIONS.get(output.word, ("installer",))
    cluster = parse(f"generation: {word}\n{FILE}").parsed(ClusterFile)
    balancing = modelled(cluster)
    given: dict[str, Any] = LEARNED.get(output.word, {})
    return balancing, cluster, output.rendered(balancing, cluster, Site(balancer="lb1", given=given))


BALANCED = {"listen", "also", "members", "names", "addresses"}
FILTERED = {*BALANCED, "metrics"}
CLUSTER = {"address"}
RUBY = {"ruby names", *CLUSTER}
# Of which ports, members and names all stand in an output; each output that is new needs a line.
HOLDS: dict[str, set[str]] = {
    "haproxy": {*BALANCED, *CLUSTER, "own metrics"},
    "keepalived": set(),
    "nginx": BALANCED,
    "envoy": {*BALANCED, *CLUSTER},
    "table": {*BALANCED, *CLUSTER},
    "puppet-conf": {"puppet", "puppetca", *CLUSTER},
    "rhsm-conf": {"https", *CLUSTER},
    "yggdrasil": {"mqtt", *CLUSTER},
    "scap-client": {"smartproxy", *CLUSTER},
    "dnf-repos": {"https", *CLUSTER},
    "apt-sources": {"https", *CLUSTER},
    "muster-client": {"https", "smartproxy", "puppet", "puppetca", *CLUSTER},
    "dns-zone": {"names", "addresses", "aliases", *CLUSTER},
    "nsupdate": {"names", "addresses", "aliases", *CLUSTER},
    "hosts": {"listen", "members", "names", "addresses", "aliases", *CLUSTER},
    "ruby-settings": {"https", "anaconda", "smartproxy", *RUBY},
    "certs-generate": {"aliases", *RUBY},
    "foreman-installer": {"smartproxy", "anaconda", "aliases", *RUBY},
    "foremanctl": {"smartproxy", "anaconda", "aliases", *RUBY},
    "custom-hiera": CLUSTER,
    "hammer": {"ruby names"},
    "nftables": FILTERED,
    "firewalld": FILTERED,
    "ufw": FILTERED,
    "prometheus": {"our smartproxy", "metrics", "our names", *CLUSTER},
    "grafana": set(),
    "selinux": {"listen", "also", "members", "metrics"},
    "systemd": {"our names"},
    "ansible": {"names", "addresses"},
    "muster-bootstrap": set(),
}
# Of no cluster: standards that are meant when a member does not say another one.
OF_NONE = frozenset({"muster-bootstrap"})


def kinds(balancing: Balancing, cluster: ClusterFile) -> dict[str, set[str]]:
    """Return by a word of ``HOLDS`` what has to stand in an output."""
    ours = {m.name.lower() for m in cluster.members if m.kind == "muster"}
    smartproxy = balancing.service("smartproxy")
    assert smartproxy is not None
    return {
        **{s.name: {str(s.listen_port)} for s in balancing.services},
        "listen": {str(s.listen_port) for s in balancing.services},
        "also": {str(p) for s in balancing.services for p in s.also_listen_ports},
        "members": {str(v.port) for s in balancing.services for v in s.servers},
        "our smartproxy": {str(v.port) for v in smartproxy.servers if v.name in ours},
        "metrics": {str(b.metrics_port) for b in cluster.balancers},
        "own metrics": {str(cluster.balancers[0].metrics_port)},
        "names": {m.name.lower() for m in cluster.members},
        "our names": ours,
        "ruby names": {m.name.lower() for m in cluster.members} - ours,
        "addresses": {m.address for m in cluster.members},
        "address": {str(cluster.address).lower()},
        "aliases": {str(n).lower() for n in cluster.aliases},
    }


@every
def test_every_port_and_member_stands_where_it_belongs(output: Output) -> None:
    balancing, cluster, documents = rendered(output)
    text = "\n".join(f"{d.name}\n{d.text}" for d in documents).lower()
    there = kinds(balancing, cluster)
    words = set(re.findall(r"[0-9]+", text))
    missing = {
        f"{kind}: {one}"
        for kind in HOLDS[output.word]
        for one in there[kind]
        if (one not in words if one.isdigit() else one not in text)
    }
    assert not missing


@every
def test_no_port_is_the_usual_one_that_this_cluster_has_not(output: Output) -> None:
    if output.word in OF_NONE:
        return
    _, _, documents = rendered(output)
    assert not [line for d in documents for line in d.text.splitlines() if USUAL.search(line)]


@every
def test_a_port_of_a_member_stands_in_no_other_members_document(output: Output) -> None:
    """Where each member has a document of its own, ports of the others are not in it, but for the signer's."""
    _, _, documents = rendered(output)
    if output.word in ("envoy", "selinux") or "member" not in output.needs:
        return
    own = {str(p) for n, p in OWN.items() if n != "puppetca"}
    usual = {str(p) for p in MEMBERS.values()}
    for one in documents:
        words = set(re.findall(r"[0-9]+", one.text))
        if one.name.lower().startswith(("ruby02", "ours04")):
            assert not words & usual, one.name
        if one.name.lower().startswith(("ruby01", "ours03")):
            assert not words & own, one.name
