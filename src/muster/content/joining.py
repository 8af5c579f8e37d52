"""What members have below ``/pub`` for hosts that join: the program, what it asks, the CA that hosts meet, a package.

Repositories are there, too. The bytes are the same on every member, whatever its directory of ``/pub`` holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from muster.cluster.file import ClusterFile
from muster.content.consumer.given import Given, Text
from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.files import fingerprint, read_bounded
from muster.pki import pem as pems
from muster.pki.facts import is_ca

PROGRAM = "muster-bootstrap"
CA = "muster-ca.pem"
# What hosts of Katello look for; a registration or a page that names it goes on working.
_KATELLO_CA = "katello-server-ca.crt"
_SUM = f"{PROGRAM}.sha256"


def authorities(cluster: ClusterFile, own: Path) -> tuple[Path, ...]:
    """Return the files of the CAs by which hosts know whoever answers at the address.

    ``own`` is the file of a member's own CA. Members of kind ``foreman`` mostly show what Foreman's CA issued.
    """
    site = cluster.foreman.ca_file if any(m.kind == "foreman" for m in cluster.members) else None
    return (own, site) if site is not None else (own,)


class Joining:
    """The texts by name. Concurrency: one event loop.

    ``told`` are those that follow from the cluster file, ``authorities`` the files of the CAs, which are read again when
    they change, ``given`` the package that hosts install.
    """

    def __init__(self, told: Mapping[str, str], authorities: Sequence[Path], given: Given | None = None) -> None:
        program = resources.files("muster.client").joinpath("bootstrap.py").read_bytes()
        self._authorities = tuple(authorities)
        self._given = given
        self._texts = {
            PROGRAM: Text.of(program, b"text/x-python;charset=utf-8"),
            _SUM: Text.of(f"{hashlib.sha256(program).hexdigest()}  {PROGRAM}\n".encode(), b"text/plain;charset=utf-8"),
        }
        for name, text in told.items():
            is_json = name.endswith(".json")
            self._texts[name] = Text.of(text.encode(), b"application/json" if is_json else b"text/plain;charset=utf-8")
        self._ca: tuple[object, Text] | None = None

    def text(self, name: str) -> Text | None:
        """Return what is called so; None: nothing is.

        Raises:
            Unavailable: the CA cannot be read now, or the package is not here yet.
        """
        if name in (CA, _KATELLO_CA):
            return self._read()
        found = self._texts.get(name)
        return self._given.text(name) if found is None and self._given is not None else found

    def body(self, name: str) -> bytes:
        """Return the bytes of one that is there; raises as :meth:`text`, also where nothing is."""
        if (found := self.text(name)) is None:
            raise Unavailable(f"This member has no {name} for hosts")
        return found.body

    def _read(self) -> Text:
        now = fingerprint(*self._authorities)
        if self._ca is None or self._ca[0] != now:
            self._ca = now, Text.of(_bundle(self._authorities), b"application/x-pem-file")
        return self._ca[1]


def _bundle(paths: Sequence[Path]) -> bytes:
    """Return the CAs of the files, each once and in the same order on every member."""
    found: dict[bytes, x509.Certificate] = {}
    for path in paths:
        try:
            pem = read_bounded(path, what="CA file", limit_bytes=pems.MAX_PEM_BYTES)
            read = pems.certificates(pem, f"The CA file {path}")
        except MusterError as e:
            raise Unavailable(f"The CA cannot be read: {e}") from e
        found.update((c.fingerprint(hashes.SHA256()), c) for c in read if is_ca(c))
    return pems.text(found[digest] for digest in sorted(found)).encode()
