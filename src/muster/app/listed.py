"""The cluster file while a member runs: who comes and goes is learned at once, all else holds until the next start."""

from __future__ import annotations

from pathlib import Path

from muster.app.settings import loaded
from muster.cluster.file import ClusterFile
from muster.kernel import log
from muster.kernel.errors import MusterError
from muster.kernel.files import fingerprint

_log = log.logger("app")


class Listed:
    """The cluster with the members that its file lists now.

    Attributes:
        latest: the file as it was last read, whole; deciding for the cluster goes by it.
    """

    def __init__(self, path: Path, cluster: ClusterFile) -> None:
        self.latest = cluster
        self._path = path
        self._started = cluster
        self._seen: tuple[object, ...] = ()

    @property
    def cluster(self) -> ClusterFile:
        """The cluster as it was at the start, but with today's members."""
        return self._started.model_copy(update={"members": self.latest.members})

    def look(self) -> None:
        """Read the file if it changed."""
        now = fingerprint(self._path)
        if now == self._seen:
            return
        self._seen = now
        try:
            self.latest = loaded(self._path)
        except MusterError as e:
            _log.warning("The changed cluster file cannot be used; the members of the old one count", why=str(e))
