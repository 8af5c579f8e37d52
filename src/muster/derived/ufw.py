"""ufw's rules for each host, as the commands that add them.

They only allow. Whom nobody allowed ufw's own default refuses (``deny (incoming)``), so that it does not matter in which
order rules were added, by whom, and how often this is run; and SSH stays as the administrator has it.

Source: ufw(8).
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from muster.balancer.model import Balancing
from muster.balancer.words import word
from muster.cluster.file import ClusterFile
from muster.derived import consumer
from muster.derived.commands import command, script
from muster.derived.output import Document, Output, Site, Trial
from muster.derived.reach import Network, Reach, reached, shown
from muster.kernel.errors import Rejected, Unavailable
from muster.version import VERSION

_FILE = "ufw.sh"
# Of one rule; it becomes one of iptables' multiport.
_MOST_PORTS = 15
# By these an administrator finds ours again: ufw show added.
_REMARK = "muster"


def rendered(cluster: ClusterFile, reach: Reach) -> str:
    """Return one host's script."""
    head = (
        f"Rendered by Muster {VERSION} for {reach.kind} {word(reach.host)} of cluster {word(cluster.cluster)}.",
        "It adds what is allowed, which needs ufw's default: ufw status verbose says deny (incoming).",
        f"Rules of an earlier file stay: ufw show added lists them with the comment '{_REMARK}'.",
    )
    return script(head, list(_commands(reach)))


def _commands(reach: Reach) -> Iterator[str]:
    for opening in reach.openings:
        for first in range(0, len(opening.ports), _MOST_PORTS):
            ports = ",".join(f"{p:d}" for p in opening.ports[first : first + _MOST_PORTS])
            sources = ["any"] if opening.sources is None else [_source(n) for n in opening.sources]
            for source in sources:
                yield command(
                    "ufw", "allow", "proto", "tcp", "from", source, "to", "any", "port", ports, *_said(opening.name)
                )
    for peer in reach.vrrp.peers if reach.vrrp is not None else ():
        yield command("ufw", "allow", "proto", "vrrp", "from", _source(peer), *_said("balancers"))


def _said(name: str) -> tuple[str, str]:
    return ("comment", f"{_REMARK}: {name}")


def _source(network: Network) -> str:
    return str(network.network_address if network.prefixlen == network.max_prefixlen else network)


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return tuple(
        Document(f"{one.directory}/{_FILE}", rendered(cluster, one), "ufw", 0o755)
        for one in reached(balancing, cluster, site)
    )


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> list[dict[str, Any]]:
    return shown(reached(balancing, cluster, site))


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    ufw = consumer.found("ufw", "install the package ufw")
    lines = dict.fromkeys(
        line
        for document in documents
        for line in (directory / document.name).read_text(encoding="utf-8").splitlines()
        if line.startswith("ufw ")
    )
    for line in lines:
        _, *words = shlex.split(line)
        try:
            said = await consumer.accepted([ufw, "--dry-run", *words], timeout_s=60)
        except Rejected as e:
            if "need to be root" in str(e):
                raise Unavailable(f"{ufw} wants to be root, to look at rules, too: run this as root") from e
            raise
        if "### tuple ### allow" not in said.stdout:
            raise consumer.refusal("ufw", said)


OUTPUT = Output(
    word="ufw",
    help="Render the commands by which ufw lets in, on each balancer and member, who may reach the cluster's ports.",
    goes="Run it as root on the host that its directory is named after, once and after each change.",
    rendered=_documents,
    needs=frozenset({"member"}),
    as_json=_as_json,
    check=Trial("ufw", "Ask ufw --dry-run what it would do; it changes nothing, and wants to be root.", _accepted),
    in_directory=True,
    output_help="Write them below this directory, one for each host, instead of showing them.",
)
