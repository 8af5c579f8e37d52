"""Rules of nftables for each host, in a table that is ours alone.

The chain lets everything pass but the ports it names: what else runs on the host is left to other tables, so that loading
it locks nobody out, and a reload replaces our table and no other's rules in one step.

Source: nft(8).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.derived.reach import VRRP, Network, Opening, Reach, reached, shown
from muster.kernel.errors import Rejected, Unavailable
from muster.version import VERSION

_FILE = "muster.nft"
_FAMILIES = {4: ("ip", "ipv4_addr"), 6: ("ip6", "ipv6_addr")}
# Of VRRP's header: version and type, then the number of the group (RFC 5798 §5.1).
_ROUTER_ID = "@th,8,8"


def rendered(cluster: ClusterFile, reach: Reach) -> str:
    """Return one host's table."""
    return "\n".join(_lines(cluster, reach)) + "\n"


def _lines(cluster: ClusterFile, reach: Reach) -> Iterator[str]:
    yield "#!/usr/sbin/nft -f"
    yield f"# Rendered by Muster {VERSION} for {reach.kind} {word(reach.host)} of cluster {word(cluster.cluster)}."
    yield "# Do not edit: change the cluster file and run muster render nftables again."
    yield "# Of this host's ports only those below are restricted; all others, ssh among them, are left to other tables."
    # Declared first, because what is not there cannot be deleted; all of it is one transaction.
    yield "table inet muster"
    yield "delete table inet muster"
    yield ""
    yield "table inet muster {"
    for opening in reach.openings:
        yield from _sets(opening.name, opening.sources or ())
    if reach.vrrp is not None:
        yield from _sets("balancers", reach.vrrp.peers)
    yield "  chain input {"
    yield "    type filter hook input priority filter; policy accept;"
    yield "    ct state established,related accept"
    yield '    iif "lo" accept'
    # Without it paths with a smaller packet size, and IPv6 altogether, would break.
    yield "    meta l4proto { icmp, ipv6-icmp } accept"
    for opening in reach.openings:
        yield from _opened(opening)
    if reach.vrrp is not None:
        yield from _spoken(reach.vrrp)
    yield "  }"
    yield "}"


def _sets(name: str, networks: Sequence[Network]) -> Iterator[str]:
    for version, (_, kind) in _FAMILIES.items():
        of_version = [n for n in networks if n.version == version]
        if not of_version:
            continue
        yield f"  set {name}_{version} {{"
        yield f"    type {kind}"
        yield "    flags interval"
        yield "    elements = {"
        yield ",\n".join(f"      {_element(n)}" for n in of_version)
        yield "    }"
        yield "  }"


def _element(network: Network) -> str:
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _opened(opening: Opening) -> Iterator[str]:
    ports = f"{{ {', '.join(f'{p:d}' for p in opening.ports)} }}"
    yield f"    # {opening.why[0].upper()}{opening.why[1:]}."
    if opening.sources is None:
        yield f"    tcp dport {ports} accept"
        return
    for version, (family, _) in _FAMILIES.items():
        if opening.of(version):
            yield f"    {family} saddr @{opening.name}_{version} tcp dport {ports} accept"
    # Told at once, so that whoever was forgotten sees why, and waits for nothing.
    yield f"    tcp dport {ports} counter reject with tcp reset"


def _spoken(vrrp: VRRP) -> Iterator[str]:
    yield "    # The other balancers, about the virtual address; groups of other numbers are not ours."
    for version, (family, _) in _FAMILIES.items():
        if vrrp.of(version):
            yield f"    {family} saddr @balancers_{version} meta l4proto vrrp accept"
    yield f"    meta l4proto vrrp {_ROUTER_ID} {vrrp.router_id:d} counter drop"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return tuple(
        Document(f"{one.directory}/{_FILE}", rendered(cluster, one), "nft") for one in reached(balancing, cluster, site)
    )


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> list[dict[str, Any]]:
    return shown(reached(balancing, cluster, site))


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    nft = consumer.found("nft", "install the package nftables")
    for document in documents:
        try:
            await consumer.accepted([nft, "-c", "-f", directory / document.name])
        except Rejected as e:
            # It asks the kernel about what it is to know of, and that answers root alone.
            if "Operation not permitted" in str(e):
                raise Unavailable(f"{nft} -c may not ask the kernel: run this as root") from e
            raise


OUTPUT = Output(
    word="nftables",
    help="Render rules of nftables for each balancer and member: who may reach the cluster's ports there.",
    goes=(
        "`/etc/nftables/muster.nft` on the host that the directory is named after, included by the host's own rules; "
        "`nft -f` puts it in force at once, and again after each change."
    ),
    rendered=_documents,
    needs=frozenset({"member"}),
    as_json=_as_json,
    check=Trial("nft", "Ask nft -c what it thinks of them; it asks the kernel, so as root.", _accepted),
    in_directory=True,
    output_help="Write them below this directory, one for each host, instead of showing them.",
)
