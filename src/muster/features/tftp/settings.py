"""Settings of the TFTP feature, under the names that the Ruby module has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from muster.cluster.values import Host, Seconds
from muster.edge.feature import FeatureSettings


class TFTPSettings(FeatureSettings):
    """The TFTP feature: Foreman writes what hosts boot into the cluster's tree of boot files."""

    tftproot: Path | None = None
    """The directory of each member that its TFTP server serves: ``/var/lib/tftpboot``, ``/srv/tftp``. Absent: wherever the
    tree stands; one that is not there is reported, and changes nothing."""
    tftp_servername: Host | None = None
    """Where hosts are told to find the TFTP server: an address, or a name that has one. Absent: Foreman tells the name by
    which it calls the Smart Proxy, and that is the balancer, which no TFTP passes."""
    tftp_connect_timeout: Seconds = 10.0
    """Seconds that an origin of boot files may take to accept a connection."""
    verify_server_cert: bool = True
    """Whether an origin's certificate is verified when boot files are fetched over HTTPS."""
    fetch_wait_s: Annotated[float, Field(ge=0, le=50)] = 20.0
    """How long Foreman is kept waiting for a boot file; then it hears of success, as it does at once from the Ruby module,
    and the fetching goes on. Foreman itself waits a minute. 0: it waits for nothing, and hears of no failure."""
