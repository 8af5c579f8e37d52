"""What a TFTP server counts for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from muster.netboot.tftp.told import Dropped, TransferEnded


class TFTPMetrics:
    """One server's, in one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live = Gauge("muster_tftp_transfers_live", "Files that are being sent over TFTP now", registry=registry)
        self._ended = Counter(
            "muster_tftp_transfers", "Requests over TFTP, by what became of them", ("outcome",), registry=registry
        )
        self._bytes = Counter(
            "muster_tftp_sent_bytes", "Bytes of files that clients have acknowledged over TFTP", registry=registry
        )
        self._resent = Counter("muster_tftp_resent_packets", "Packets that were sent once more", registry=registry)
        self._dropped = Counter(
            "muster_tftp_dropped",
            "Datagrams to the TFTP port without an answer, by why",
            ("reason",),
            registry=registry,
        )

    def ended(self, one: TransferEnded) -> None:
        self._ended.labels(one.outcome).inc()
        self._bytes.inc(one.bytes)
        self._resent.inc(one.resent)

    def dropped(self, why: Dropped) -> None:
        self._dropped.labels(why).inc()
