"""The certificates that lie on this host: the cluster's CA and every bundle, with what stands in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from muster.kernel.errors import MusterError
from muster.kernel.files import read_bounded
from muster.pki.bundles import present
from muster.pki.facts import CertificateFacts


@dataclass(frozen=True)
class Listed:
    """A file with a certificate.

    Attributes:
        kind: ``ca``, ``file``, or the bundle's.
        facts: of its first certificate; None: it cannot be read, and ``problem`` says why.
    """

    kind: str
    name: str
    path: Path
    facts: CertificateFacts | None = None
    problem: str = ""

    @classmethod
    def of(cls, kind: str, name: str, path: Path) -> Self:
        """Read a file."""
        try:
            return cls(kind, name, path, CertificateFacts.from_pem(read_bounded(path, what="certificate"), str(path)))
        except MusterError as e:
            return cls(kind, name, path, problem=str(e))

    def as_json(self) -> dict[str, Any]:
        said: dict[str, Any] = {"kind": self.kind, "name": self.name, "path": str(self.path)}
        return said | (self.facts.as_json() if self.facts is not None else {"problem": self.problem})


def listed(pki: Path) -> list[Listed]:
    """Return the CA and all bundles of a directory; empty when there is nothing."""
    ca = pki / "ca.pem"
    found = [Listed.of("ca", "", ca)] if ca.exists() else []
    return found + [Listed.of(b.kind, b.name, b.certificate) for b in present(pki)]
