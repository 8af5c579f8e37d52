"""The cluster file as every room finds it, and the store it names."""

from __future__ import annotations

import contextlib
from pathlib import Path

from muster import features as rooms
from muster.balancer.model import modelled
from muster.balancer.model import problems as balancer_problems
from muster.cluster import file as cluster_file
from muster.cluster.file import ClusterFile
from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.files import read_bounded
from muster.kernel.secrets import Secret
from muster.kernel.settings import Document, InvalidSettings, Problem, read
from muster.store.engine import Store
from muster.store.engine import opened as store_opened
from muster.store.place import Place, unverified


def checked(path: Path) -> tuple[ClusterFile | None, list[Problem]]:
    """Read a cluster file and return it, None when it cannot be used, with every room's findings in order of lines.

    Raises:
        Misconfigured: the file cannot be read.
    """
    try:
        document = read(path)
    except InvalidSettings as e:
        return None, list(e.problems)
    found, cluster = _problems(document)
    return (None if found else cluster), sorted(found, key=lambda p: p.line)


def loaded(path: Path) -> ClusterFile:
    """As :func:`checked`, for those who need a usable file.

    Raises:
        InvalidSettings: with every problem.
    """
    cluster, found = checked(path)
    if cluster is None:
        raise InvalidSettings(str(path), found)
    return cluster


def _problems(document: Document) -> tuple[list[Problem], ClusterFile | None]:
    cluster: ClusterFile | None = None
    found: list[Problem] = []
    try:
        cluster = document.parsed(ClusterFile)
    except InvalidSettings as e:
        found.extend(e.problems)
    for room in (cluster_file.problems, balancer_problems, rooms.problems):
        found.extend(room(document))
    if cluster is not None and not found:
        try:
            modelled(cluster)
        except (Misconfigured, Rejected) as e:
            found.append(Problem(0, "services", str(e)))
    return found, cluster


def warnings(path: Path, cluster: ClusterFile) -> list[Problem]:
    """Return what of a file that can be used is probably not meant, or not safe, in order of lines."""
    found = doubts(path, cluster)
    document = read(path)
    with contextlib.suppress(Misconfigured):
        # A URL that cannot be read is the store's to refuse.
        found += [document.problem(("store", "url"), unverified(h)) for h in Place.parsed(cluster.store.url).unverified]
    return sorted(found, key=lambda p: p.line)


def doubts(path: Path, cluster: ClusterFile) -> list[Problem]:
    """As :func:`warnings`, less what other checks of the doctor find out about this host and the store."""
    document = read(path)
    found = [w for room in (cluster_file.warnings, rooms.warnings) for w in room(document, cluster)]
    puppetca = cluster.services.get("puppetca")
    if cluster.authority is not None and puppetca is not None and not puppetca.enabled:
        sentence = "is disabled, though authority: makes the members a Puppet CA; no balancer offers it"
        found.append(document.problem(("services", "puppetca", "enabled"), sentence))
    return sorted(found, key=lambda p: p.line)


def store_password(cluster: ClusterFile) -> Secret | None:
    """Return the first line of the store's password file, if the cluster has one.

    Raises:
        Misconfigured: it cannot be read or is empty.
    """
    path = cluster.store.password_file
    if path is None:
        return None
    lines = read_bounded(path, what="store password file", limit_bytes=4096).decode("utf-8", "replace").splitlines()
    if not lines or not lines[0].strip():
        raise Misconfigured(f"The store password file {path} is empty")
    return Secret(lines[0].strip())


def cluster_store(cluster: ClusterFile) -> contextlib.AbstractAsyncContextManager[Store]:
    """Open the cluster's store; it may be down, then its units say so."""
    return store_opened(
        cluster.store.url,
        password=store_password(cluster),
        connect_timeout_s=cluster.store.connect_timeout_s,
        statement_timeout_s=cluster.store.statement_timeout_s,
    )
