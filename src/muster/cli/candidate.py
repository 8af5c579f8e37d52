"""A cluster file that is to replace the one that is there, or to be the first."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile


def checked(path: Path, text: str) -> ClusterFile:
    """Return what a cluster file says, and refuse one that could not be used before it replaces the one that can."""
    from muster.app import settings
    from muster.kernel.files import write_atomically
    from muster.kernel.settings import InvalidSettings

    # Not beside the file: a dry run changes nothing in its directory either.
    with tempfile.TemporaryDirectory(prefix="muster-cluster-") as directory:
        candidate = Path(directory) / path.name
        write_atomically(candidate, text, mode=0o600)
        cluster, problems = settings.checked(candidate)
    if cluster is None:
        raise InvalidSettings(str(path), problems)
    return cluster


def checked_first(path: Path, text: str) -> ClusterFile:
    """As :func:`checked`, of a text that lies nowhere: nobody could look up the lines there."""
    from muster.kernel.settings import InvalidSettings

    try:
        return checked(path, text)
    except InvalidSettings as e:
        raise InvalidSettings(f"{path}, which was not written,", e.problems) from None


def write_first(path: Path, text: str, *, force: bool, dry_run: bool) -> None:
    """Check a first cluster file, and write it unless one is there.

    Raises:
        InvalidSettings: it could not be used.
        Conflict: there is one, and nobody forces it away.
    """
    from muster.kernel.errors import Conflict
    from muster.kernel.files import write_atomically

    checked_first(path, text)
    if path.exists() and not force:
        raise Conflict(f"{path} is there already and stays as it is (--force replaces it)")
    if not dry_run:
        # Muster's account reads it, whoever writes it.
        write_atomically(path, text, mode=0o644)
