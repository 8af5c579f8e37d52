"""A file of repositories for dnf and yum, of what members mirror."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from muster.balancer.model import Balancing
from muster.balancer.words import path, word
from muster.cluster.file import ClusterFile
from muster.derived import consumer
from muster.derived.output import Document, Option, Output, Place, Site, Trial
from muster.derived.repositories import ENVIRONMENT, mirrored
from muster.kernel.errors import Rejected

_FILE = Path("/etc/yum.repos.d/muster.repo")
_CA = Option("ca-file", "The cluster's CA on hosts. [default: whom the host trusts]", "file")
# Each is called as its section is.
_NAME = re.compile(r"^name=(\S+)$", re.MULTILINE)


def rendered(balancing: Balancing, cluster: ClusterFile, site: Site) -> str:
    """Return a section a repository; whether packages are verified, and by which key, stays as the host has it.

    Raises:
        Misconfigured: nothing of kind yum is mirrored.
    """
    trust = [f"sslcacert={path(site.given['ca_file'])}"] if site.given.get("ca_file") else []
    sections = [
        "\n".join([f"[{word(name)}]", f"name={word(name)}", f"baseurl={url}", "enabled=1", "sslverify=1", *trust])
        for name, url, _ in mirrored(balancing, cluster, site, "yum")
    ]
    return "\n\n".join(sections) + "\n"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:
    return (Document(_FILE.name, rendered(balancing, cluster, site), "dnf"),)


async def _accepted(directory: Path, documents: Sequence[Document]) -> None:
    dnf = consumer.found("dnf", "install the package dnf")
    its_own = [f"--setopt={key}={directory}" for key in ("reposdir", "cachedir", "logdir", "persistdir")]
    for document in documents:
        # Disabled ones are listed without being asked.
        said = await consumer.accepted([dnf, *its_own, "--quiet", "--disablerepo=*", "repolist", "--all"], timeout_s=60)
        # What it cannot read it leaves out without a word.
        read = {line.split()[0] for line in said.stdout.splitlines() if line.strip()}
        if unread := sorted(set(_NAME.findall(document.text)) - read):
            raise Rejected(f"dnf reads no repository {', '.join(unread)} in it")


OUTPUT = Output(
    word="dnf-repos",
    help="Render a file of repositories for dnf: what members mirror of kind yum, in one lifecycle environment.",
    goes="`/etc/yum.repos.d/muster.repo` on each host.",
    rendered=_documents,
    options=(ENVIRONMENT, _CA),
    check=Trial("dnf", "Ask dnf repolist which repositories it reads in it.", _accepted),
    installed=Place(str(_FILE), lambda _: _FILE),
)
