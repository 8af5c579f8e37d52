"""Whose certificate a command shows when it asks members: the balancer's for readiness, Foreman's for what Foreman asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.cluster.file import ClusterFile
    from muster.pki.context import Credentials


def credentials(pki: Path, cluster: ClusterFile) -> Credentials:
    """Return those for questions to members: our CA, and the balancer's check certificate when it is here."""
    from muster.pki.bundles import paths
    from muster.pki.context import Credentials

    bundle = paths(pki, "balancer", "balancer")
    certificate = bundle.certificate if bundle.certificate.exists() else None
    return Credentials(pki / "ca.pem", certificate, site_ca_file=cluster.foreman.ca_file)


def client_bundle(pki: Path, trusted: Sequence[str], client: str | None) -> tuple[Path | None, Path | None]:
    """Return certificate and key of the named client, else of the first trusted host, else of the balancer's checks.

    Raises:
        NotFound: the named client has no bundle here.
    """
    from muster.kernel.errors import NotFound
    from muster.pki.bundles import paths

    for name in [client] if client else [str(t) for t in trusted]:
        bundle = paths(pki, "client", name)
        if bundle.certificate.exists():
            return bundle.certificate, bundle.key
    if client:
        raise NotFound(f"There is no client bundle {client} in {pki}; muster certs issue --client {client} makes it")
    check = paths(pki, "balancer", "balancer").certificate
    return (check, None) if check.exists() else (None, None)
