"""Whose certificate a command shows when it asks members: the balancer's for readiness, Foreman's for what Foreman asks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muster.cluster.file import ClusterFile
    from muster.pki.context import Credentials


def ca_file(pki: Path) -> Path:
    """Return the file of the cluster's CA, for who cannot ask anybody without it.

    Raises:
        Misconfigured: there is none.
    """
    from muster.kernel.errors import Misconfigured

    file = pki / "ca.pem"
    try:
        is_absent = not file.exists()
    except OSError:
        # Not ours to see; who opens it says why.
        is_absent = False
    if is_absent:
        raise Misconfigured(
            f"There is no CA file {file}, so no member can be asked; run this on a host that has the cluster's "
            "certificates, name their directory with --pki or MUSTER_PKI, or make them with muster certs init"
        )
    return file


def credentials(pki: Path, cluster: ClusterFile) -> Credentials:
    """Return those for questions to members: our CA, and the balancer's check certificate when it is here.

    Raises:
        Misconfigured: the CA is not here.
    """
    ca_file(pki)
    return credentials_here(pki, cluster)


def credentials_here(pki: Path, cluster: ClusterFile) -> Credentials:
    """As :func:`credentials`, for who finds out by himself what is not here."""
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
