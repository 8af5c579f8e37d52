from __future__ import annotations

import re

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.nftables import OUTPUT
from muster.derived.output import Site
from tests.unit.balancer.test_model import document
from tests.unit.derived.test_reach import TWO

REST = TWO + "network: {foreman: [10.0.0.5/32], clients: [10.0.0.0/8, 'fd00::/8'], direct: [10.9.0.0/16]}\n"


def text(host: str, rest: str = REST) -> str:
    cluster = document(rest).parsed(ClusterFile)
    documents = {d.name: d.text for d in OUTPUT.rendered(modelled(cluster), cluster, Site())}
    return documents[f"{host}/muster.nft"]


def test_each_host_has_a_file() -> None:
    cluster = document(REST).parsed(ClusterFile)
    assert [d.name for d in OUTPUT.rendered(modelled(cluster), cluster, Site())] == [
        *("balancers/lb1/muster.nft", "balancers/lb2/muster.nft"),
        *("Proxy01.test/muster.nft", "proxy02.test/muster.nft"),
    ]


def test_our_table_is_replaced_in_one_transaction_and_no_other_is_named() -> None:
    lines = text("balancers/lb1").splitlines()
    first = lines.index("table inet muster")
    assert lines[first + 1] == "delete table inet muster"
    assert re.findall(r"\b(?:table|flush) (.*?)(?: \{)?$", "\n".join(lines), re.M) == ["inet muster"] * 3


def test_only_ports_that_are_named_are_refused_so_that_ssh_stays() -> None:
    for host in ("balancers/lb1", "proxy02.test"):
        found = text(host)
        assert "policy accept;" in found
        assert all(
            "dport" in line or "vrrp @th" in line for line in found.splitlines() if re.search("reject|drop$", line)
        )
        assert not re.search(r"\b22\b", re.sub("#.*", "", found))
        assert "udp" not in found


def test_what_is_allowed_stands_before_what_is_refused() -> None:
    rules = [line.strip() for line in text("balancers/lb1").splitlines()]
    ports = "tcp dport { 80, 443, 8000, 8140, 8141, 9090 }"
    assert rules.index(f"ip saddr @clients_4 {ports} accept") < rules.index(f"{ports} counter reject with tcp reset")
    assert f"ip6 saddr @clients_6 {ports} accept" in rules


def test_clients_that_nobody_named_are_all() -> None:
    found = text("balancers/lb2", TWO + "network: {foreman: [10.0.0.5/32]}\n")
    assert "    tcp dport { 80, 443, 8000, 8140, 8141, 9090 } accept\n" in found
    assert "reject" not in found


def test_vrrp_is_taken_from_the_other_balancers_only_and_other_groups_are_left_alone() -> None:
    found = text("balancers/lb2")
    assert "    ip saddr @balancers_4 meta l4proto vrrp accept\n    meta l4proto vrrp @th,8,8 7 counter drop\n" in found
    assert "vrrp" not in text("proxy02.test")
