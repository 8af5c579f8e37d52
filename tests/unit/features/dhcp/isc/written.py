"""Blocks as dhcpd 4.4 writes them into its leases file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TOMORROW = NOW + timedelta(days=1)
EARLIER = NOW - timedelta(hours=1)


def lease(
    ip: str = "192.168.120.20",
    mac: str | None = "52:54:00:00:00:20",
    *,
    ends: datetime | None = TOMORROW,
    state: str = "active",
    more: str = "",
) -> str:
    """Return a lease; ``ends`` None: never; ``more``: lines before the brace, with their indent."""
    until = "never" if ends is None else f"{ends:%w %Y/%m/%d %H:%M:%S}"
    hardware = f"  hardware ethernet {mac};\n" if mac else ""
    return (
        f"lease {ip} {{\n  starts 0 2026/11/22 06:34:24;\n  ends {until};\n  tstp {until};\n"
        f"  cltt 0 2026/11/22 06:34:24;\n  binding state {state};\n  next binding state free;\n"
        f"  rewind binding state free;\n{hardware}{more}}}\n"
    )


def host(
    name: str = "dyn1.example.com",
    mac: str = "52:54:00:00:02:01",
    ip: str = "192.168.120.160",
    *,
    statements: str = "",
    deleted: bool = False,
) -> str:
    """Return a host that was made over OMAPI."""
    if deleted:
        return f"host {name} {{\n  dynamic;\n  deleted;\n}}\n"
    return f"host {name} {{\n  dynamic;\n  hardware ethernet {mac};\n  fixed-address {ip};\n{statements}}}\n"
