"""Settings of the HTTPBoot feature, under the names that the Ruby module has."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from muster.edge.feature import FeatureSettings


class HTTPBootSettings(FeatureSettings):
    """The HTTPBoot feature: firmware and boot loaders fetch boot files over HTTP, from any member."""

    is_open: ClassVar[bool] = True

    enabled: Literal["http", "https"] | bool = True
    """``https`` or ``http``: that listener only; ``true``: both, since most firmware speaks plain HTTP; ``false``: off."""
    root_dir: Path | None = None
    """The directory of each member that is served. Absent: the cluster's tree of boot files. Another one is served as it
    is: what is in it, and that it is the same on all members, is then nobody's business here."""
