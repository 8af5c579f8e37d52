"""Where the cluster's own certificates are, as the options say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING

from muster.cli.options import cluster_option, pki_directory, pki_option
from muster.kernel.clock import SystemClock

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


@dataclass(frozen=True)
class Place:
    """Where the cluster file and the certificates are; the file is read when first asked for."""

    cluster_file: Path
    pki: Path
    now: datetime

    @cached_property
    def cluster(self) -> ClusterFile:
        from muster.cluster.file import load

        return load(self.cluster_file)[0]

    @property
    def ca_file(self) -> Path:
        from muster.pki.authority import ca_paths

        return ca_paths(self.pki)[0]


def placed(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command its place instead of the two options that name it."""

    @wraps(command)
    def with_place(*arguments: object, cluster_path: Path, pki_path: Path | None, **named: object) -> None:
        place = Place(cluster_path, pki_directory(cluster_path, pki_path), SystemClock().now())
        command(place, *arguments, **named)

    return cluster_option(pki_option(with_place))
