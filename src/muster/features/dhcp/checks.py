"""What the doctor can find out about DHCP: does the server answer, has it the subnets, may this host probe addresses.

Nothing is changed, no address is promised.
"""

from __future__ import annotations

import asyncio
import grp
import ssl
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from ipaddress import IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muster.edge import another_proxy
from muster.edge.another_proxy import Codes, SmartProxySettings
from muster.features.dhcp.settings import DHCPSettings, InfobloxSettings, ISCSettings
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.findings import Check, Finding
from muster.observed.statements import told_in

if TYPE_CHECKING:
    from muster.cluster.file import ClusterFile
    from muster.store.reading import Readable

_PLACE = "feature dhcp"
_OF_PROXY = Codes("DHCP-PROXY-DENIED", "DHCP-PROXY-DOWN", "DHCP-PROXY-LACKS")
_LONGEST_TROUBLE = 500
_FOLLOWS = "muster.follows.dhcp"
_MAY_PING = Path("/proc/sys/net/ipv4/ping_group_range")


def checks(
    settings: DHCPSettings,
    context: Callable[[], ssl.SSLContext | None],
    cluster: ClusterFile | None = None,
    *,
    may_ping: Path = _MAY_PING,
) -> list[Check]:
    """Return the checks of the provider the settings choose, and of what probing needs.

    ``context`` is what another Smart Proxy, or a member of the ``cluster``, is asked with; ``may_ping`` is where the kernel
    says whose groups may send ICMP.
    """

    async def provider() -> Sequence[Finding]:
        match settings.provider:
            case "isc":
                return [
                    *await _of_server(settings.isc),
                    *await _of_files(settings),
                    *await _of_feed(settings.isc, cluster, context()),
                ]
            case "kea":
                return await _of_kea(settings, context)
            case "dnsmasq":
                return await asyncio.to_thread(_of_dnsmasq, settings)
            case "infoblox" if settings.infoblox is not None:
                return [*_unproven("infoblox"), *await _of_infoblox(settings, settings.infoblox)]
            case "libvirt":
                return await _of_libvirt(settings)
            case "smart_proxy" if settings.smart_proxy is not None:
                return await _of_smart_proxy(settings, settings.smart_proxy, context())
            case _:
                return []

    async def probes() -> Sequence[Finding]:
        return _of_probes(may_ping) if settings.ping_free_ip and settings.provider != "smart_proxy" else []

    return [Check(_PLACE, provider), Check(_PLACE, probes)]


def of_members(store: Callable[[], AbstractAsyncContextManager[Readable]]) -> list[Check]:
    """Return the check of how far members are behind the server's leases, by what they told the store."""

    async def leases() -> Sequence[Finding]:
        try:
            async with store() as opened, opened.read() as uow:
                told = await told_in(uow)
        except MusterError:
            # The store's own check names it.
            return []
        return behind(told)

    return [Check(_PLACE, leases)]


def behind(told: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    """Return which members know old leases only, by what they told of themselves, flat."""
    following = {member: said for member, facts in told.items() if (said := facts.get(_FOLLOWS)) is not None}
    late = sorted(member for member, said in following.items() if said == "behind")
    if not late:
        return []
    all_of = len(late) == len(following)
    return [
        Finding(
            "DHCP-LEASES-BEHIND",
            _PLACE,
            f"{'All members' if all_of else ', '.join(late)} know dhcpd's leases as they were a while ago, not as they are",
            "The files cannot be read or looked at there, end in the middle of a block, or the members of isc.files_on tell "
            "nothing.",
            "muster status has each member's note: how old, and why. Answers that could be wrong are 503 meanwhile.",
            "error" if all_of else "warning",
        )
    ]


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
    except Misconfigured:
        # Whoever the doctor asks as need not be one that the other proxy trusts, as members are.
        return []
    except MusterError as e:
        return [
            Finding(
                _OF_PROXY.down,
                _PLACE,
                str(e),
                "Its DHCP server is away.",
                "Look at its own log.",
            )
        ]
    return _of_subnets(settings, there, proxy.url)


async def _of_kea(settings: DHCPSettings, context: Callable[[], ssl.SSLContext | None]) -> Sequence[Finding]:
    # What speaks to it is loaded where there is one.
    from muster.features.dhcp.kea import checks as of_kea
    from muster.features.dhcp.providers.kea import context_of, credentials_of

    kea = settings.kea
    asked: Callable[[], ssl.SSLContext] | None = None
    if kea.url.startswith("https:"):
        if kea.ca_file is not None and kea.certificate_file is not None:
            asked = context_of(kea, None, None, None)
        elif (ours := context()) is None:
            # Our own files are no use, which is said elsewhere.
            return []
        else:
            asked = lambda: ours  # noqa: E731
    found, there = await of_kea.findings(_PLACE, kea.url, lambda: credentials_of(kea), asked, timeout_s=kea.timeout_s)
    return found if there is None else [*found, *_of_subnets(settings, there, kea.url)]


def _of_subnets(settings: DHCPSettings, there: Collection[IPv4Network], whose: str) -> Sequence[Finding]:
    absent = [str(n) for n in settings.subnets if n not in there]
    if not absent:
        return []
    return [
        Finding(
            "DHCP-SUBNET-UNKNOWN",
            _PLACE,
            f"{whose} has no subnet {', '.join(absent)}, which features: dhcp: subnets: names",
            "The subnet was taken off the DHCP server, or its mask is another one.",
            "Compare subnets: with the DHCP server's own; what is not there Foreman does not see.",
        )
    ]


async def _of_server(settings: ISCSettings) -> Sequence[Finding]:
    """Return what is wrong with dhcpd's OMAPI: it is asked for a host that nobody has."""
    # What speaks to it is loaded where there is one.
    from muster.features.dhcp.isc import omapi
    from muster.features.dhcp.providers.isc import key_of

    try:
        async with omapi.opened(
            settings.server, settings.omapi_port, key_of(settings), timeout_s=settings.timeout_s, connections=1
        ) as server:
            await server.reached()
    except Misconfigured as e:
        return [
            Finding(
                "DHCP-KEY",
                _PLACE,
                str(e),
                "dhcpd.conf names another omapi-key, or declares this one with another secret or algorithm.",
                "Compare key_name, key_secret and key_algorithm under features: dhcp: isc: with dhcpd.conf on the server.",
            )
        ]
    except MusterError as e:
        return [
            Finding(
                "DHCP-DOWN",
                _PLACE,
                str(e),
                "dhcpd is stopped or elsewhere, dhcpd.conf has no omapi-port, or a firewall drops it.",
                "Start it; compare server and omapi_port under features: dhcp: isc: with: ss -ltnp there.",
            )
        ]
    return []


async def _of_files(settings: DHCPSettings) -> Sequence[Finding]:
    """Return what is wrong with dhcpd's files; on a host where there is none of them it is a warning, members need them."""
    from muster.features.dhcp.isc import followed

    isc = settings.isc
    if not any(path.exists() for path in (isc.config, isc.leases)):
        # Those that have them are asked.
        return (
            []
            if isc.files_on
            else [
                Finding(
                    "DHCP-FILES-ABSENT",
                    _PLACE,
                    f"Neither {isc.config} nor {isc.leases} is on this host, so what dhcpd has was not looked at",
                    "Only members need them; on a member they are not mounted.",
                    "On a member: mount them. Elsewhere: run muster doctor on a member, too.",
                    "warning",
                )
            ]
        )
    try:
        async with followed.opened(isc.config, isc.leases) as files:
            await files.reached()
            there, problems = {s.network for s in files.subnets}, list(files.problems)
    except MusterError as e:
        return [
            Finding(
                "DHCP-FILES",
                _PLACE,
                str(e),
                "The files are elsewhere, or the account of the members may not read them.",
                "Compare config and leases under features: dhcp: isc: with dhcpd's own; let group muster read them.",
            )
        ]
    found = [
        Finding(
            "DHCP-CONF",
            _PLACE,
            f"{isc.config}: {problem}",
            "dhcpd.conf was written by hand, or includes a file that members cannot read.",
            "Mend it, or let group muster read it; what stands there is not seen until then.",
            "warning",
        )
        for problem in problems
    ]
    return [*found, *_of_subnets(settings, there, str(isc.config))]


def _of_dnsmasq(settings: DHCPSettings) -> Sequence[Finding]:
    """Return what is wrong with dnsmasq on this host; where it is not, a warning: members need it."""
    from muster.features.dhcp.dnsmasq.held import Reader
    from muster.features.dhcp.dnsmasq.told import running
    from muster.features.dhcp.dnsmasq.written import TAG
    from muster.features.dhcp.providers.dnsmasq import places_of

    dnsmasq = settings.dnsmasq
    places = places_of(dnsmasq, settings.subnets)
    if not any(path.exists() for path in dnsmasq.config):
        return [
            Finding(
                "DHCP-FILES-ABSENT",
                _PLACE,
                f"There is no configuration of dnsmasq on this host: {', '.join(map(str, dnsmasq.config))}",
                "Members that serve DHCP have to be on dnsmasq's host; this one is not, or config names other files.",
                "On a member: compare config under features: dhcp: dnsmasq: with dnsmasq's unit.",
                "warning",
            )
        ]
    found: list[Finding] = []
    try:
        running(dnsmasq.pid_file, is_to_be_signalled=dnsmasq.reload == "signal")
    except MusterError as e:
        found.append(
            Finding(
                "DHCP-DOWN",
                _PLACE,
                str(e),
                "dnsmasq is stopped, or writes its number elsewhere.",
                "Start it; compare pid_file under features: dhcp: dnsmasq: with its pid-file.",
            )
        )
    try:
        held = Reader(places).read()
    except MusterError as e:
        return [
            *found,
            Finding(
                "DHCP-FILES",
                _PLACE,
                str(e),
                "The account of the members may not read dnsmasq's files.",
                "Let group muster read its configuration, hosts and leases.",
            ),
        ]
    there = held.configuration
    for path, word, known in (
        (places.hosts, "dhcp-hostsdir", there.hosts_directories),
        (places.options, "dhcp-optsdir", there.options_directories),
    ):
        if not path.is_dir() or path not in known:
            why = "is not there" if path in known else f"stands in no {word} of dnsmasq's configuration"
            found.append(
                Finding(
                    "DHCP-DIRECTORY",
                    _PLACE,
                    f"{path} {why}",
                    "What members write there dnsmasq does not read.",
                    f"Make it, members' to write and dnsmasq's to read; write {word}={path}; restart dnsmasq.",
                )
            )
    if dnsmasq.boot == "reservation" and there.boots_everybody is not None:
        found.append(
            Finding(
                "DHCP-BOOT",
                _PLACE,
                f"dnsmasq's configuration has dhcp-boot={there.boots_everybody}, which goes before what Foreman says",
                "It is for machines of every tag.",
                f"Make it dhcp-boot=tag:!{TAG},{there.boots_everybody}, or say boot: dnsmasq.",
            )
        )
    found += [
        Finding(
            "DHCP-CONF",
            _PLACE,
            problem,
            "The configuration includes a file that members cannot read, or leaves something to the network card.",
            "Mend it; what stands there is not seen until then.",
            "warning",
        )
        for problem in held.problems
    ]
    return [*found, *_of_subnets(settings, {s.network for s in held.subnets}, "dnsmasq's configuration")]


def _unproven(provider: str) -> Sequence[Finding]:
    from muster.features.dhcp.providers import UNPROVEN

    return [
        Finding(
            "DHCP-UNPROVEN",
            _PLACE,
            f"Provider {provider} is unproven: {UNPROVEN[provider]}",
            "No such server was to be had.",
            "Try it on a subnet of its own first, and tell what you see.",
            "warning",
        )
    ]


async def _of_infoblox(settings: DHCPSettings, infoblox: InfobloxSettings) -> Sequence[Finding]:
    from muster.features.dhcp.providers import infoblox as provider

    try:
        async with provider.opened(infoblox) as grid:
            await grid.reached()
            there = {s.network for s in await grid.subnets()}
    except Misconfigured as e:
        return [
            Finding(
                "DHCP-KEY",
                _PLACE,
                str(e),
                "The account, its password or the CA is another one.",
                "Compare username, password_file and ca under features: dhcp: infoblox: with the grid's.",
            )
        ]
    except MusterError as e:
        return [
            Finding(
                "DHCP-DOWN",
                _PLACE,
                str(e),
                "The grid is away, elsewhere, or speaks no such version of its API.",
                "Compare url and wapi_version under features: dhcp: infoblox: with the grid's.",
            )
        ]
    return _of_subnets(settings, there, infoblox.url)


async def _of_libvirt(settings: DHCPSettings) -> Sequence[Finding]:
    from muster.features.dhcp.providers.libvirt import LibvirtDHCP
    from muster.kernel.clock import SystemClock

    libvirt = LibvirtDHCP(settings.libvirt, SystemClock())
    try:
        await libvirt.reached()
        there = {s.network for s in await libvirt.subnets()}
    except MusterError as e:
        return [
            Finding(
                "DHCP-DOWN",
                _PLACE,
                str(e),
                "libvirt is stopped or elsewhere, its network is not active, or the members' account has no right to it.",
                "Compare features: dhcp: libvirt: with virsh net-list --all; put muster in group libvirt.",
            )
        ]
    return _of_subnets(settings, there, f"Network {settings.libvirt.network} of libvirt")


async def _of_feed(
    settings: ISCSettings, cluster: ClusterFile | None, context: ssl.SSLContext | None
) -> Sequence[Finding]:
    """Return which of the members that have dhcpd's files tell nobody what stands in them."""
    if not settings.files_on or cluster is None or context is None:
        return []
    from muster.features.dhcp.isc import replica
    from muster.foreman import smart_proxy

    silent: dict[str, str] = {}
    for name in settings.files_on:
        try:
            url = replica.url_of(cluster, name)
            async with smart_proxy.opened(url, context=context, server_name=str(name), timeout_s=5.0) as member:
                trouble = (await member.call("GET", f"{replica.PREFIX}/")).json()["trouble"]
                if trouble is not None:
                    silent[str(name)] = str(trouble)[:_LONGEST_TROUBLE]
        except MusterError as e:
            silent[str(name)] = str(e)
        except (KeyError, TypeError):
            silent[str(name)] = "it answers something else"
    return [
        Finding(
            "DHCP-FEED-SILENT",
            _PLACE,
            f"Member {name} has dhcpd's files (isc.files_on), and tells nobody what stands in them: {why}",
            "It is down, its feature has failed, or it cannot read the files.",
            "See to that member; until one of those that are named tells, members without the files answer 503.",
            "error" if len(silent) == len(settings.files_on) else "warning",
        )
        for name, why in silent.items()
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
