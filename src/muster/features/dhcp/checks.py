"""What the doctor can find out about DHCP: does the server answer, has it the subnets, may this host probe addresses.

Nothing is changed, no address is promised.
"""

from __future__ import annotations

import grp
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from muster.edge import another_proxy
from muster.edge.another_proxy import Codes, SmartProxySettings
from muster.features.dhcp.settings import DHCPSettings
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding

_PLACE = "feature dhcp"
_OF_PROXY = Codes("DHCP-PROXY-DENIED", "DHCP-PROXY-DOWN", "DHCP-PROXY-LACKS")
_MAY_PING = Path("/proc/sys/net/ipv4/ping_group_range")


def checks(
    settings: DHCPSettings, context: Callable[[], ssl.SSLContext | None], *, may_ping: Path = _MAY_PING
) -> list[Check]:
    """Return the checks of the provider the settings choose, and of what probing needs.

    ``context`` is what another Smart Proxy is asked with; ``may_ping`` is where the kernel says whose groups may send ICMP.
    """

    async def provider() -> Sequence[Finding]:
        if settings.provider != "smart_proxy" or settings.smart_proxy is None:
            return []
        return await _of_smart_proxy(settings, settings.smart_proxy, context())

    async def probes() -> Sequence[Finding]:
        return _of_probes(may_ping) if settings.ping_free_ip and settings.provider != "smart_proxy" else []

    return [Check(_PLACE, provider), Check(_PLACE, probes)]


async def _of_smart_proxy(
    settings: DHCPSettings, proxy: SmartProxySettings, context: ssl.SSLContext | None
) -> Sequence[Finding]:
    found = await another_proxy.findings("dhcp", _OF_PROXY, proxy, context)
    if found or context is None or not settings.subnets:
        return found
    from muster.features.dhcp.providers.smart_proxy import SmartProxyDHCP
    from muster.foreman import smart_proxy

    name = str(proxy.server_name) if proxy.server_name else None
    try:
        async with smart_proxy.opened(proxy.url, context=context, server_name=name, timeout_s=5.0) as other:
            there = {s.network for s in await SmartProxyDHCP(other).subnets()}
    except MusterError as e:
        return [
            Finding(
                _OF_PROXY.down,
                _PLACE,
                str(e),
                "Its DHCP server is away, or it does not trust our name.",
                "Look at its own log; add the members' names to its trusted hosts.",
            )
        ]
    absent = [str(n) for n in settings.subnets if n not in there]
    if not absent:
        return []
    return [
        Finding(
            "DHCP-SUBNET-UNKNOWN",
            _PLACE,
            f"{proxy.url} has no subnet {', '.join(absent)}, which features: dhcp: subnets: names",
            "The subnet was taken off the DHCP server, or its mask is another one.",
            "Compare subnets: with the DHCP server's own; what is not there Foreman does not see.",
        )
    ]


def _group_of_members() -> int | None:
    """Return the group of the account that members run as; None: there is no such account here."""
    try:
        return grp.getgrnam("muster").gr_gid
    except KeyError:
        return None


def _of_probes(may_ping: Path) -> Sequence[Finding]:
    try:
        first, last = (int(word) for word in may_ping.read_text("ascii").split())
    except (OSError, ValueError):
        return []
    group = _group_of_members()
    if first <= last and (group is None or first <= group <= last):
        return []
    return [
        Finding(
            "DHCP-NO-ICMP",
            _PLACE,
            "Free addresses are probed by TCP and ARP alone on this host: members that are not root may send no ICMP",
            f"net.ipv4.ping_group_range is {first} {last} here; systemd sets it to all groups by default.",
            "As root: sysctl net.ipv4.ping_group_range='0 2147483647', and the same in /etc/sysctl.d/.",
            "warning",
        )
    ]
