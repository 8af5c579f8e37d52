"""HAProxy's configuration as a derived output: what ``muster balance`` writes, shown or checked without running it.

The text itself is :mod:`muster.balancer.haproxy.render`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from muster.balancer.haproxy import binary as binaries
from muster.balancer.haproxy import descriptors
from muster.balancer.haproxy.layout import Layout
from muster.balancer.haproxy.render import RuntimePaths, rendered
from muster.balancer.model import Balancing
from muster.cluster.file import ClusterFile
from muster.derived.output import Document, Output, Place, Site, Trial


def _paths(site: Site) -> RuntimePaths:
    return RuntimePaths(site.run, site.pki)


async def _learned() -> Mapping[str, Any]:
    """Return HAProxy's version, which the text's head names."""
    return {"version": (await binaries.probed(binaries.found())).version}


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    text = rendered(
        balancing,
        which=cluster.balancer(site.balancer),
        runtime=_paths(site),
        version=site.given["version"],
        dual_stack=site.dual_stack,
    )
    # Whoever reads it knows where HAProxy's administration sockets are.
    return (Document("haproxy.cfg", text, "haproxy", 0o600),)


def _as_json(balancing: Balancing, cluster: ClusterFile, site: Site) -> Any:  # noqa: ARG001
    return balancing.as_json()


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    for document in documents:
        # haproxy -c calls valid what then dies for want of descriptors.
        complaint = descriptors.complaint_of(Layout.of(document.text), descriptors.limit())
        if complaint is not None:
            raise complaint
        await binaries.checked(binaries.found(), directory / document.name)


OUTPUT = Output(
    word="haproxy",
    help="Render HAProxy's configuration for one balancer; --json shows the model of services and servers instead.",
    goes="On each balancer; `muster balance` renders it and puts it in force by itself, so this is for looking at.",
    rendered=_documents,
    needs=frozenset({"balancer", "pki", "run"}),
    as_json=_as_json,
    check=Trial(
        "haproxy", "Ask haproxy -c what it thinks of it, and count the descriptors it may open from here.", _accepted
    ),
    learned=_learned,
    installed=Place("haproxy.cfg in the run directory", lambda site: _paths(site).config),
)
