"""The page's style sheet and script: under their digests, so that browsers keep them for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PREFIX = "/cluster"
_HERE = Path(__file__).parent / "static"
_TYPES = {".css": b"text/css; charset=utf-8", ".js": b"text/javascript; charset=utf-8", ".svg": b"image/svg+xml"}
_DIGEST = 16


@dataclass(frozen=True)
class Asset:
    """A file as it is served."""

    name: str
    content_type: bytes
    body: bytes

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:_DIGEST]

    @property
    def path(self) -> str:
        return f"{PREFIX}/static/{self.digest}/{self.name}"


ASSETS: Mapping[str, Asset] = {
    file.name: Asset(file.name, _TYPES[file.suffix], file.read_bytes())
    for file in sorted(_HERE.iterdir())
    if file.suffix in _TYPES
}
PATHS: Mapping[str, str] = {name: asset.path for name, asset in ASSETS.items()}
