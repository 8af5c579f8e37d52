"""What the doctor can find out about ProxyDHCP: does a member answer, and are there the loaders that it names?"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING

from muster.cluster.proxy_dhcp import Loaders, ProxyDHCP
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding
from muster.netboot.proxydhcp.holding import ROLE
from muster.store.leases import held_in
from muster.store.reading import Query

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.store.reading import Readable

_PLACE = "netboot.proxy_dhcp"
_PATHS = Query("SELECT path FROM netboot_entries WHERE kind <> 'gone' AND path = :path")


def checks(
    cluster: ClusterFile, store: Callable[[], AbstractAsyncContextManager[Readable]], *, has_tree: bool
) -> list[Check]:
    """Return the checks, none where nobody is told what to boot; ``has_tree``: members keep the tree of boot files."""
    settings = cluster.netboot.proxy_dhcp
    if settings is None:
        return []

    async def looked() -> Sequence[Finding]:
        # Of a store that is away another check speaks.
        with suppress(MusterError):
            async with store() as opened, opened.read() as uow:
                held = await held_in(uow, ROLE)
                there = {path for path in _loaders(settings) if await uow.rows(_PATHS, path=path)} if has_tree else None
            return found(settings, is_held=held is not None, there=there)
        return []

    return [Check(_PLACE, looked)]


def _loaders(settings: ProxyDHCP) -> list[str]:
    return [path for word in Loaders.model_fields if (path := settings.loaders.of(word)) is not None]


def found(settings: ProxyDHCP, *, is_held: bool, there: Collection[str] | None) -> list[Finding]:
    """Return what is wrong; ``there`` are the loaders that stand in the tree, None where there is no tree."""
    findings: list[Finding] = []
    if not is_held:
        findings.append(
            Finding(
                "PROXY-DHCP-NOBODY",
                _PLACE,
                "No member answers ProxyDHCP: machines get addresses, and nothing to boot",
                "No member takes clients, or none can listen on UDP ports 67 and 4011.",
                "muster status shows what members note of it; CAP_NET_BIND_SERVICE is what they lack most often "
                "(docs/admin/proxy-dhcp.md).",
            )
        )
    absent = [] if there is None else [path for path in _loaders(settings) if path not in there]
    if absent:
        findings.append(
            Finding(
                "PROXY-DHCP-LOADER",
                _PLACE,
                f"Machines are told {', '.join(absent)}, which is not among the cluster's boot files",
                "The loader was never imported, or has another name; or it lies in the directory beside them.",
                "muster netboot import puts loaders there, netboot: proxy_dhcp: loaders: names them; null tells machines of "
                "an architecture nothing.",
                "warning",
            )
        )
    return findings
