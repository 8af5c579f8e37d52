"""What the doctor can find out about DNS: does the server answer, does it take our key, may the key change the zones.

Nothing is changed. The key is tried with a signed question; the permission with the removal of a name that nobody has:
its prerequisite cannot be met, so the server refuses it either way, and how it refuses says whether it would let us.
"""

from __future__ import annotations

import secrets
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dns.message
import dns.name
import dns.tsig

from muster.edge import another_proxy
from muster.edge.another_proxy import Codes
from muster.features.dns.contract import RecordType
from muster.features.dns.providers import nsupdate
from muster.features.dns.providers.nsupdate import NSUpdateDNS
from muster.features.dns.settings import DNSSettings, NSUpdateSettings
from muster.kernel.errors import Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.findings import Check, Finding
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
            case "smart_proxy" if settings.smart_proxy is not None:
                return await another_proxy.findings("dns", _OF_PROXY, settings.smart_proxy, context())
            case _:
                return []

    return [Check(_PLACE, provider)]


async def _of_nsupdate(settings: NSUpdateSettings, names: Sequence[FQDN]) -> Sequence[Finding]:
    if settings.key_file is not None and not _is_here(settings):
        return [
            Finding(
                "DNS-KEY-ABSENT",
                _PLACE,
                f"The DNS key file {settings.key_file} is not on this host, so the key was not tried",
                "Only members need it; on a member it is missing.",
                "On a member: copy it there. Elsewhere: run muster doctor on a member, too.",
                "warning",
            ),
            *await _of_nsupdate(settings.model_copy(update={"key_file": None}), ()),
        ]
    try:
        async with nsupdate.opened(settings, 0) as server:
            return await _of_server(server, names)
    except Misconfigured as e:
        return [_finding(_KEY_FILE, e)]


def _is_here(settings: NSUpdateSettings) -> bool:
    try:
        return settings.key_file is not None and settings.key_file.exists()
    except OSError:
        # There, and not for us to see: reading it says so in words.
        return True


async def _of_server(server: NSUpdateDNS, names: Sequence[FQDN]) -> Sequence[Finding]:
    question = dns.message.make_query(dns.name.root, "SOA")
    if server.key is not None:
        question.use_tsig(server.key)
    try:
        await server._ask(question, "asking whether it takes our key")
    except Unavailable as e:
        return [_finding(_SERVER_DOWN, e)]
    except Misconfigured as e:
        return [_finding(_of_tsig(e), e)]
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
    except Misconfigured as e:
        return _finding(_of_tsig(e), e)
    except Unavailable as e:
        return _finding(_SERVER_DOWN, e)
    return None


def _of_tsig(error: Misconfigured) -> _Cause:
    return next((c for kind, c in _BY_TSIG if isinstance(error.__cause__, kind)), _OTHER_SIDE)


def _finding(what: _Cause, error: MusterError) -> Finding:
    return Finding(what.code, _PLACE, str(error), what.cause, what.remedy)
