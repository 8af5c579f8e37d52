"""Where ``foreman_scap_client`` on hosts sends its reports."""

from __future__ import annotations

import yaml

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.kernel.errors import Misconfigured


def rendered(balancing: Balancing) -> str:
    """Return the lines of its ``config.yaml``, whose keys are Ruby's symbols.

    Raises:
        Misconfigured: the balancer does not offer the Smart Proxy.
    """
    service = balancing.service("smartproxy")
    if service is None:
        raise Misconfigured("The balancer offers no smartproxy, which takes the reports")
    text: str = yaml.safe_dump({":server": word(balancing.address), ":port": service.listen_port}, sort_keys=False)
    return text.replace("':server'", ":server").replace("':port'", ":port")


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document("config.yaml", rendered(balancing), "foreman_scap_client"),)


OUTPUT = Output(
    word="scap-client",
    help="Render the lines of foreman_scap_client's config.yaml: where hosts send their reports.",
    goes="Into `/etc/foreman_scap_client/config.yaml` of each host, or to whatever writes that file there.",
    rendered=_documents,
)
