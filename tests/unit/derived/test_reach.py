from __future__ import annotations

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Site
from muster.derived.reach import Opening, Reach, reached
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.settings import parse
from tests.unit.balancer.test_model import HEAD, document

FOREMAN = "network: {foreman: [10.0.0.5/32]}\n"
TWO = """\
balancers:
- {name: lb1, address: 10.0.0.7, metrics_port: 8405}
- {name: lb2, address: 10.0.0.8}
virtual_address: {address: 10.0.0.10/24, interface: eth0, router_id: 7}
"""


def found(rest: str, member: str | None = None) -> dict[str, Reach]:
    cluster = document(rest).parsed(ClusterFile)
    return {r.host: r for r in reached(modelled(cluster), cluster, Site(member=member))}


def opening(rest: str, host: str, name: str) -> Opening:
    return next(o for o in found(rest)[host].openings if o.name == name)


def sources(rest: str, host: str, name: str) -> list[str]:
    return [str(n) for n in opening(rest, host, name).sources or ()]


def test_a_balancer_opens_what_clients_call_and_a_member_what_balancers_call() -> None:
    rest = f"{TWO}{FOREMAN}signer: Proxy01.test\n"
    assert opening(rest, "lb1", "clients").ports == (80, 443, 8000, 8140, 8141, 9090)
    assert opening(rest, "proxy02.test", "callers").ports == (80, 443, 8000, 8140, 9090)
    # Further ports of the address, and a member's own.
    rest += "services: {smartproxy: {also_listen_ports: [8443]}}\n"
    assert 8443 in opening(rest, "lb2", "clients").ports
    assert 8443 not in opening(rest, "proxy02.test", "callers").ports


def test_a_port_that_leads_to_one_member_is_opened_on_that_one() -> None:
    rest = f"{TWO}{FOREMAN}signer: proxy02.test\nservices: {{puppetca: {{member_port: 8150}}}}\n"
    assert 8150 in opening(rest, "proxy02.test", "callers").ports
    assert 8150 not in opening(rest, "Proxy01.test", "callers").ports


def test_members_are_called_by_balancers_each_other_foreman_and_whom_the_file_names() -> None:
    assert sources(TWO + FOREMAN, "Proxy01.test", "callers") == [
        *("10.0.0.1/32", "10.0.0.2/32", "10.0.0.5/32"),
        *("10.0.0.7/32", "10.0.0.8/32"),
    ]
    named = "network: {foreman: [10.0.0.5/32], direct: [10.9.0.0/16], monitoring: ['fd00:9::/64']}\n"
    assert {"10.9.0.0/16", "fd00:9::/64"} < set(sources(TWO + named, "Proxy01.test", "callers"))


def test_anybody_calls_the_address_where_the_file_names_no_clients() -> None:
    assert opening(TWO + FOREMAN, "lb1", "clients").sources is None


def test_networks_that_lie_in_each_other_are_one() -> None:
    rest = TWO + "network: {foreman: [10.0.0.5/32], clients: [10.0.0.0/8, 10.0.0.0/16, 'fd00::/8']}\n"
    assert sources(rest, "lb1", "clients") == ["10.0.0.0/8", "fd00::/8"]


def test_the_clusters_own_hosts_may_call_the_address_whatever_clients_are() -> None:
    rest = TWO + "network: {foreman: [10.0.0.5/32], clients: [192.168.0.0/16]}\n"
    assert {"10.0.0.1/32", "10.0.0.8/32"} < set(sources(rest, "lb1", "clients"))


def test_metrics_are_for_whoever_asks_for_them_and_for_nobody_else() -> None:
    own = ["10.0.0.7/32", "10.0.0.8/32"]
    assert sources(TWO + FOREMAN, "lb1", "monitoring") == own
    direct = "network: {foreman: [10.0.0.5/32], direct: [10.9.0.0/16]}\n"
    assert sources(TWO + direct, "lb1", "monitoring") == [*own, "10.9.0.0/16"]
    both = "network: {foreman: [10.0.0.5/32], direct: [10.9.0.0/16], monitoring: [10.8.0.0/16]}\n"
    assert sources(TWO + both, "lb1", "monitoring") == [*own, "10.8.0.0/16"]
    assert [o.name for o in found(TWO + FOREMAN)["lb2"].openings] == ["clients"]


def test_balancers_speak_of_the_virtual_address_with_each_other() -> None:
    vrrp = found(TWO + FOREMAN)["lb1"].vrrp
    assert vrrp is not None
    assert (vrrp.router_id, [str(n) for n in vrrp.peers]) == (7, ["10.0.0.8/32"])
    assert found(FOREMAN + "balancers: [{name: lb1, address: 10.0.0.7}]\n")["lb1"].vrrp is None


def test_foremans_address_comes_from_its_url_where_that_is_one() -> None:
    rest = "foreman: {url: 'https://10.0.0.6'}\n"
    assert "10.0.0.6/32" in sources(rest, "proxy02.test", "callers")
    named = "foreman: {url: 'https://[fd00::6]:443'}\n"
    assert "fd00::6/128" in sources(named, "proxy02.test", "callers")
    for none in ("foreman: {url: 'https://foreman.test'}\n", ""):
        with pytest.raises(Misconfigured, match=r"network\.foreman"):
            found(none)


def test_a_name_is_no_address() -> None:
    with pytest.raises(Misconfigured, match=r"balancer lb1 is the name lb1\.test"):
        found(FOREMAN + "balancers: [{name: lb1, address: lb1.test}]\n")
    named = parse(
        "schema: 1\ncluster: demo\naddress: cluster.test\nstore: {url: 'sqlite:////x'}\n"
        "members: [{id: 1, name: proxy01.test, address: proxy01.test}]\n" + FOREMAN
    ).parsed(ClusterFile)
    with pytest.raises(Misconfigured, match=r"member proxy01\.test is the name proxy01\.test"):
        reached(modelled(named), named, Site())


def test_a_host_that_is_both_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"have the address 10\.0\.0\.1"):
        found(FOREMAN + "balancers: [{name: lb1, address: 10.0.0.1}]\n")


def test_one_member_alone_may_be_asked_for() -> None:
    assert list(found(TWO + FOREMAN, member="proxy02")) == ["proxy02.test"]


def test_an_address_of_one_link_is_told_without_the_device() -> None:
    rest = TWO.replace("10.0.0.7,", "'fe80::7%eth0',") + FOREMAN
    assert "fe80::7/128" in sources(rest, "proxy02.test", "callers")


def test_a_name_that_could_mean_something_to_a_filter_is_refused() -> None:
    cluster = document(TWO + FOREMAN).parsed(ClusterFile)
    # The cluster file's own rules are looked past: this is the second look.
    spoilt = cluster.balancers[0].model_copy(update={"name": "lb1 } other {"})
    other = cluster.model_copy(update={"balancers": (spoilt, *cluster.balancers[1:])})
    with pytest.raises(Rejected, match=r"lb1 \} other \{"):
        reached(modelled(other), other, Site())


def test_what_is_loaded_for_one_of_two_on_a_host_forgets_nothing_of_the_other() -> None:
    rest = "signer: proxy02.test\nnetwork: {foreman: [10.0.0.5/32]}\nbalancers:\n"
    rest += "- {name: lb1, address: 10.0.0.7, bind: 10.0.0.7, metrics_port: 9101}\n"
    rest += "- {name: lb2, address: 10.0.0.7, bind: 10.0.0.8, metrics_port: 9102}\n"
    head = HEAD.replace("10.0.0.2", "10.0.0.1, ports: {http: 1080, https: 1443}")
    cluster = parse(head + rest).parsed(ClusterFile)
    found = {one.host: {o.name: o.ports for o in one.openings} for one in reached(modelled(cluster), cluster, Site())}
    assert {80, 443, 1080, 1443} < set(found["Proxy01.test"]["callers"])
    assert found["Proxy01.test"] == found["proxy02.test"]
    assert found["lb1"]["monitoring"] == found["lb2"]["monitoring"] == (9101, 9102)
