"""An inventory for Ansible: which hosts are members and balancers, and what each is called in the cluster file.

The collection ``muster.cluster`` (``packaging/ansible``) works with these groups. Who logs in, and how, is nothing that the
cluster file knows: that stands in the administrator's own ``group_vars``, which Ansible reads beside the inventory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from muster.balancer.model import Balancing
from muster.balancer.words import address, word
from muster.cluster.file import Balancer, ClusterFile, Member
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.kernel.errors import Misconfigured
from muster.kernel.process import run
from muster.version import VERSION

MEMBERS, BALANCERS, RUBY = "muster_members", "muster_balancers", "ruby_members"
_FILE = "inventory.yml"
# What Ansible means by itself: every host, those without a group, and the host that it runs on.
_TAKEN = frozenset({"all", "ungrouped", "localhost", MEMBERS, BALANCERS, RUBY})
# It takes a file that it does not understand for an empty one, unless it is told not to.
_STRICT = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FATAL": "true", "ANSIBLE_NOCOLOR": "true"}

Hosts = dict[str, dict[str, Any]]


def inventory(cluster: ClusterFile) -> dict[str, Any]:
    """Return the groups with their hosts and each host's variables, as Ansible's YAML has them.

    Raises:
        Misconfigured: a host's name means something else to Ansible, or means a member here and a balancer there.
    """
    groups: dict[str, Hosts] = {MEMBERS: {}, BALANCERS: {}, RUBY: {}}
    for member in cluster.members:
        groups[MEMBERS if member.kind == "muster" else RUBY][_host(member.name)] = _of_member(member)
    for balancer in cluster.balancers:
        groups[BALANCERS][_host(balancer.name)] = _of_balancer(balancer)
    _refuse_shared(groups)
    shared: dict[str, Any] = {
        "muster_cluster_name": word(cluster.cluster),
        "muster_address": word(cluster.address),
    }
    if cluster.virtual_address is not None:
        shared["muster_virtual_address"] = address(cluster.virtual_address.address.partition("/")[0])
    children = {name: {"hosts": hosts} if hosts else {} for name, hosts in groups.items()}
    return {"all": {"vars": shared, "children": children}}


def _of_member(member: Member) -> dict[str, Any]:
    return {
        "ansible_host": address(member.address),
        "muster_member": word(member.name),
        "muster_member_id": member.id,
    }


def _of_balancer(balancer: Balancer) -> dict[str, Any]:
    return {"ansible_host": address(balancer.address), "muster_balancer": word(balancer.name)}


def _host(name: str) -> str:
    if name.lower() in _TAKEN:
        raise Misconfigured(f"{name} means something else in an inventory of Ansible's; give it another name")
    return word(name)


def _refuse_shared(groups: Mapping[str, Hosts]) -> None:
    # Ansible would join the variables of both, and log in at one address for them.
    known: dict[str, str] = {}
    for hosts in groups.values():
        for name, variables in hosts.items():
            before = known.setdefault(name, variables["ansible_host"])
            if before != variables["ansible_host"]:
                raise Misconfigured(
                    f"A member and a balancer are called {name} and have the addresses {before} and "
                    f"{variables['ansible_host']}; to Ansible they would be one host"
                )


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    head = (
        f"# Rendered by Muster {VERSION} for cluster {word(cluster.cluster)}.\n"
        "# Do not edit: change the cluster file and run muster render ansible again.\n"
    )
    text = head + str(yaml.safe_dump(inventory(cluster), sort_keys=False, width=118))
    return (Document(_FILE, text, "ansible-inventory"),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:  # noqa: ARG001
    return inventory(cluster)


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    program = consumer.found("ansible-inventory", "install the package ansible-core")
    for document in documents:
        # From there, or it would add the variables that stand where it is asked.
        arguments = (program, "--inventory", directory / document.name, "--list")
        said = await run(arguments, timeout_s=60, environment=_STRICT, directory=directory)
        # A key that it does not know it leaves out, with a warning.
        if said.status != 0 or "[WARNING]" in said.stderr or _read(said.stdout) != _written(document.text):
            raise consumer.refusal("ansible-inventory", said)


def _read(said: str) -> dict[str, Any]:
    """Return the variables by host, and the hosts by group, that Ansible has found."""
    listed = json.loads(said)
    groups = {g: sorted(listed.get(g, {}).get("hosts", ())) for g in (MEMBERS, BALANCERS, RUBY)}
    return {"hosts": listed["_meta"]["hostvars"], "groups": groups}


def _written(text: str) -> dict[str, Any]:
    everything = yaml.safe_load(text)["all"]
    hosts: Hosts = {}
    groups = {g: sorted(of.get("hosts", ())) for g, of in everything["children"].items()}
    for group in everything["children"].values():
        for name, variables in group.get("hosts", {}).items():
            hosts.setdefault(name, dict(everything["vars"])).update(variables)
    return {"hosts": hosts, "groups": groups}


OUTPUT = Output(
    word="ansible",
    help="Render an inventory for Ansible: members, balancers and Ruby Smart Proxies, with addresses and names.",
    goes=(
        "Beside your own `group_vars` on the host that Ansible runs on; the playbooks of the collection `muster.cluster` "
        "work with its groups."
    ),
    rendered=_documents,
    as_json=_as_json,
    check=Trial("ansible-inventory", "Ask ansible-inventory which hosts and variables it reads in it.", _accepted),
)
