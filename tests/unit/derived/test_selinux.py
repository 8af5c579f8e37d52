from __future__ import annotations

import pytest

from muster.app.offers import modelled
from muster.cluster.file import ClusterFile
from muster.derived.output import Site
from muster.derived.selinux import OUTPUT, commands, ports
from muster.kernel.errors import Misconfigured
from tests.unit.balancer.test_model import document

LB = "balancers: [{name: lb1, address: 10.0.0.7}]\n"
OFF = ", ".join(f"{n}: {{enabled: false}}" for n in ("anaconda", "puppet", "puppetca", "smartproxy"))


def run(rest: str) -> tuple[str, ...]:
    cluster = document(rest).parsed(ClusterFile)
    return commands(ports(modelled(cluster), cluster))


def text(rest: str) -> str:
    cluster = document(rest).parsed(ClusterFile)
    (found,) = OUTPUT.rendered(modelled(cluster), cluster, Site())
    return found.text


@pytest.mark.parametrize("generation", ["seed", "installer"])
def test_ports_that_have_other_labels_need_the_boolean_and_keep_their_labels(generation: str) -> None:
    assert run(f"generation: {generation}\n{LB}") == ("setsebool -P haproxy_connect_any on",)
    assert "# 8140, for clients of puppet, members' puppet" in text(f"generation: {generation}\n{LB}")
    assert "puppet_port_t, whose label it stays\n" in text(LB)


def test_ports_of_web_servers_need_nothing() -> None:
    assert run(f"generation: foremanctl\n{LB}") == ()
    assert "# HAProxy may use all of them as it is.\n" in text(f"generation: foremanctl\n{LB}")


def test_ports_without_a_label_get_one() -> None:
    rest = f"generation: foremanctl\nservices: {{mqtt: {{}}}}\n{LB}"
    (only,) = run(rest)
    assert only.endswith(" || semanage port -a -t http_port_t -p tcp 1883")
    assert "# 1883, for clients of mqtt, members' mqtt, checks: has no label, may be given one\n" in text(rest)


def test_a_port_of_which_nothing_is_known_is_not_relabelled() -> None:
    rest = f"generation: foremanctl\nservices: {{own: {{listen_port: 7000, member_port: 7001}}}}\n{LB}"
    assert run(rest) == ("setsebool -P haproxy_connect_any on",)


def test_what_members_and_metrics_listen_on_counts() -> None:
    own = f"services: {{https: {{member_port: 8140}}, {OFF}}}\n{LB}"
    assert run(own) == ("setsebool -P haproxy_connect_any on",)
    metrics = "generation: foremanctl\n" + LB.replace("}]", ", metrics_port: 9404}]")
    assert run(metrics) == ("setsebool -P haproxy_connect_any on",)
    assert "# 9404, for metrics: whose label is not known here" in text(metrics)


def test_without_a_balancer_there_is_nothing_to_allow() -> None:
    with pytest.raises(Misconfigured, match="no balancers"):
        run("")
