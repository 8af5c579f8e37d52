from __future__ import annotations

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Site
from muster.derived.ufw import OUTPUT
from tests.unit.balancer.test_model import document
from tests.unit.derived.test_reach import TWO

REST = TWO + "network: {foreman: [10.0.0.5/32], clients: ['fd00::/8']}\n"


def commands(host: str, rest: str = REST) -> list[str]:
    cluster = document(rest).parsed(ClusterFile)
    texts = {d.name: d.text for d in OUTPUT.rendered(modelled(cluster), cluster, Site())}
    return [line for line in texts[f"{host}/ufw.sh"].splitlines() if line.startswith("ufw ")]


def test_whoever_may_reach_a_port_is_allowed_and_nothing_else_is_said() -> None:
    ports = "80,443,8000,8140,8141,9090"
    found = commands("balancers/lb1")
    assert f"ufw allow proto tcp from fd00::/8 to any port {ports} comment 'muster: clients'" in found
    assert "ufw allow proto tcp from 10.0.0.8 to any port 8405 comment 'muster: monitoring'" in found
    assert "ufw allow proto vrrp from 10.0.0.8 comment 'muster: balancers'" in found
    # Any other verb would make the order matter, and might lock somebody out.
    assert all(line.startswith("ufw allow ") for line in found)


def test_clients_that_nobody_named_are_all() -> None:
    rest = TWO + "network: {foreman: [10.0.0.5/32]}\n"
    assert "from any to any port 80,443,8000" in commands("balancers/lb2", rest)[0]


def test_a_rule_has_no_more_ports_than_ufw_takes() -> None:
    more = "".join(f"  own{n}: {{listen_port: {7000 + n}, member_port: {7000 + n}}}\n" for n in range(20))
    found = commands("balancers/lb2", TWO + f"network: {{foreman: [10.0.0.5/32]}}\nservices:\n{more}")
    counts = [len(line.split(" port ")[1].split(" ")[0].split(",")) for line in found if " port " in line]
    assert counts == [15, 11]
