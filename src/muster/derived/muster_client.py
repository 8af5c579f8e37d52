"""What members tell ``muster-bootstrap`` of their cluster, as JSON: all that a host has to know besides address and CA."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from muster.balancer.model import Balancing
from muster.balancer.words import url, word
from muster.cluster.file import ClusterFile
from muster.derived import apt_sources, dnf_repos, puppet_conf, rhsm_conf
from muster.derived.output import Document, Output, Site
from muster.kernel.errors import Misconfigured

NAME = "muster-client.json"
# As client/bootstrap.py knows it, which hosts keep: a change that it cannot read gets another number.
FORM = 1
_BELOW = "/pub/"
_T = TypeVar("_T")
_REPOSITORIES = {"dnf": "muster.repo", "apt": "muster.sources"}


def values(balancing: Balancing, cluster: ClusterFile) -> dict[str, Any]:
    """Return what hosts are told; what the cluster does not have is None."""
    smartproxy = balancing.service("smartproxy")
    given = _repositories(balancing, cluster)
    return {
        "muster_client": FORM,
        "address": word(balancing.address),
        "puppet": _offered(lambda: puppet_conf.values(balancing)),
        "rhsm": _offered(lambda: rhsm_conf.values(balancing, cluster)),
        "repositories": {kind: _BELOW + name if name in given else None for kind, name in _REPOSITORIES.items()},
        "register": (
            url("https", balancing.address, smartproxy.listen_port, "/register") if smartproxy is not None else None
        ),
    }


def served(balancing: Balancing, cluster: ClusterFile) -> dict[str, str]:
    """Return the texts by the names under which members serve them, below ``/pub``."""
    return {NAME: _text(balancing, cluster), **_repositories(balancing, cluster)}


def _repositories(balancing: Balancing, cluster: ClusterFile) -> dict[str, str]:
    found = {
        "dnf": _offered(lambda: dnf_repos.rendered(balancing, cluster, Site())),
        "apt": _offered(lambda: apt_sources.rendered(balancing, cluster, Site())),
    }
    return {_REPOSITORIES[kind]: text for kind, text in found.items() if text is not None}


def _offered(asked: Callable[[], _T]) -> _T | None:
    try:
        return asked()
    except Misconfigured:
        return None


def _text(balancing: Balancing, cluster: ClusterFile) -> str:
    return json.dumps(values(balancing, cluster), indent=2) + "\n"


def _documents(balancing: Balancing, cluster: ClusterFile, site: Site) -> tuple[Document, ...]:  # noqa: ARG001
    return (Document(NAME, _text(balancing, cluster), "muster-bootstrap"),)


OUTPUT = Output(
    word="muster-client",
    help="Render what members tell muster-bootstrap on hosts of the cluster.",
    goes=(
        "Members serve it themselves, as `/pub/muster-client.json`. Where all are Ruby ones: into `/var/www/html/pub` of "
        "each, beside `muster-bootstrap`."
    ),
    rendered=_documents,
    as_json=lambda balancing, cluster, _: values(balancing, cluster),
)
