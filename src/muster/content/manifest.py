"""All that one version of a repository consists of, by digest: what a member has to have before it shows the version."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from muster.kernel.errors import Unavailable

REPOMD = "repodata/repomd.xml"
# Of the same version, without a digest in their names. dnf asks for the signature, Anaconda for the others.
BESIDE = ("repodata/repomd.xml.asc", "repodata/repomd.xml.key", "treeinfo", ".treeinfo")
IN_RELEASE, RELEASE = "InRelease", "Release"
PULP_MANIFEST = "PULP_MANIFEST"
# Made by whoever mirrored it: a registry has no file that names its state.
TAGS = "TAGS"
# Of these the first that a version has names it.
_ENTRIES = (REPOMD, IN_RELEASE, RELEASE, PULP_MANIFEST, TAGS)
_DIGEST = re.compile(r"[0-9a-f]{64}\Z")


@dataclass(frozen=True)
class Manifest:
    """One version.

    Attributes:
        revision: of its ``repomd.xml``, -1 where that is no number; of a deb suite and of files -1.
        timestamp: the newest of what it names; of a deb suite its date; of files 0.
        files: the SHA-256 of each file, by its path below the repository.
        packages: the SHA-256 of the index of its packages (:mod:`muster.content.index`), empty: it names none.
    """

    revision: int
    timestamp: float
    files: Mapping[str, str]
    packages: str

    @property
    def digest(self) -> str:
        """That of its ``repomd.xml``, ``PULP_MANIFEST``, ``TAGS``, ``InRelease`` or, where there is none, ``Release``."""
        return next(self.files[name] for name in _ENTRIES if name in self.files)

    @property
    def needed(self) -> frozenset[str]:
        """What has to lie on a disk."""
        return frozenset(d for d in (*self.files.values(), self.packages) if d)

    def written(self) -> bytes:
        """Return the same bytes for the same version, on every member."""
        said = {
            "revision": self.revision, "timestamp": self.timestamp, "files": self.files, "packages": self.packages,
        }  # fmt: skip
        return json.dumps(said, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def read(cls, body: bytes) -> Manifest:
        """Return what :meth:`written` wrote, here or on another member.

        Raises:
            Unavailable: this is none.
        """
        try:
            said = json.loads(body)
            found = cls(int(said["revision"]), float(said["timestamp"]), dict(said["files"]), str(said["packages"]))
            digests = [*found.files.values(), *([found.packages] if found.packages else [])]
            if found.files.keys().isdisjoint(_ENTRIES) or not all(
                isinstance(d, str) and _DIGEST.match(d) for d in digests
            ):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unavailable("What another member has of a repository is no list of its files") from None
        return found
