"""The archive: sorted, owned by nobody in particular, with the time of the run: the same files are the same bytes."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Sequence
from datetime import datetime

from muster.cli.support_bundle.collecting import Part

_DIRECTORY = "muster-support"


def archived(parts: Sequence[Part], at: datetime) -> bytes:
    """Return a tar archive, compressed, of all parts that have a content."""
    seconds, whole = int(at.timestamp()), io.BytesIO()
    with (
        gzip.GzipFile(fileobj=whole, mode="wb", mtime=seconds, filename="") as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for part in sorted(parts, key=lambda p: p.name):
            if part.content is None:
                continue
            entry = tarfile.TarInfo(f"{_DIRECTORY}/{part.name}")
            entry.size, entry.mtime, entry.mode = len(part.content), seconds, 0o600
            tar.addfile(entry, io.BytesIO(part.content))
    return whole.getvalue()
