"""What the package consists of, before it is an rpm or a deb. Pure; nothing here writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from muster.cluster.file import ClusterFile

# Part of the digest: what rpm.py and deb.py make of the same contents is another package under another number.
FORM = 2
DIRECTORY = "/usr/share/muster-client"
PROGRAM = f"{DIRECTORY}/muster-bootstrap"
TOLD = f"{DIRECTORY}/muster-client.json"
CA = f"{DIRECTORY}/ca.pem"
CALLED = "katello-ca-consumer"

_INSTALL = f"{PROGRAM} --told {TOLD} --ca-file {CA} --skip puppet"
_REMOVE = f"{PROGRAM} --undo --told {TOLD}"
# A script that fails would fail the transaction around it, or leave a package that nobody can remove: each says what went
# wrong, and goes on.
_INSTALLED = f"""\
python=$(command -v python3 || echo /usr/libexec/platform-python)
if [ ! -x "$python" ]; then
  echo "{CALLED}: there is no Python 3, so nothing was changed. Install python3, then run:" >&2
  echo "python3 {_INSTALL}" >&2
elif ! "$python" -I -B {_INSTALL}; then
  echo "{CALLED}: not all was done, see above. When that is mended, run:" >&2
  echo "$python {_INSTALL}" >&2
fi
"""
_REMOVED = f"""\
python=$(command -v python3 || echo /usr/libexec/platform-python)
if [ ! -x "$python" ]; then
  echo "{CALLED}: there is no Python 3, so what the package changed stays." >&2
elif ! "$python" -I -B {_REMOVE}; then
  echo "{CALLED}: not all was brought back, see above. /var/lib/muster-bootstrap has what was there before." >&2
fi
"""


@dataclass(frozen=True, slots=True)
class File:
    """A file that the package brings, root's."""

    path: str
    text: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Contents:
    """All of the package but its number.

    Attributes:
        files: by path; all in one directory, which is the package's own.
        replaces: names of packages that give way to it.
        installed: shell, when it, or a newer one, is on the disk.
        removed: shell, before it goes for good.
    """

    name: str
    files: tuple[File, ...]
    replaces: tuple[str, ...]
    installed: str = _INSTALLED
    removed: str = _REMOVED
    summary: str = "Have this host trust a cluster of Smart Proxies and find its content"

    @property
    def digest(self) -> str:
        """What two of them differ in when they differ in anything; it does not depend on who compresses how."""
        return hashlib.sha256(json.dumps([FORM, asdict(self)], sort_keys=True).encode()).hexdigest()


def contents(cluster: ClusterFile, *, program: bytes, told: bytes, ca: bytes) -> Contents:
    """Return the cluster's package.

    It takes the place of those that single proxies had made for themselves: one that has become a member was called by its
    own name, and hosts that knew it have a package of that name.
    """
    files = (File(CA, ca.decode()), File(PROGRAM, program.decode(), 0o755), File(TOLD, told.decode()))
    name = _called(str(cluster.address))
    others = {_called(n) for n in _names(cluster)} - {name}
    return Contents(name, files, tuple(sorted(others)))


def _names(cluster: ClusterFile) -> Iterable[str]:
    return (*(str(m.name) for m in cluster.members), *(str(n) for n in cluster.names))


def _called(host: str) -> str:
    return f"{CALLED}-{host.lower()}"
