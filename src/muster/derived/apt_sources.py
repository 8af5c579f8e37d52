"""A file of sources for apt, of what members mirror (deb822)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from muster.balancer.model import Balancing
from muster.balancer.words import matching
from muster.cluster.file import ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Output, Place, Site, Trial
from muster.derived.repositories import ENVIRONMENT, mirrored
from muster.kernel.errors import Misconfigured, Rejected

_FILE = Path("/etc/apt/sources.list.d/muster.sources")
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+/-]{0,127}\Z")
# Of these there are lists, but no packages of another architecture.
_NO_ARCHITECTURE = frozenset({"all", "source"})
_URI = re.compile(r"^URIs: (\S+)$", re.MULTILINE)


def rendered(balancing: Balancing, cluster: ClusterFile, site: Site) -> str:
    """Return a stanza a repository; which key its Release is signed with stays as the host has it.

    Raises:
        Misconfigured: nothing of kind deb is mirrored, or one names no components: apt has to be told them.
    """
    stanzas = []
    for name, url, one in mirrored(balancing, cluster, site, "deb"):
        flat = all(suite.endswith("/") for suite in one.suites)
        if not one.components and not flat:
            raise Misconfigured(
                f"apt has to be told the components of {name}: content: mirror: repositories: {name}: components"
            )
        lines = [f"# {name}", "Types: deb", f"URIs: {url}", f"Suites: {_words(one.suites)}"]
        if one.components:
            lines.append(f"Components: {_words(one.components)}")
        if kept := [a for a in one.architectures if a not in _NO_ARCHITECTURE]:
            lines.append(f"Architectures: {_words(kept)}")
        stanzas.append("\n".join(lines))
    return "\n\n".join(stanzas) + "\n"


def _words(texts: Sequence[str]) -> str:
    return " ".join(matching(_WORD, text, "word") for text in texts)


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return (Document(_FILE.name, rendered(balancing, cluster, site), "apt-get"),)


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    apt = consumer.found("apt-get", "this host has no apt")
    for document in documents:
        its_own = [
            "Dir::Etc::sourcelist=/dev/null",
            f"Dir::Etc::sourceparts={directory}",
            f"Dir::State={directory}",
            f"Dir::Cache={directory}",
        ]
        options = [word for one in its_own for word in ("-o", one)]
        said = await consumer.accepted(
            [apt, *options, "indextargets", "--no-release-info", "--format", "$(SITE) $(REPO_URI)"], timeout_s=60
        )
        read = {line.split()[-1].rstrip("/") for line in said.stdout.splitlines() if line.strip()}
        if unread := sorted(set(_URI.findall(document.text)) - read):
            raise Rejected(f"apt-get reads no source {', '.join(unread)} in it")


OUTPUT = Output(
    word="apt-sources",
    help="Render a file of sources for apt: what members mirror of kind deb, in one lifecycle environment.",
    goes="`/etc/apt/sources.list.d/muster.sources` on each host.",
    rendered=_documents,
    options=(ENVIRONMENT,),
    check=Trial("apt-get", "Ask apt-get indextargets which sources it reads in it.", _accepted),
    installed=Place(str(_FILE), lambda _: _FILE),
)
