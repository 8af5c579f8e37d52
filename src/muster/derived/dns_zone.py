"""The cluster's records as lines of a zone file."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.derived import consumer, names
from muster.derived.output import Document, Output, Site, Trial
from muster.kernel.files import write_atomically

_START = "@ 60 IN SOA ns.invalid. hostmaster.invalid. 1 60 60 60 60\n@ 60 IN NS ns.invalid.\n"


def rendered(cluster: ClusterFile) -> str:
    """Return the lines; names are whole, so that they may stand below any ``$ORIGIN``.

    Raises:
        Misconfigured: no zone, or no IP address of the name.
    """
    own, others = names.split(cluster)
    ttl = cluster.network.dns_ttl_s
    lines = [f"; cluster {cluster.cluster}, zone {names.zone(cluster)}"]
    lines += [f"{r.name}. {ttl:d} IN {r.type} {r.address}" for r in own]
    back = [r for r in names.records(cluster) if r.reverse]
    if back:
        lines += [
            "; in the zones of their networks; the address itself has none, for its hosts have names of their own"
        ]
        lines += [f"; {r.address.reverse_pointer}. {ttl:d} IN PTR {r.name}." for r in back]
    return "\n".join([*lines, *(f"; {line}" for line in names.remarks(cluster, others))]) + "\n"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document(f"{names.zone(cluster)}.zone", rendered(cluster), "named-checkzone"),)


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    checkzone = consumer.found("named-checkzone", "install the package bind9-utils")
    for document in documents:
        with tempfile.TemporaryDirectory(dir=directory) as made:
            whole = Path(made) / "zone"
            # The lines are a part of a zone; a zone has a beginning.
            write_atomically(whole, _START + document.text)
            await consumer.accepted([checkzone, "-k", "fail", "-i", "none", document.name.removesuffix(".zone"), whole])


OUTPUT = Output(
    word="dns-zone",
    help="Render the cluster's records as lines of a zone file: the address, its aliases, members.",
    goes="Into the file of the zone on its name server, whose serial is raised then; or use `nsupdate`.",
    rendered=_documents,
    check=Trial("named-checkzone", "Ask named-checkzone what it thinks of a zone with these lines.", _accepted),
)
