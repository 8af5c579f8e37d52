"""What the doctor can find out about a Kea: does it answer, take us, and have loaded what is needed. Nothing is changed."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network

from muster.features.dhcp.kea import commands
from muster.features.dhcp.kea.commands import Credentials
from muster.features.dhcp.kea.in_force import Current
from muster.features.dhcp.kea.ways import tells_leases, way, without_leases
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.findings import Finding

_LOAD = "Add what the sentence names to hooks-libraries in Kea's configuration and restart it, or have it reload."


async def findings(
    place: str,
    url: str,
    credentials: Callable[[], Credentials | None],
    context: Callable[[], ssl.SSLContext] | None,
    *,
    timeout_s: float,
) -> tuple[Sequence[Finding], set[IPv4Network] | None]:
    """Return what is wrong with a Kea, and its subnets; None where it does not tell any."""
    try:
        async with commands.opened(url, credentials=credentials(), context=context, timeout_s=timeout_s) as kea:
            now = await Current(kea).now()
    except Misconfigured as e:
        return [
            Finding(
                "DHCP-KEA-DENIED",
                place,
                str(e),
                "Its socket is not for this account, or user, password_file or the certificates are not what Kea expects.",
                "Let the members' account into the socket's group, or compare the settings with Kea's control-sockets.",
            )
        ], None
    except MusterError as e:
        return [
            Finding(
                "DHCP-KEA-DOWN",
                place,
                str(e),
                "kea-dhcp4 is stopped or elsewhere, or its configuration has no control socket there.",
                "Start it; compare url under features: dhcp: kea: with control-socket(s) in Kea's configuration. Where the "
                "url is a unix socket, ask on a member.",
            )
        ], None
    found = []
    try:
        way(now)
    except Misconfigured as e:
        cause = "Kea keeps reservations where nobody can change them over its control channel."
        found.append(Finding("DHCP-KEA-LACKS", place, str(e), cause, _LOAD))
    if not tells_leases(now):
        cause = "libdhcp_lease_cmds.so is not among hooks-libraries."
        found.append(Finding("DHCP-KEA-LACKS", place, str(without_leases()), cause, _LOAD))
    return found, {s.subnet.network for s in now.configuration.subnets}
