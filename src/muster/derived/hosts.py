"""Lines for ``/etc/hosts`` by which one host asks one member under the cluster's name, past every balancer.

Source: the first seed's "Help! Something doesn't work!"; it goes because certificates carry the name.
"""

from __future__ import annotations

from collections.abc import Sequence

from muster.balancer.model import Balancing
from muster.balancer.words import ip, word
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.kernel.errors import Misconfigured


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    known = [(m, at) for m in site.members(cluster) if (at := ip(m.address)) is not None]
    if not known:
        raise Misconfigured("Members have names for addresses, and a line of hosts begins with an IP address")
    return tuple(
        Document(
            f"{word(str(m.name))}/hosts",
            "\n".join([f"# asks {word(str(m.name))} in place of the balancer", *_ports(balancing, str(m.name)),
                       f"{at} {' '.join(word(str(n)) for n in cluster.names)}"]) + "\n",
            "",
        )
        for m, at in known
    )  # fmt: skip


def _ports(balancing: Balancing, member: str) -> Sequence[str]:
    """A test under the balancer's port would find nothing where members have another."""
    moved = [
        f"# {s.name} is asked on port {s.port_on(member):d} there, not on {s.listen_port:d}"
        for s in balancing.services
        if s.port_on(member) != s.listen_port and s.leads_to(member)
    ]
    absent = [f"# {s.name} is not on this member" for s in balancing.services if not s.leads_to(member)]
    return [*moved, *absent]


def _lacks(balancing: Balancing, cluster: ClusterFile, site: Site) -> Sequence[str]:  # noqa: ARG001
    return [
        f"No line of {m.name}: its address in the file is the name {m.address}, and such a line begins with an IP address."
        for m in site.members(cluster)
        if ip(m.address) is None
    ]


OUTPUT = Output(
    word="hosts",
    help="Render lines of /etc/hosts by which one host asks one member under the cluster's name, past the balancer.",
    goes="Into `/etc/hosts` of a host that tests one member, and out of it again afterwards.",
    rendered=_documents,
    needs=frozenset({"member"}),
    lacks=_lacks,
    says_lacks=False,
    in_directory=True,
)
