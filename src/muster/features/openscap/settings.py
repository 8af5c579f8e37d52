"""Settings of the Openscap feature; those that the Ruby plugin has bear its names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from muster.cluster.values import WebURL
from muster.edge.feature import FeatureSettings

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile

NOWHERE = "compliance reports are handed to Foreman, and foreman.url has to say where, with https"


class OpenscapSettings(FeatureSettings):
    """The Openscap feature: hosts' compliance reports are kept in the store, and handed to ``foreman.url`` by any member."""

    registered_proxy_name: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """By which name Foreman knows the Smart Proxy of whose reports it is told. Absent: the cluster's address, or with
    ``foreman.registration: members`` the member's own name."""
    registered_proxy_url: WebURL | None = None
    """By which URL, where it finds no such name. Absent: it follows from the cluster file, as the name."""
    timeout: Annotated[float, Field(gt=0, le=600)] = 60.0
    """How many seconds Foreman may take to begin its answer, and how many a host waits until Foreman has its report."""
    upload_limit_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 30)] = 50 << 20
    """Largest report as it is sent, packed with bzip2; those of whole distributions have about 1 MiB."""
    unpacked_limit_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 32)] = 256 << 20
    """Largest report when it is unpacked."""
    spool_limit_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 1 << 30
    """What reports that Foreman does not have yet, or refused, may take in the store; beyond it hosts are answered 507."""
    host_limit_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = 200 << 20
    """What those of one host may take."""
    reports_kept_days: Annotated[float, Field(gt=0, le=3650)] = 365.0
    """How long a report is kept after Foreman took or refused it. Foreman has those it deletes removed at once, and cannot
    show the details of one that is not there any more."""
    reports_limit_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 44)] = 4 << 30
    """What reports that Foreman has may take in the store; the oldest go first, before all those of hosts
    that have more than ``host_limit_bytes``."""
    content_limit_bytes: Annotated[int, Field(ge=1 << 20, le=1 << 30)] = 128 << 20
    """Largest SCAP content or tailoring file."""

    def doubts(self, cluster: ClusterFile) -> tuple[str, ...]:
        url = cluster.foreman.url
        return () if url is not None and url.startswith("https://") else (f"fails on members: {NOWHERE}",)
