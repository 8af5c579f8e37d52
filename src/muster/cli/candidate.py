"""A cluster file that is to replace the one that is there."""

from __future__ import annotations

import tempfile
from pathlib import Path


def checked(path: Path, text: str) -> None:
    """Refuse a cluster file that could not be used, before it replaces the one that can."""
    from muster.app import settings
    from muster.kernel.files import write_atomically
    from muster.kernel.settings import InvalidSettings

    # Not beside the file: a dry run changes nothing in its directory either.
    with tempfile.TemporaryDirectory(prefix="muster-cluster-") as directory:
        candidate = Path(directory) / path.name
        write_atomically(candidate, text, mode=0o600)
        _, problems = settings.checked(candidate)
    if problems:
        raise InvalidSettings(str(path), problems)
