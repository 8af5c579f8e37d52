"""firewalld's policies for each host: files that are ours alone, beside the zones that are the administrator's.

A policy opens the ports to those who may reach them and refuses them to others before the zone of the interface is asked;
of all other ports the zone decides as before, so that nobody is locked out. firewalld has policies since 0.9.

Source: firewalld.policy(5), firewalld.ipset(5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.derived.reach import Network, Opening, Reach, reached, shown
from muster.kernel.errors import Rejected, Unavailable
from muster.kernel.process import run
from muster.version import VERSION

_ANY_ZONE = "ANY"
_CLIENTS = "clients"
_FAMILIES = {4: ("ipv4", "inet"), 6: ("ipv6", "inet6")}
# Before the zones, which stand at 0; and within the policy who may before everybody else.
_BEFORE_ZONES, _FIRST, _LAST = -10, -10, 10
_CONFIGURATION = "firewalld.conf"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rich rule.

    Attributes:
        family: None: both.
        source: an ipset; None: anybody.
        of: a port, or a protocol's name.
    """

    family: str | None
    source: str | None
    of: int | str
    refuses: bool = False

    def as_xml(self) -> str:
        """Return it as an element of a policy."""
        family = f' family="{self.family}"' if self.family else ""
        source = f'<source ipset="{self.source}"/>' if self.source else ""
        what = (
            f'<port port="{self.of}" protocol="tcp"/>' if isinstance(self.of, int) else f'<protocol value="{self.of}"/>'
        )
        verdict = '<reject type="tcp-reset"/>' if self.refuses else "<accept/>"
        return f'<rule priority="{self._priority}"{family}>{source}{what}{verdict}</rule>'

    @property
    def _priority(self) -> int:
        return _LAST if self.refuses else _FIRST


def rules(reach: Reach, *, of_clients: bool) -> tuple[Rule, ...]:
    """Return the rules of a host for its clients, or for everybody else."""
    found = [r for o in reach.openings if (o.name == _CLIENTS) is of_clients for r in _opened(o)]
    if not of_clients and reach.vrrp is not None:
        found += [
            Rule(family, f"muster-balancers-{version}", "vrrp")
            for version, (family, _) in _FAMILIES.items()
            if reach.vrrp.of(version)
        ]
    return tuple(found)


def _opened(opening: Opening) -> Iterator[Rule]:
    for port in opening.ports:
        if opening.sources is None:
            yield Rule(None, None, port)
            continue
        for version, (family, _) in _FAMILIES.items():
            if opening.of(version):
                yield Rule(family, f"muster-{opening.name}-{version}", port)
            yield Rule(family, None, port, refuses=True)


def _files(cluster: ClusterFile, reach: Reach) -> Iterator[tuple[str, str]]:
    sets = [(o.name, o.sources or ()) for o in reach.openings]
    if reach.vrrp is not None:
        sets.append(("balancers", reach.vrrp.peers))
    for name, networks in sets:
        for version, (_, family) in _FAMILIES.items():
            of_version = [n for n in networks if n.version == version]
            if of_version:
                yield f"ipsets/muster-{name}-{version}.xml", _ipset(family, of_version)
    zone = cluster.network.firewall_zone
    for name, of_clients, ingress in (
        ("muster", False, _ANY_ZONE),
        ("muster-clients", True, _ANY_ZONE if zone is None else word(zone)),
    ):
        found = rules(reach, of_clients=of_clients)
        if found:
            yield f"policies/{name}.xml", _policy(cluster, reach, ingress, found)


def _ipset(family: str, networks: Sequence[Network]) -> str:
    entries = "\n".join(f"  <entry>{_entry(n)}</entry>" for n in networks)
    return _xml(f'<ipset type="hash:net">\n  <option name="family" value="{family}"/>\n{entries}\n</ipset>')


def _entry(network: Network) -> str:
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _policy(cluster: ClusterFile, reach: Reach, ingress: str, found: Sequence[Rule]) -> str:
    about = f"Rendered by Muster {VERSION} for {reach.kind} {word(reach.host)} of cluster {word(cluster.cluster)}."
    lines = "\n".join(f"  {rule.as_xml()}" for rule in found)
    return _xml(
        f'<policy priority="{_BEFORE_ZONES}" target="CONTINUE">\n'
        f"  <short>Muster</short>\n  <description>{about}</description>\n"
        f'  <ingress-zone name="{ingress}"/>\n  <egress-zone name="HOST"/>\n{lines}\n</policy>'
    )


def _xml(element: str) -> str:
    return f'<?xml version="1.0" encoding="utf-8"?>\n{element}\n'


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return tuple(
        Document(f"{one.directory}/{name}", text, "firewall-offline-cmd")
        for one in reached(balancing, cluster, site)
        for name, text in _files(cluster, one)
    )


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> list[dict[str, Any]]:
    return shown(reached(balancing, cluster, site))


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    asked = consumer.found("firewall-offline-cmd", "install the package firewalld")
    for host in dict.fromkeys((directory / d.name).parent.parent for d in documents):
        # Without it firewalld complains, and falls back to settings that it does not have.
        (host / _CONFIGURATION).write_text("DefaultZone=public\n", encoding="utf-8")
        its_own: list[str | Path] = [asked, "--system-config", host]
        try:
            await consumer.accepted([*its_own, "--check-config"], timeout_s=60)
        except Rejected as e:
            if "need to be root" in str(e):
                raise Unavailable(f"{asked} wants to be root: run this as root") from e
            raise
        for policy in sorted((host / "policies").glob("*.xml")):
            # What it does not understand of a rule it leaves out with a warning, and calls the configuration good.
            said = await run([*its_own, "--policy", policy.stem, "--list-rich-rules"], timeout_s=60)
            wanted = policy.read_text(encoding="utf-8").count("<rule ")
            if len(said.stdout.splitlines()) != wanted:
                raise consumer.refusal("firewall-offline-cmd", said)


OUTPUT = Output(
    word="firewalld",
    help="Render firewalld's policies for each balancer and member: who may reach the cluster's ports there.",
    goes=(
        "Below `/etc/firewalld` on the host that the directory is named after, beside what is there; then "
        "`firewall-cmd --reload`."
    ),
    rendered=_documents,
    needs=frozenset({"member"}),
    as_json=_as_json,
    check=Trial(
        "firewall-offline-cmd", "Ask firewall-offline-cmd what it reads in them; it wants to be root.", _accepted
    ),
    in_directory=True,
    output_help="Write them below this directory, one directory for each host, instead of showing them.",
)
