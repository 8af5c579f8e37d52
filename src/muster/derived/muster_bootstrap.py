"""The program that hosts join with, for clusters whose members do not serve it themselves."""

from __future__ import annotations

from importlib import resources

from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site

NAME = "muster-bootstrap"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    program = resources.files("muster.client").joinpath("bootstrap.py").read_text("utf-8")
    return (Document(NAME, program, "python3", 0o755),)


OUTPUT = Output(
    word="muster-bootstrap",
    help="Render the program that hosts of the cluster join with; it is the same for every cluster.",
    goes=(
        "Members serve it themselves. Where all are Ruby ones: into `/var/www/html/pub` of each, with "
        "`muster-client.json` and the CA as `muster-ca.pem`."
    ),
    rendered=_documents,
)
