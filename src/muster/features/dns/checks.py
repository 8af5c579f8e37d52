"""What the doctor can find out about DNS: does the server answer, does it take our key, may the key change the zones.

Nothing is changed. The key is tried with a signed question; the permission with the removal of a name that nobody has:
its prerequisite cannot be met, so the server refuses it either way, and how it refuses says whether it would let us.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.message
import dns.name
import dns.tsig

from muster.edge import another_proxy
from muster.edge.another_proxy import Codes
from muster.features.dns.contract import RecordType
from muster.features.dns.providers import nsupdate, nsupdate_gss
from muster.features.dns.providers.nsupdate import NSUpdateDNS
from muster.features.dns.settings import (
    DNSSettings,
    InfobloxSettings,
    LibvirtSettings,
    NSUpdateGSSSettings,
    NSUpdateSettings,
    PowerDNSSettings,
    Route53Settings,
)
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.findings import Check, Finding, Severity
from muster.kernel.names import FQDN

_PLACE = "feature dns"


@dataclass(frozen=True)
class _Cause:
    code: str
    cause: str
    remedy: str


_SERVER_DOWN = _Cause(
    "DNS-DOWN",
    "The DNS server is stopped, another host or port has it, or a firewall drops TCP.",
    "Start it; compare server and port under features: dns: with: ss -ltnp there.",
)
_KEY_FILE = _Cause(
    "DNS-KEY-FILE",
    "The key file was damaged, is of another form, or may not be read by you.",
    "Copy the key file of the DNS server again (tsig-keygen's form), mode 0640, group muster.",
)
_BY_TSIG: Sequence[tuple[type[Exception] | tuple[type[Exception], ...], _Cause]] = (
    (
        dns.tsig.PeerBadTime,
        _Cause(
            "DNS-CLOCK",
            "This host's clock and the DNS server's differ by more than five minutes.",
            "Compare timedatectl on both; let a time service set the clock.",
        ),
    ),
    (
        dns.tsig.PeerBadKey,
        _Cause(
            "DNS-KEY-UNKNOWN",
            "The DNS server has no key of that name and algorithm.",
            "Add the key to the server's configuration, or name the one it has under features: dns: nsupdate:.",
        ),
    ),
    (
        (dns.tsig.PeerBadSignature, dns.tsig.PeerBadTruncation),
        _Cause(
            "DNS-KEY-WRONG",
            "The key was made anew on one side.",
            "Copy the key file from the DNS server to every member and restart the members.",
        ),
    ),
)
_BY_KERBEROS: Sequence[tuple[type[MusterError], _Cause]] = (
    (
        nsupdate_gss.NoKeytab,
        _Cause(
            "DNS-KEYTAB",
            "The keytab is absent, of another principal, no keytab, or may not be read by you.",
            "Compare tsig_keytab and tsig_principal with: klist -k KEYTAB; mode 0640, group muster.",
        ),
    ),
    (
        nsupdate_gss.ClockOff,
        _Cause(
            "DNS-CLOCK",
            "This host's clock and the realm's differ by more than five minutes.",
            "Compare timedatectl on both; let a time service set the clock.",
        ),
    ),
    (
        nsupdate_gss.NoTicket,
        _Cause(
            "DNS-TICKET",
            "The account or the server is not in the realm as the settings name it, or a keytab is older than its key.",
            "Do what the sentence says; try it with: kinit -k -t KEYTAB PRINCIPAL, then kvno SERVICE.",
        ),
    ),
    (
        nsupdate_gss.KDCAway,
        _Cause(
            "DNS-KDC-DOWN",
            "The realm's servers are stopped, /etc/krb5.conf names others, or a firewall drops port 88.",
            "Compare /etc/krb5.conf with the realm's servers; open TCP and UDP port 88 to them.",
        ),
    ),
)
_GSS_LIBRARY = _Cause(
    "DNS-GSS-LIBRARY",
    "What speaks Kerberos is not installed with Muster on this host.",
    "Install packaging/requirements-gss.txt (packaging/README.md), and libgssapi-krb5-2 (krb5-libs).",
)
_API_KEY = _Cause(
    "DNS-API-KEY",
    "The key is another one, its file cannot be read, rest_url names no such API, or it takes no calls from this host.",
    "Compare rest_url and rest_api_key_file under features: dns: powerdns: with api-key and webserver-allow-from there.",
)
_API_DOWN = _Cause(
    "DNS-DOWN",
    "PowerDNS is stopped, its webserver and api are off, another host or port has it, or a firewall drops TCP.",
    "Start it with api=yes and webserver=yes; compare rest_url under features: dns: powerdns: with: ss -ltnp there.",
)
_SERVER_SILENT = _Cause(
    "DNS-SERVER-SILENT",
    "That PowerDNS is stopped or elsewhere; or its API, where it is told to forget, is.",
    "Start it; compare servers under features: dns: powerdns: with where it listens.",
)
_GRID_ACCOUNT = _Cause(
    "DNS-API-KEY",
    "The account, its password or the CA is another one.",
    "Compare username, password_file and ca under features: dns: infoblox: with the grid's.",
)
_GRID_DOWN = _Cause(
    "DNS-DOWN",
    "The grid is away, elsewhere, has no such DNS view, or speaks no such version of its API.",
    "Compare url, dns_view and wapi_version under features: dns: infoblox: with the grid's.",
)
_ACCOUNT = _Cause(
    "DNS-API-KEY",
    "The access key was withdrawn, or the secret key is another one's; or no Route 53 is there, or one of zone_ids is not.",
    "Compare aws_access_key, its secret key, zone_ids and url under features: dns: route53: with the account's.",
)
_ACCOUNT_CLOCK = _Cause(
    "DNS-CLOCK",
    "This host's clock and Amazon's differ by more than five minutes.",
    "Look at timedatectl; let a time service set the clock.",
)
_ACCOUNT_RIGHTS = _Cause(
    "DNS-REFUSED",
    "The policy of the account does not let this key list zones.",
    "Allow it route53:ListHostedZones, with zone_ids GetHostedZone, and ListResourceRecordSets, ChangeResourceRecordSets.",
)
_AMAZON_DOWN = _Cause(
    "DNS-DOWN",
    "Amazon's API is away, or a firewall drops HTTPS to it.",
    "Try: curl -v https://route53.amazonaws.com; compare url under features: dns: route53:.",
)
_AWS_LIBRARY = _Cause(
    "DNS-AWS-LIBRARY",
    "What speaks with AWS is not installed with Muster on this host.",
    "Install muster[route53]: packaging/requirements-route53.txt.",
)
_NETWORK_DOWN = _Cause(
    "DNS-DOWN",
    "libvirt is stopped or elsewhere, its network is not active, or the members' account has no right to it.",
    "Compare features: dns: libvirt: with virsh net-list --all; put muster in group libvirt.",
)
_NETWORK_SILENT = _Cause(
    "DNS-SWITCHED-OFF",
    "The network's definition says that somebody else answers DNS there.",
    "Take <dns enable='no'/> out with virsh net-edit, then net-destroy and net-start; or take another provider.",
)
_NO_PRIMARY = _Cause(
    "DNS-REFUSED",
    "The zone is a secondary's copy there, and a change would be lost with its next transfer.",
    "Name the primary server's API under features: dns: powerdns: rest_url.",
)
_OTHER_SIDE = _Cause(
    "DNS-ANSWER",
    "What answers there is no DNS server that knows TSIG, or something between changes its answers.",
    "Compare server and port under features: dns:; ask it with: dig -k KEYFILE @SERVER . SOA",
)
_OF_PROXY = Codes("DNS-PROXY-DENIED", "DNS-PROXY-DOWN", "DNS-PROXY-LACKS")
_NOT_ALLOWED = _Cause(
    "DNS-REFUSED",
    "The zone's allow-update or update-policy does not name the key, or the server is a secondary.",
    "Allow the key on the primary server (allow-update { key NAME; };) and reload it.",
)


def checks(settings: DNSSettings, names: Sequence[FQDN], context: Callable[[], ssl.SSLContext | None]) -> list[Check]:
    """Return the checks of the provider the settings choose.

    ``names`` are of zones the provider should be able to change, when its server has them; ``context`` is what another
    Smart Proxy is asked with.
    """

    async def provider() -> Sequence[Finding]:
        match settings.provider:
            case "nsupdate":
                return await _of_nsupdate(settings.nsupdate, names)
            case "nsupdate_gss":
                return await _of_nsupdate_gss(settings.nsupdate_gss, names)
            case "powerdns":
                return await _of_powerdns(settings.powerdns, names)
            case "infoblox" if settings.infoblox is not None:
                return [_unproven("infoblox"), *await _of_infoblox(settings.infoblox)]
            case "route53" if settings.route53 is not None:
                return [_unproven("route53"), *await _of_route53(settings.route53)]
            case "libvirt":
                return await _of_libvirt(settings.libvirt)
            case "smart_proxy" if settings.smart_proxy is not None:
                return await another_proxy.findings("dns", _OF_PROXY, settings.smart_proxy, context())
            case _:
                return []

    return [Check(_PLACE, provider)]


async def _of_nsupdate(settings: NSUpdateSettings, names: Sequence[FQDN]) -> Sequence[Finding]:
    if settings.key_file is not None and not _is_here(settings.key_file):
        return [
            _absent("key file", settings.key_file, "DNS-KEY-ABSENT"),
            *await _of_nsupdate(settings.model_copy(update={"key_file": None}), ()),
        ]
    try:
        async with nsupdate.opened(settings, 0) as server:
            return await _of_server(server, names)
    except Misconfigured as e:
        return [_finding(_KEY_FILE, e)]


async def _of_nsupdate_gss(settings: NSUpdateGSSSettings, names: Sequence[FQDN]) -> Sequence[Finding]:
    if not _is_here(settings.tsig_keytab):
        unsigned = NSUpdateSettings(server=settings.server, port=settings.port, timeout_s=settings.timeout_s)
        return [_absent("keytab", settings.tsig_keytab, "DNS-KEY-ABSENT"), *await _of_nsupdate(unsigned, ())]
    try:
        async with nsupdate_gss.opened(settings, 0) as server:
            return await _of_server(server, names)
    except nsupdate_gss.NoKeytab as e:
        return [_finding(_of_refusal(e), e)]
    except Misconfigured as e:
        return [_finding(_GSS_LIBRARY, e)]


async def _of_powerdns(settings: PowerDNSSettings, names: Sequence[FQDN]) -> Sequence[Finding]:
    # What follows imports an HTTP client, which takes longer to load than all else here.
    from muster.features.dns.providers import powerdns

    if settings.rest_api_key_file is not None and not _is_here(settings.rest_api_key_file):
        return [_absent("API key file", settings.rest_api_key_file, "DNS-KEY-ABSENT")]
    found: list[Finding] = []
    if any(map(powerdns.is_told_openly, [settings.rest_url, *(s.url for s in settings.servers if s.url is not None)])):
        found.append(
            Finding(
                "DNS-KEY-OPEN",
                _PLACE,
                "The key of PowerDNS' API goes over the network in plain HTTP",
                "Whoever reads it there can change every zone of that PowerDNS.",
                "Put TLS before its webserver and name https:// in the settings, or keep that network to yourself.",
                "warning",
            )
        )
    try:
        async with powerdns.opened(settings, 0, None) as server:
            await server.api_answers()
            silent = [why for one in settings.servers if (why := await server.answers(one)) is not None]
            silent += [str(e) for e in await server.beside_answer()]
            found += [_finding(_SERVER_SILENT, why, "warning") for why in silent]
            for name in names:
                await server.is_primary_for(name)
    except Rejected as e:
        found.append(_finding(_NO_PRIMARY, e))
    except Misconfigured as e:
        found.append(_finding(_API_KEY, e))
    except Unavailable as e:
        found.append(_finding(_API_DOWN, e))
    return found


def _unproven(provider: str) -> Finding:
    from muster.features.dns.providers import UNPROVEN

    return Finding(
        "DNS-UNPROVEN",
        _PLACE,
        f"Provider {provider} is unproven: {UNPROVEN[provider]}",
        "No such server was to be had.",
        "Try it on a zone of its own first, and tell what you see.",
        "warning",
    )


async def _of_infoblox(settings: InfobloxSettings) -> Sequence[Finding]:
    from muster.features.dns.providers import infoblox

    if settings.password_file is not None and not _is_here(settings.password_file):
        return [_absent("password file", settings.password_file, "DNS-KEY-ABSENT")]
    try:
        async with infoblox.opened(settings, 0, None) as grid:
            await grid.reached()
    except Misconfigured as e:
        return [_finding(_GRID_ACCOUNT, e)]
    except MusterError as e:
        return [_finding(_GRID_DOWN, e)]
    return []


async def _of_route53(settings: Route53Settings) -> Sequence[Finding]:
    try:
        from muster.features.dns.providers import route53
    except Misconfigured as e:
        return [_finding(_AWS_LIBRARY, e)]
    if settings.aws_secret_key_file is not None and not _is_here(settings.aws_secret_key_file):
        return [_absent("secret key file", settings.aws_secret_key_file, "DNS-KEY-ABSENT")]
    try:
        async with route53.opened(settings, 0) as amazon:
            await amazon.answers()
    except route53.ClockOff as e:
        return [_finding(_ACCOUNT_CLOCK, e)]
    except Misconfigured as e:
        return [_finding(_ACCOUNT, e)]
    except Rejected as e:
        return [_finding(_ACCOUNT_RIGHTS, e)]
    except MusterError as e:
        return [_finding(_AMAZON_DOWN, e)]
    return []


async def _of_libvirt(settings: LibvirtSettings) -> Sequence[Finding]:
    from muster.features.dns.providers import libvirt

    try:
        async with libvirt.opened(settings, None) as network:
            await network.reached()
            found = await network.is_told()
    except MusterError as e:
        return [_finding(_NETWORK_DOWN, e)]
    return [] if found is None else [_finding(_NETWORK_SILENT, found)]


def _absent(what: str, path: Path, code: str) -> Finding:
    return Finding(
        code,
        _PLACE,
        f"The DNS {what} {path} is not on this host, so the key was not tried",
        "Only members need it; on a member it is missing.",
        "On a member: copy it there. Elsewhere: run muster doctor on a member, too.",
        "warning",
    )


def _is_here(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # There, and not for us to see: reading it says so in words.
        return True


async def _of_server(server: NSUpdateDNS, names: Sequence[FQDN]) -> Sequence[Finding]:
    try:
        await server._ask(dns.message.make_query(dns.name.root, "SOA"), "asking whether it takes our key")
    except (Unavailable, Misconfigured) as e:
        return [_finding(_of_refusal(e), e)]
    found = [await _of_zone(server, zone) for zone in await _zones(server, names)]
    return [f for f in found if f is not None]


async def _zones(server: NSUpdateDNS, names: Sequence[FQDN]) -> list[FQDN]:
    """Return the zones of the names that this server is primary for."""
    zones: dict[FQDN, None] = {}
    for name in names:
        try:
            zone = await server._zone(dns.name.from_text(name), f"looking for the zone of {name}")
        except MusterError:
            continue
        if zone != dns.name.root:
            zones[FQDN(zone.to_text(omit_final_dot=True))] = None
    return list(zones)


async def _of_zone(server: NSUpdateDNS, zone: FQDN) -> Finding | None:
    # Nobody else can have a name made of 128 random bits; should somebody, the removal would hit it.
    nobody = FQDN(f"muster-doctor-{secrets.token_hex(16)}.{zone}")
    try:
        await server.remove(nobody, RecordType.A)
    except NotFound:
        return None
    except Rejected as e:
        return _finding(_NOT_ALLOWED, e)
    except (Unavailable, Misconfigured) as e:
        return _finding(_of_refusal(e), e)
    return None


def _of_refusal(error: MusterError) -> _Cause:
    """Return the cause of what went wrong between us, the server and, where there is one, the realm."""
    by_kerberos = next((c for kind, c in _BY_KERBEROS if isinstance(error, kind)), None)
    if by_kerberos is not None:
        return by_kerberos
    if isinstance(error, Unavailable):
        return _SERVER_DOWN
    return next((c for kind, c in _BY_TSIG if isinstance(error.__cause__, kind)), _OTHER_SIDE)


def _finding(what: _Cause, said: MusterError | str, severity: Severity = "error") -> Finding:
    return Finding(what.code, _PLACE, str(said), what.cause, what.remedy, severity)
