"""What a TFTP server is told: where its files are, where it listens, and its bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from muster.kernel.errors import Misconfigured, Rejected
from muster.kernel.names import ip_address
from muster.netboot.tftp.packets import ErrorCode
from muster.netboot.tftp.terms import LARGEST_BLKSIZE, LEAST_BLKSIZE

PORT: Final = 69


@dataclass(frozen=True, slots=True)
class TFTPSettings:
    """All of them have a default but the root.

    Attributes:
        root: what clients name is looked for below it; it may be replaced by a rename.
        addresses: to listen on; ``0.0.0.0`` and ``::`` are all of a family.
        port: 0 is any free one.
        data_ports: first and last of the ports that files are sent from, for a firewall; None: whichever the system gives.
        blksize_limit: in bytes. A client that asks for more gets what fits into one packet on its way, at most this.
        windowsize_limit: in blocks, of what RFC 7440 lets a client ask.
        window_limit_bytes: windowsize times blksize; so much memory a transfer needs, and 64 KiB.
        transfers_limit, transfers_per_client: at the same time; a request beyond is not answered, and clients ask again.
        requests_per_s, requests_at_once: of all clients; so many each second, and so many at once after a rest.
        client_requests_per_s, client_requests_at_once: of one client address.
        attempts: how often one packet is sent when nothing comes back.
        longest_s: what one transfer may take.
        drain_s: what transfers have left when the server stops.
        reader_threads: they wait for the disk.
        segmentation: the kernel cuts a window into packets where it can (UDP_SEGMENT), which is several times cheaper.
    """

    root: Path
    addresses: Sequence[str] = ("0.0.0.0", "::")
    port: int = PORT
    data_ports: tuple[int, int] | None = None
    blksize_limit: int = LARGEST_BLKSIZE
    windowsize_limit: int = 64
    window_limit_bytes: int = 256 << 10
    transfers_limit: int = 1000
    transfers_per_client: int = 64
    requests_per_s: float = 2000.0
    requests_at_once: int = 4000
    client_requests_per_s: float = 50.0
    client_requests_at_once: int = 200
    attempts: int = 6
    longest_s: float = 3600.0
    drain_s: float = 30.0
    reader_threads: int = 8
    segmentation: bool = True

    def __post_init__(self) -> None:
        """Raise Misconfigured where a value is out of its range."""
        try:
            for address in self.addresses:
                ip_address(address)
        except Rejected as e:
            raise Misconfigured(f"TFTP cannot listen: {e}") from e
        if self.data_ports is not None and not 1 <= self.data_ports[0] <= self.data_ports[1] <= 65535:
            raise Misconfigured("data_ports are two ports, the smaller first")
        for name, least, most in _RANGES:
            if not least <= getattr(self, name) <= most:
                raise Misconfigured(f"{name} is from {least} to {most}, not {getattr(self, name)}")


_RANGES: Final = (
    ("port", 0, 65535),
    ("blksize_limit", LEAST_BLKSIZE, LARGEST_BLKSIZE),
    ("windowsize_limit", 1, 65535 // 2),
    ("window_limit_bytes", LEAST_BLKSIZE, 64 << 20),
    ("transfers_limit", 1, 100_000),
    ("transfers_per_client", 1, 100_000),
    ("requests_per_s", 0.1, 1e6),
    ("requests_at_once", 1, 1_000_000),
    ("client_requests_per_s", 0.1, 1e6),
    ("client_requests_at_once", 1, 1_000_000),
    ("attempts", 1, 100),
    ("longest_s", 1, 86_400),
    ("drain_s", 0, 3600),
    ("reader_threads", 1, 64),
)

# Kept beside the bounds, because the words of both reach firmware's screen.
WORDS: Final = {
    ErrorCode.FILE_NOT_FOUND: "File not found",
    ErrorCode.ACCESS_VIOLATION: "Access violation",
    ErrorCode.ILLEGAL_OPERATION: "Illegal TFTP operation",
    ErrorCode.UNKNOWN_TRANSFER_ID: "Unknown transfer ID",
}
