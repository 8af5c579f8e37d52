"""Where yggdrasil on hosts finds the broker of pull-mqtt."""

from __future__ import annotations

import json
from collections.abc import Sequence

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Site
from muster.kernel.errors import Misconfigured


def rendered(balancing: Balancing) -> str:
    """Return the line of ``config.toml``.

    Raises:
        Misconfigured: the balancer does not offer MQTT.
    """
    service = balancing.service("mqtt")
    if service is None:
        raise Misconfigured("The balancer offers no mqtt; services: {mqtt: {}} adds it")
    # A JSON string is one of TOML, too.
    return f"broker = [{json.dumps(f'mqtts://{word(balancing.address)}:{service.listen_port:d}')}]\n"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document("config.toml", rendered(balancing), "yggd"),)


def _lacks(balancing: Balancing, cluster: ClusterFile, site: Site) -> Sequence[str]:  # noqa: ARG001
    several = len(cluster.members) > 1
    return (
        ("Brokers of members do not know each other: of a job told to one of them, hosts at another never hear.",)
        if several
        else ()
    )


OUTPUT = Output(
    word="yggdrasil",
    help="Render the line of yggdrasil's config.toml: where hosts find the broker of pull-mqtt.",
    goes="Into `/etc/yggdrasil/config.toml` of each host; read docs/admin/long-connections.md before.",
    rendered=_documents,
    lacks=_lacks,
    says_lacks=False,
)
