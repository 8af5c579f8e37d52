"""What the doctor can find out about boot files over HTTP: is there what is to be served, and is it what TFTP has?"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from muster.features.httpboot.settings import HTTPBootSettings
from muster.kernel.findings import Check, Finding

_PLACE = "feature httpboot"


def checks(settings: HTTPBootSettings, tftproot: Path | None) -> list[Check]:
    """Return the check of the directory that the settings name. ``tftproot``: what TFTP's name; None: the tree's."""
    root = settings.root_dir
    if root is None:
        return []

    async def directory() -> Sequence[Finding]:
        return await asyncio.to_thread(_of_directory, root, tftproot)

    return [Check(_PLACE, directory)]


def _of_directory(root: Path, tftproot: Path | None) -> Sequence[Finding]:
    if tftproot is None or root.absolute() != tftproot.absolute():
        return [
            Finding(
                "HTTPBOOT-OTHER-ROOT",
                _PLACE,
                f"HTTPBoot serves {root}, and nobody sees to it that all members have the same there",
                "root_dir names another directory than that of the cluster's boot files.",
                "Take root_dir out of features: httpboot:, unless the directory is shared, or filled by something else.",
                "warning",
            ),
            *_absent(root),
        ]
    return _absent(root)


def _absent(root: Path) -> Sequence[Finding]:
    if root.is_dir() and os.access(root, os.R_OK | os.X_OK):
        return []
    return [
        Finding(
            "HTTPBOOT-ROOT-ABSENT",
            _PLACE,
            f"{root}, which root_dir names, is no directory that can be read on this host",
            "Only members need it; on a member it is elsewhere, or for other accounts.",
            "On a member: correct root_dir, or let the account muster read it. Elsewhere: run muster doctor on one, too.",
            "warning",
        )
    ]
