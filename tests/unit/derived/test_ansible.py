"""The inventory for Ansible: who is in which group, and by what name."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from muster.app.offers import modelled
from muster.derived.ansible import OUTPUT, inventory
from muster.derived.output import Site
from muster.kernel.errors import Misconfigured
from tests.unit.derived.test_prometheus import LB, OURS, cluster

MIXED = OURS.replace("address: 10.0.0.2}", "address: 10.0.0.2, kind: foreman}")


def groups(text: str) -> dict[str, Any]:
    found: dict[str, Any] = inventory(cluster(text))["all"]["children"]
    return found


def test_members_balancers_and_ruby_members_are_groups_of_their_own() -> None:
    found = groups(MIXED + LB)
    assert {name: list(group.get("hosts", ())) for name, group in found.items()} == {
        "muster_members": ["proxy01.test"],
        "muster_balancers": ["lb1", "lb2"],
        "ruby_members": ["proxy02.test"],
    }


def test_a_host_has_its_address_and_what_the_cluster_file_calls_it() -> None:
    found = groups(OURS + LB)
    assert found["muster_members"]["hosts"]["proxy01.test"] == {
        "ansible_host": "10.0.0.1",
        "muster_member": "proxy01.test",
        "muster_member_id": 1,
    }
    assert found["muster_balancers"]["hosts"]["lb2"] == {"ansible_host": "10.0.0.8", "muster_balancer": "lb2"}


def test_a_group_without_hosts_is_there_so_that_playbooks_find_it() -> None:
    assert groups(OURS) == {
        "muster_members": groups(OURS)["muster_members"],
        "muster_balancers": {},
        "ruby_members": {},
    }


def test_what_the_balancers_share_is_everybodys_variable() -> None:
    two = OURS + (
        "balancers:\n- {name: lb1, address: 10.0.0.7}\n- {name: lb2, address: 10.0.0.8}\n"
        "virtual_address: {address: 10.0.0.10/24, interface: eth0}\n"
    )
    assert inventory(cluster(two))["all"]["vars"]["muster_virtual_address"] == "10.0.0.10"
    assert "muster_virtual_address" not in inventory(cluster(OURS))["all"]["vars"]


@pytest.mark.parametrize("name", ["all", "ungrouped", "localhost"])
def test_a_name_that_means_something_to_ansible_is_refused(name: str) -> None:
    with pytest.raises(Misconfigured, match=f"{name} means something else"):
        groups(OURS + f"balancers: [{{name: {name}, address: 10.0.0.7}}]\n")


def test_one_name_for_two_addresses_is_refused() -> None:
    short = OURS.replace("proxy01.test", "lb1")
    with pytest.raises(Misconfigured, match=r"called lb1 and have the addresses 10\.0\.0\.1 and 10\.0\.0\.7"):
        groups(short + "balancers: [{name: lb1, address: 10.0.0.7}]\n")
    one_host = groups(short + "balancers: [{name: lb1, address: 10.0.0.1}]\n")
    assert one_host["muster_balancers"]["hosts"].keys() == {"lb1"}


def test_names_that_yaml_takes_for_something_else_stay_names() -> None:
    of = cluster(OURS + "balancers: [{name: 'no', address: 10.0.0.7}, {name: '10', address: 10.0.0.8}]\n")
    (document,) = OUTPUT.rendered(modelled(of), of, Site())
    assert list(yaml.safe_load(document.text)["all"]["children"]["muster_balancers"]["hosts"]) == ["no", "10"]
