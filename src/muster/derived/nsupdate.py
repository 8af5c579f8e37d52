"""The cluster's records as input for ``nsupdate``."""

from __future__ import annotations

from muster.balancer.model import Balancing
from muster.balancer.words import address
from muster.cluster.file import ClusterFile
from muster.derived import names
from muster.derived.output import Document, Output, Site


def rendered(cluster: ClusterFile) -> str:
    """Return the input, without a zone: one that is named counts for all that follows, those of networks too.

    Each name gets exactly the addresses of the file, and carried out twice it changes nothing more.

    Raises:
        Misconfigured: no zone, or no IP address of the name.
    """
    own, others = names.split(cluster)
    ttl = cluster.network.dns_ttl_s
    lines = [
        f"; cluster {cluster.cluster}: nsupdate -k KEYFILE THIS_FILE",
        *(f"; {line}" for line in names.remarks(cluster, others)),
    ]
    if cluster.network.dns_server is not None:
        lines.append(f"server {address(cluster.network.dns_server)}")
    for name in dict.fromkeys(r.name for r in own):
        # In one message: nobody who asks meanwhile finds nothing.
        lines += [f"update delete {name}. {kind}" for kind in ("A", "AAAA")]
        lines += [f"update add {r.name}. {ttl:d} {r.type} {r.address}" for r in own if r.name == name]
    lines.append("send")
    # Each in the zone of its network, which nsupdate finds by itself.
    for record in names.records(cluster):
        if record.reverse:
            pointer = record.address.reverse_pointer
            lines += [f"update delete {pointer}. PTR", f"update add {pointer}. {ttl:d} PTR {record.name}.", "send"]
    return "\n".join(lines) + "\n"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document("nsupdate.txt", rendered(cluster), "nsupdate"),)


OUTPUT = Output(
    word="nsupdate",
    help="Render input for nsupdate: the address, its aliases, members, and their reverse records.",
    goes="`nsupdate -k KEYFILE nsupdate.txt` where the zone's name server takes updates.",
    rendered=_documents,
)
