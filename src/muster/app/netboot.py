"""The tree of boot files, as the root puts it together."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from muster import features as rooms
from muster.app.duties.bootfiles import BootFilesFetched, BootFilesGiven, BootFilesKept, BootFilesVerified
from muster.cluster.roster import Roster
from muster.edge.application import Mounted
from muster.features.tftp.settings import TFTPSettings
from muster.kernel.errors import MusterError, NotFound, Unavailable
from muster.netboot import api
from muster.netboot.answers import Limits
from muster.netboot.contract import FEATURES
from muster.netboot.disk import Disk
from muster.netboot.fetches import Fetches
from muster.netboot.fetching import Fetching, InTree
from muster.netboot.ledger import Ledger
from muster.netboot.origin import Vouching, fetched
from muster.netboot.peers import Peers, Sibling
from muster.netboot.tftp.metrics import TFTPMetrics
from muster.netboot.tree import Tree
from muster.pki.context import RenewedContext

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from muster.app.duties.duty import Duty
    from muster.app.listed import Listed
    from muster.balancer.model import Balancing
    from muster.cluster.file import ClusterFile, Member
    from muster.kernel.happenings import Tell
    from muster.netboot.answers import Told
    from muster.netboot.contract import Entry
    from muster.netboot.origin import Known, Outcome
    from muster.pki.bundles import BundlePaths
    from muster.store.engine import Store

_DIRECTORY = "netboot"
# A member that is asked by another one is near; what it does not give now is asked for again.
_NEAR = Limits(connect_s=2.0, answer_s=10.0, again=0, pause_s=1.0)
_SEEN_WITHIN_S = 2.0
_SEEN_OF_STORE_S = 1.0


def services(cluster: ClusterFile) -> list[str]:
    """Return the services of members that answer for boot files."""
    on = {rooms.enabled(cluster, name) for name in FEATURES}
    return [s for s, word in (("smartproxy", "https"), ("anaconda", "http")) if on & {word, True}]


def root_of(cluster: ClusterFile, state: Path) -> Path:
    """Return the directory of the tree on a member that writes its own files below ``state``."""
    given = cluster.netboot.root or cluster.features.get("tftp", {}).get("tftproot")
    return Path(given) if given else state / _DIRECTORY


@dataclass
class BootFiles:
    """What a member has of boot files. Use :func:`opened`.

    Attributes:
        mounts: what members give each other.
    """

    tree: Tree
    mounts: Sequence[Mounted]
    duties: Sequence[Duty]


@dataclass
class _Bringing:
    """Brings what this disk lacks: from the other members, and where none has it, from where it was fetched."""

    member: str
    port: int
    listed: Listed
    roster: Roster
    disk: Disk
    settings: TFTPSettings
    bundle: BundlePaths
    _context: RenewedContext | None = None
    _peers: Peers = field(init=False)
    _others_read: bool = False
    _asked_at: float = -float("inf")

    def __post_init__(self) -> None:
        self._peers = Peers(self.disk.partial, self._siblings, self._shown, _NEAR)

    async def bring(self, entry: Entry) -> Path:
        """Return a file with an entry's bytes."""
        try:
            return await self._peers.bring(entry)
        except NotFound:
            if not entry.origin:
                raise
        # As after a restore on new hosts, or when the only member that had it died.
        came = await self.fetched(entry.origin, self.disk.partial / f"{entry.digest}.origin", None, _silently)
        if came.file is None or came.digest != entry.digest:
            raise Unavailable(f"no other member has it, and {entry.origin} has something else by now")
        return came.file

    def passed(self, entry: Entry, first: int, count: int) -> AsyncGenerator[bytes, None]:
        """Yield bytes of a file that this disk lacks, from the other members."""
        return self._peers.passed(entry, first, count)

    async def fetched(self, url: str, into: Path, known: Known | None, told: Told) -> Outcome:
        """Bring a URL's file to a path."""
        limits = Limits(connect_s=self.settings.tftp_connect_timeout)
        vouching = Vouching(self.settings.verify_server_cert)
        return await fetched(url, into, known=known, limits=limits, vouching=vouching, told=told)

    async def others_read_the_store(self) -> bool:
        """Whether another member reads the store; asked of them every two seconds at most, since all ask all."""
        now = time.monotonic()
        if now - self._asked_at > _SEEN_WITHIN_S:
            self._others_read = await self._peers.read_the_store(_SEEN_WITHIN_S)
            self._asked_at = time.monotonic()
        return self._others_read

    def _shown(self) -> ssl.SSLContext:
        """Return what other members are asked with. Raises Misconfigured: our certificate cannot be used."""
        if self._context is None:
            self._context = RenewedContext(self.bundle.ca, self.bundle.certificate, self.bundle.key)
        return self._context()

    async def _siblings(self) -> Sequence[Sibling]:
        """Return the other members, without those that have fallen silent where that can be told."""
        others = [m for m in self.listed.latest.members if m.kind == "muster" and str(m.name) != self.member]
        with contextlib.suppress(MusterError, TimeoutError):
            # A store that hangs is mostly why others are asked, who are all asked then.
            async with asyncio.timeout(_SEEN_OF_STORE_S):
                seen = await self.roster.seen()
            others = [m for m in others if (s := seen.get(str(m.name))) is not None and not s.silent]
        return [Sibling(str(m.name), m.address, m.ports.get("smartproxy", self.port)) for m in others]


def opened(
    stack: contextlib.AsyncExitStack,
    cluster: ClusterFile,
    member: Member,
    bundle: BundlePaths,
    balancing: Balancing,
    listed: Listed,
    state: Path,
    store: Store,
    registry: CollectorRegistry,
    address: str,
    tell: Tell,
) -> BootFiles:
    """Return what this member has of boot files; its directory, and the store, are looked at by its first beat.

    ``address``: on which the member listens; ``*``: on all. ``tell``: hears what machines ask for over TFTP.
    """
    name = str(member.name)
    given = cluster.features.get("tftp", {})
    service = balancing.service("smartproxy")
    disk = Disk(root_of(cluster, state))
    bringing = _Bringing(
        name, service.member_port if service is not None else 9090, listed, Roster(store), disk,
        TFTPSettings.model_validate(given), bundle,
    )  # fmt: skip
    tree = Tree(
        Ledger(store), disk, name, confirm_s=cluster.netboot.confirm_s, bring=bringing.bring,
        pass_on=bringing.passed, seen_by_others=bringing.others_read_the_store,
    )  # fmt: skip
    in_tree = InTree(tree)
    fetching = Fetching(
        Fetches(store, member=name), directory=disk.partial, bring=bringing.fetched, known=in_tree.known,
        commit=in_tree.commit,
    )  # fmt: skip
    tree.fetching = fetching

    async def said() -> dict[str, object]:
        return {"member": name, "version": tree.version, "read_age_s": min(tree.read_age_s, 1e9)}

    blobs = api.Blobs(tree.blob, said)
    stack.callback(blobs.close)
    stack.push_async_callback(tree.close)
    stack.push_async_callback(fetching.close)
    duties: list[Duty] = [BootFilesKept(tree, services(cluster)), BootFilesVerified(tree), BootFilesFetched(fetching)]
    if cluster.netboot.tftp is not None:
        addresses = cluster.netboot.tftp.addresses or (("0.0.0.0", "::") if address == "*" else (address,))
        duties.append(BootFilesGiven(tree, cluster.netboot.tftp, addresses, TFTPMetrics(registry), tell))
    return BootFiles(tree, [Mounted(api.MOUNT, blobs)], duties)


def _silently(_done: int, _of: int | None) -> None:
    return
