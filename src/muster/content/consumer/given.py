"""The package that a member gives to hosts: the newest of the store, on this disk, so that it is there without the store.

It is one file, which the member writes and all its processes read.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from muster.content.consumer.contents import CALLED
from muster.content.consumer.ledger import Package
from muster.content.validators import Digest
from muster.kernel import log
from muster.kernel.errors import Unavailable
from muster.kernel.files import fingerprint, make_directory, write_atomically

_log = log.logger("content")

FILE = "consumer.json"
# What hosts of Katello, and their scripts, ask for.
LATEST_RPM = f"{CALLED}-latest.noarch.rpm"
LATEST_DEB = f"{CALLED}-latest.deb"
_LATEST = (LATEST_RPM, LATEST_DEB)
_RPM, _DEB = b"application/x-rpm", b"application/vnd.debian.binary-package"


@dataclass(frozen=True, slots=True)
class Text:
    """A text, or a package, with the digest of its bytes."""

    body: bytes
    content_type: bytes
    digest: Digest

    @classmethod
    def of(cls, body: bytes, content_type: bytes) -> Text:
        return cls(body, content_type, Digest("sha256", hashlib.sha256(body).hexdigest()))


class Given:
    """The package of one file. Concurrency: one event loop a process; one process writes."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._seen: tuple[object, ...] | None = None
        self._texts: dict[str, Text] = {}
        self._key: tuple[int, str] = (0, "")

    @property
    def key(self) -> tuple[int, str]:
        """Number and digest of contents of what is there; (0, ""): nothing is."""
        self._look()
        return self._key

    def text(self, name: str) -> Text | None:
        """Return what is called so; None: nothing is.

        Raises:
            Unavailable: hosts ask for the newest, and this member has none yet.
        """
        if not name.startswith(CALLED):
            return None
        self._look()
        if name in _LATEST and not self._texts:
            raise Unavailable(
                f"/pub/{name} is not here: this member has not had the package from the store yet; ask again soon"
            )
        return self._texts.get(name)

    def write(self, package: Package, digest: str) -> None:
        """Give this one from now on.

        Raises:
            Unavailable: the disk refused; what was given before is still.
        """
        make_directory(self._file.parent, mode=0o700)
        said = {
            "number": package.number, "digest": digest, "name": package.name,
            "rpm": base64.b64encode(package.rpm).decode(), "deb": base64.b64encode(package.deb).decode(),
            "sha256": _sum(package),
        }  # fmt: skip
        write_atomically(self._file, json.dumps(said).encode(), mode=0o600)

    def _look(self) -> None:
        now = fingerprint(self._file)
        if now == self._seen:
            return
        self._seen = now
        try:
            said = json.loads(self._file.read_bytes())
            bytes_of_rpm, bytes_of_deb = (base64.b64decode(said[kind], validate=True) for kind in ("rpm", "deb"))
            package = Package(int(said["number"]), str(said["name"]), bytes_of_rpm, bytes_of_deb)
            # Earlier builds wrote none.
            if said.get("sha256", _sum(package)) != _sum(package):
                raise ValueError("its bytes are not those that were written")
            self._key = (package.number, str(said["digest"]))
        except FileNotFoundError:
            # This process has it still; one that starts later has nothing until it is written anew.
            self._key = (0, "")
            return
        except (OSError, ValueError, KeyError, TypeError) as e:
            # What was read before is still good; a member that starts gets it anew from the store.
            _log.warning(f"The package for hosts cannot be read in {self._file}", why=str(e))
            self._key = (0, "")
            return
        rpm, deb = Text.of(package.rpm, _RPM), Text.of(package.deb, _DEB)
        self._texts = {
            LATEST_RPM: rpm,
            f"{package.name}-{package.version}-1.noarch.rpm": rpm,
            LATEST_DEB: deb,
            f"{package.name}_{package.version}-1_all.deb": deb,
        }


def _sum(package: Package) -> str:
    return hashlib.sha256(package.rpm + package.deb).hexdigest()
