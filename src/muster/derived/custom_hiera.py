"""What the installer of 2018 had no option for: where Pulp 2 sends clients for content that it has on demand."""

from __future__ import annotations

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.derived.ruby_members import members
from muster.derived.ruby_yaml import READ_BY_RUBY, lines
from muster.kernel.errors import Misconfigured

_KEY = "pulp::lazy_redirect_host"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    members(cluster, site)
    if cluster.generation != "seed":
        raise Misconfigured(
            f"Pulp of generation {cluster.generation} redirects to no host name: custom-hiera.yaml has to say nothing of it"
        )
    return (Document("custom-hiera.yaml", lines({_KEY: balancing.address.lower()}), "ruby"),)


OUTPUT = Output(
    word="custom-hiera",
    help="Render the line by which Pulp of 2018 sends clients to the address for content that it has on demand.",
    goes="At the end of `/etc/foreman-installer/custom-hiera.yaml` on each Ruby member, before the installer runs.",
    rendered=_documents,
    check=READ_BY_RUBY,
)
