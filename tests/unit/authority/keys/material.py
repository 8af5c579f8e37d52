"""Key files, and all that a CA signs with its key."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from muster.authority.x509 import csr, profile
from muster.authority.x509.profile import CAKey
from tests.servers import puppetca
from tests.servers.puppetca import NewCA

NOW = datetime.now(UTC)


def put(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def everything_signed(ca: NewCA, key: CAKey) -> None:
    """Sign all that a CA signs with this key, and verify it with the CA's certificate."""
    request = csr.read(puppetca.agent("a.example.net").csr)
    leaf = profile.signed_leaf(request, ca.issuer, key, serial=7, now=NOW, ttl=timedelta(days=1))
    leaf.verify_directly_issued_by(ca.issuer.certificate)
    again = profile.renewed_leaf(leaf, ca.issuer, key, serial=8, now=NOW, ttl=timedelta(days=1))
    again.verify_directly_issued_by(ca.issuer.certificate)
    listed = profile.signed_list(ca.issuer, key, [(7, NOW)], number=1, now=NOW, ttl=timedelta(days=1))
    assert listed.is_signature_valid(ca.issuer.certificate.public_key())  # type: ignore[arg-type]
