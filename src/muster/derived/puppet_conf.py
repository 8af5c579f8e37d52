"""The lines of ``puppet.conf`` by which agents know only the cluster's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Site, Trial
from muster.kernel.errors import Misconfigured

_STANDARD_PORT = 8140
_WRITTEN = re.compile(r"^([a-z_]+) = (\S+)$", re.MULTILINE)
# Puppet's own packages put it where no PATH leads.
_PACKAGED = "/opt/puppetlabs/bin"


def rendered(balancing: Balancing) -> str:
    """Return the ``[main]`` section; the CA's port is always named, because Foreman's own snippet leaves it out.

    Raises:
        Misconfigured: the balancer offers no service ``puppetca``.
    """
    ca, server = balancing.service("puppetca"), balancing.service("puppet")
    if ca is None:
        raise Misconfigured("The balancer offers no puppetca, so agents have no CA behind it")
    name = word(balancing.address)
    lines = ["[main]", f"server = {name}"]
    if server is not None and server.listen_port != _STANDARD_PORT:
        lines.append(f"serverport = {server.listen_port:d}")
    # Without ca_server an agent that has a server_list asks the CA there (docs/facts/puppet-ca.md §3.2).
    lines += [f"ca_server = {name}", f"ca_port = {ca.listen_port:d}"]
    return "\n".join(lines) + "\n"


def values(balancing: Balancing) -> dict[str, str]:
    """Return the same by key.

    Raises:
        Misconfigured: as :func:`rendered`.
    """
    _section, *lines = rendered(balancing).splitlines()
    return dict(line.split(" = ", 1) for line in lines)


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document("puppet.conf", rendered(balancing), "puppet"),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> dict[str, Any]:  # noqa: ARG001
    return {"main": values(balancing), "configuration": rendered(balancing)}


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    # A file that it cannot read puppet only complains of: what counts is what it took from it.
    puppet = consumer.found("puppet", "install the package puppet-agent", also=(_PACKAGED,))
    its_own = ("--confdir", directory, "--vardir", directory, "--color", "false")
    for document in documents:
        wanted = _WRITTEN.findall(document.text)
        asked = [puppet, "config", "print", *(name for name, _ in wanted), "--section", "main", *its_own]
        said = await consumer.accepted([*asked, "--config", directory / document.name], timeout_s=60)
        if set(_WRITTEN.findall(said.stdout)) != set(wanted):
            raise consumer.refusal("puppet", said)


OUTPUT = Output(
    word="puppet-conf",
    help="Render the lines of puppet.conf for agents: the cluster's name as server and CA, and the CA's port.",
    goes="Into section `[main]` of `puppet.conf` on each Puppet agent.",
    rendered=_documents,
    as_json=_as_json,
    check=Trial("puppet", "Ask puppet config print what it reads in it.", _accepted),
)
