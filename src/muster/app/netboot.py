"""The tree of boot files, as the root puts it together."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from muster import features as rooms
from muster.netboot.disk import Disk
from muster.netboot.ledger import FEATURES, Ledger
from muster.netboot.tree import Tree

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.store.engine import Store

_DIRECTORY = "netboot"


def is_needed(cluster: ClusterFile) -> bool:
    """Whether a feature of the cluster serves boot files."""
    return any(rooms.enabled(cluster, name) for name in FEATURES)


def services(cluster: ClusterFile) -> list[str]:
    """Return the services of members that answer for boot files."""
    on = {rooms.enabled(cluster, name) for name in FEATURES}
    return [s for s, word in (("smartproxy", "https"), ("anaconda", "http")) if on & {word, True}]


def root_of(cluster: ClusterFile, state: Path) -> Path:
    """Return the directory of the tree on a member that writes its own files below ``state``."""
    given = cluster.netboot.root or cluster.features.get("tftp", {}).get("tftproot")
    return Path(given) if given else state / _DIRECTORY


def opened(stack: contextlib.AsyncExitStack, cluster: ClusterFile, member: str, state: Path, store: Store) -> Tree:
    """Return this member's tree; its directory, and the store, are looked at by its first beat."""
    tree = Tree(Ledger(store), Disk(root_of(cluster, state)), member, confirm_s=cluster.netboot.confirm_s)
    stack.push_async_callback(tree.close)
    return tree
