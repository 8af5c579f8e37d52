"""What the doctor can find out about a realm: is the keytab here and whole, does the KDC take it, does the server let us in.

Nothing is changed.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muster.edge import another_proxy
from muster.edge.another_proxy import Codes
from muster.features.realm.kerberos import ClockWrong, KDCSilent, KeyRefused, KeytabUnusable, ServerUnknown
from muster.features.realm.settings import ADSettings, FreeIPASettings, KerberosSettings, RealmSettings
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.findings import Check, Finding, Severity

_PLACE = "feature realm"
_OF_PROXY = Codes("REALM-PROXY-DENIED", "REALM-PROXY-DOWN", "REALM-PROXY-LACKS")


@dataclass(frozen=True)
class _Cause:
    code: str
    cause: str
    remedy: str


_BY_ERROR: Sequence[tuple[type[MusterError], _Cause]] = (
    (
        ClockWrong,
        _Cause(
            "REALM-CLOCK",
            "This host's clock and the realm's differ by more than five minutes.",
            "Compare timedatectl on both; let a time service set the clock.",
        ),
    ),
    (
        KeytabUnusable,
        _Cause(
            "REALM-KEYTAB",
            "The keytab is damaged, is of another principal, or may not be read by you.",
            "Compare klist -k with principal; get the keytab anew, mode 0600, owner muster, the same on every member.",
        ),
    ),
    (
        KeyRefused,
        _Cause(
            "REALM-KEY",
            "The principal is gone, disabled or locked, its password has expired, or its key is newer than the keytab.",
            "Look at the account; get the keytab anew, and copy it to every member.",
        ),
    ),
    (
        ServerUnknown,
        _Cause(
            "REALM-SERVER",
            "The realm has no server by the name that stands in the settings: it is an alias, or an address.",
            "Name it as the realm does, dc1.example.com; setspn -L or samba-tool spn list shows its names.",
        ),
    ),
    (
        KDCSilent,
        _Cause(
            "REALM-KDC",
            "No KDC of the realm is known here, or a firewall drops port 88.",
            "Look at krb5.conf and at the DNS records _kerberos._tcp of the realm; try kinit.",
        ),
    ),
    (
        Misconfigured,
        _Cause(
            "REALM-REFUSED",
            "The server does not let the principal in, has no such place for accounts, or a program is not installed here.",
            "Look at what it says; docs/admin/realm.md names the rights and the packages.",
        ),
    ),
    (
        MusterError,
        _Cause(
            "REALM-DOWN",
            "The realm's server is stopped, elsewhere, or a firewall drops its port.",
            "Start it, or name another one.",
        ),
    ),
)


def checks(settings: RealmSettings, context: Callable[[], ssl.SSLContext | None]) -> list[Check]:
    """Return the checks of the provider the settings choose; ``context`` is what another Smart Proxy is asked with."""

    async def provider() -> Sequence[Finding]:
        if settings.provider == "smart_proxy" and settings.smart_proxy is not None:
            return await another_proxy.findings("realm", _OF_PROXY, settings.smart_proxy, context())
        kerberos = settings.kerberos
        if kerberos is None:
            return []
        absent = _of_file(kerberos)
        if any(f.code == "REALM-KEYTAB-ABSENT" for f in absent):
            return [*_unproven(settings), *absent]
        return [*_unproven(settings), *absent, *await _of_server(kerberos)]

    return [Check(_PLACE, provider)]


def _unproven(settings: RealmSettings) -> Sequence[Finding]:
    from muster.features.realm.providers import UNPROVEN

    if settings.provider not in UNPROVEN:
        return []
    return [
        _finding(
            _Cause(
                "REALM-UNPROVEN",
                "No such server was to be had.",
                "Try it with one host first, and tell what you see.",
            ),
            f"Provider {settings.provider} is unproven: {UNPROVEN[settings.provider]}",
            "warning",
        )
    ]


def _of_file(settings: KerberosSettings) -> Sequence[Finding]:
    path = settings.keytab_path
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        # On another host than a member nobody needs it.
        cause = _Cause(
            "REALM-KEYTAB-ABSENT",
            "Only members need it; on a member it was not put there.",
            "On a member: put it there, mode 0600, owner muster. Elsewhere: run muster doctor on a member, too.",
        )
        return [_finding(cause, f"{path} is not on this host, so whether the realm takes it was not tried", "warning")]
    except OSError:
        # There, and not for us to see: reading it says so in words.
        return []
    if not mode & (stat.S_IRWXO | stat.S_IWGRP):
        return []
    cause = _Cause(
        "REALM-KEYTAB-OPEN",
        "It was copied without its mode.",
        f"chmod 0600 {path}, and get a new key if somebody may have read it.",
    )
    return [_finding(cause, f"{path} is open to others than the members' account (mode {stat.S_IMODE(mode):04o})")]


async def _of_server(settings: KerberosSettings) -> Sequence[Finding]:
    try:
        match settings:
            case ADSettings():
                from muster.features.realm.providers import ad

                async with ad.opened(settings) as (domain, _):
                    await domain.reached()
                    await domain.place()
            case FreeIPASettings():
                from muster.features.realm.providers import freeipa

                async with freeipa.opened(settings) as (realm, _):
                    await realm.reached()
    except MusterError as e:
        return [_finding(next(cause for kind, cause in _BY_ERROR if isinstance(e, kind)), str(e))]
    return []


def _finding(what: _Cause, sentence: str, severity: Severity = "error") -> Finding:
    return Finding(what.code, _PLACE, sentence, what.cause, what.remedy, severity)
