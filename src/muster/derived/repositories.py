"""What the repositories that members mirror are called at the cluster: what files for dnf and apt share."""

from __future__ import annotations

from collections.abc import Iterator

from muster.balancer.model import Balancing
from muster.balancer.words import url, word
from muster.cluster.file import ClusterFile
from muster.cluster.mirror import Kind, Mirrored
from muster.derived.output import Option, Site
from muster.kernel.errors import Misconfigured, Rejected

ENVIRONMENT = Option("environment", "The lifecycle environment. [default: the last of the cluster file]", "text")


def environment(cluster: ClusterFile, site: Site) -> str:
    """Return the environment that hosts are told of.

    Raises:
        Misconfigured: nothing is mirrored.
        Rejected: there is none of that name.
    """
    mirror = cluster.content.mirror if cluster.content is not None else None
    if mirror is None or not mirror.repositories:
        raise Misconfigured("The cluster file mirrors no repositories: content: {mirror: {repositories: …}}")
    named = site.given.get("environment")
    if named is not None and named not in mirror.environments:
        raise Rejected(f"{named!r} is no environment; there are {', '.join(mirror.environments)}")
    return str(named or mirror.environments[-1])


def mirrored(balancing: Balancing, cluster: ClusterFile, site: Site, kind: Kind) -> Iterator[tuple[str, str, Mirrored]]:
    """Return name, URL and settings of each repository of a kind.

    Raises:
        Misconfigured: nothing of the kind is mirrored, or the balancer offers no https.
        Rejected: there is no such environment.
    """
    stage, service = environment(cluster, site), balancing.service("https")
    if service is None:
        raise Misconfigured("The balancer offers no https, so hosts get no content behind it")
    repositories = cluster.content.mirror.repositories if cluster.content and cluster.content.mirror else {}
    found = [(name, one) for name, one in sorted(repositories.items()) if one.kind == kind]
    if not found:
        raise Misconfigured(f"The cluster file mirrors nothing of kind {kind}")
    for name, one in found:
        below = f"/pulp/content/muster/{word(stage)}/{kind}/{word(name)}"
        yield name, url("https", balancing.address, service.listen_port, below), one
