"""External IPAM of a cluster, as commands find it: its cluster file and settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from muster.kernel.errors import Misconfigured

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.features.externalipam.settings import ExternalIPAMSettings


def read(cluster_path: Path) -> tuple[ClusterFile, ExternalIPAMSettings]:
    """Return the cluster and its settings of External IPAM.

    Raises:
        Misconfigured: it has no such feature.
    """
    from muster.app.settings import loaded
    from muster.features.externalipam.settings import ExternalIPAMSettings
    from muster.kernel import log

    # What would be logged is raised; unconfigured, it would also stand between the lines of the answer.
    log.configure(level="ERROR")
    cluster = loaded(cluster_path)
    settings = ExternalIPAMSettings.model_validate(cluster.features.get("externalipam", {"enabled": False}))
    if not settings.enabled:
        raise Misconfigured(f"{cluster_path} does not name the feature externalipam")
    return cluster, settings
