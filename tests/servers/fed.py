"""Members of one cluster of which some have dhcpd's files, and the others are told by those what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from muster.app.settings import loaded
from muster.edge.feature import Surroundings
from muster.kernel.files import write_atomically
from muster.pki.bundles import BundlePaths, paths
from muster.policy.metered import OperationMetrics
from tests.servers.dhcpd import DHCPServer
from tests.servers.member import Member, together

__all__ = ["around", "bundle", "made", "replica"]


def made(directory: Path, server: DHCPServer, *, count: int, having: int = 1, **isc: Any) -> list[Member]:
    """Return so many members with DHCP by that dhcpd, none started; the first ``having`` of them have its files."""
    members, _ = together(directory, [lambda _address: None] * count)
    named = [m.name for m in members[:having]]
    settings = {**server.settings, "timeout_s": 3, "files_on": named, **isc}
    features = {"dhcp": {"provider": "isc", "isc": settings, "ping_free_ip": False}}
    for member in members:
        _with_features(member, features)
    return members


def around(member: Member, metrics: OperationMetrics) -> Surroundings:
    """Return the surroundings of a member that need not run."""
    mine = bundle(member)
    return Surroundings(
        member.name, metrics, mine.certificate, mine.key, mine.ca,
        cluster=loaded(member.cluster_file), state=member.directory / "state",
    )  # fmt: skip


def bundle(member: Member) -> BundlePaths:
    """Return a member's own certificate files."""
    return paths(member.pki, "member", member.name)


def replica(member: Member) -> Sequence[Path]:
    """Return where a running member keeps its copies: dhcpd.conf and dhcpd.leases."""
    home = member.pki / "dhcp"
    return home / "dhcpd.conf", home / "dhcpd.leases"


def _with_features(member: Member, features: dict[str, Any]) -> None:
    content = yaml.safe_load(member.cluster_file.read_text())
    write_atomically(member.cluster_file, yaml.safe_dump({**content, "features": features}))
