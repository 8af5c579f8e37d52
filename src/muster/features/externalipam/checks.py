"""What the doctor can find out about External IPAM: does the IPAM answer, does it take us, are addresses running out.

Nothing is changed, no address is promised.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

from muster.edge import another_proxy
from muster.edge.another_proxy import Codes
from muster.features.externalipam.settings import ExternalIPAMSettings
from muster.kernel.errors import Misconfigured, MusterError
from muster.kernel.findings import Check, Finding

if TYPE_CHECKING:
    from muster.features.externalipam.providers.netbox import NetBoxIPAM
    from muster.features.externalipam.providers.phpipam import PhpIPAM
    from muster.store.reading import Readable

_PLACE = "feature externalipam"
_OF_PROXY = Codes("IPAM-PROXY-DENIED", "IPAM-PROXY-DOWN", "IPAM-PROXY-LACKS")
# Of those that may be offered.
_NEARLY_FULL = 0.95


def checks(
    settings: ExternalIPAMSettings,
    context: Callable[[], ssl.SSLContext | None],
    store: Callable[[], AbstractAsyncContextManager[Readable]],
) -> list[Check]:
    """Return the checks of the provider the settings choose.

    ``context`` is what another Smart Proxy is asked with, ``store`` opens the cluster's.
    """

    async def provider() -> Sequence[Finding]:
        match settings.provider:
            case "claims":
                return await _of_claims(settings, store)
            case "netbox" if settings.netbox is not None:
                from muster.features.externalipam.providers import netbox

                return [
                    *_unproven("netbox"),
                    *await _of_ipam("netbox", settings.netbox.url, netbox.opened(settings.netbox)),
                ]
            case "phpipam" if settings.phpipam is not None:
                from muster.features.externalipam.providers import phpipam

                opening = phpipam.opened(settings.phpipam)
                return [*_unproven("phpipam"), *await _of_ipam("phpipam", settings.phpipam.url, opening)]
            case "smart_proxy" if settings.smart_proxy is not None:
                return await another_proxy.findings("externalipam", _OF_PROXY, settings.smart_proxy, context())
            case _:
                return []

    return [Check(_PLACE, provider)]


def _unproven(provider: str) -> Sequence[Finding]:
    from muster.features.externalipam.providers import UNPROVEN

    return [
        Finding(
            "IPAM-UNPROVEN",
            _PLACE,
            f"Provider {provider} is unproven: {UNPROVEN[provider]}",
            "No such IPAM was to be had.",
            "Try it on a subnet of its own first, and tell what you see.",
            "warning",
        )
    ]


async def _of_ipam(
    word: str, url: str, opening: AbstractAsyncContextManager[NetBoxIPAM | PhpIPAM]
) -> Sequence[Finding]:
    secret = {"netbox": "token"}.get(word, "user, password")
    try:
        async with opening as ipam:
            await ipam.reached()
    except Misconfigured as e:
        return [
            Finding(
                "IPAM-KEY",
                _PLACE,
                str(e),
                "The account or its secret is another one, has no right to it, or the CA is another one.",
                f"Compare {secret} and ca under features: externalipam: {word}: with the IPAM's.",
            )
        ]
    except MusterError as e:
        return [
            Finding(
                "IPAM-DOWN",
                _PLACE,
                str(e),
                "The IPAM is away, elsewhere, or its API is off.",
                f"Start it; compare features: externalipam: {word}: url, which is {url}, with where it is.",
            )
        ]
    return []


async def _of_claims(
    settings: ExternalIPAMSettings, store: Callable[[], AbstractAsyncContextManager[Readable]]
) -> Sequence[Finding]:
    from muster.features.externalipam.kept import Described
    from muster.features.externalipam.providers.claims import addresses

    try:
        async with store() as opened:
            held = await addresses(opened)
    except MusterError:
        # That the store is down another check says.
        return []
    subnets = Described(settings.claims).all
    found: list[Finding] = []
    if not subnets:
        found.append(
            Finding(
                "IPAM-NO-SUBNET",
                _PLACE,
                "Provider claims has no subnet, so nothing can be offered",
                "features: externalipam: claims: subnets: is empty.",
                "Name there each subnet that Foreman has with External IPAM.",
                "warning",
            )
        )
    homeless: Counter[str] = Counter()
    used: Counter[str] = Counter()
    for one in held:
        home = next((s for s in subnets if s.space == one.group and one.ip in s.network), None)
        if home is None:
            homeless[f"{one.subnet} of group {one.group}" if one.group else one.subnet] += 1
            continue
        low, high = home.span
        used[str(home)] += low <= int(one.ip) <= high and one.ip not in home.excluded
    for subnet in subnets:
        low, high = subnet.span
        size = high - low + 1 - sum(low <= int(ip) <= high for ip in subnet.excluded)
        if used[str(subnet)] >= size * _NEARLY_FULL:
            found.append(
                Finding(
                    "IPAM-NEARLY-FULL",
                    _PLACE,
                    f"{used[str(subnet)]} of the {size} addresses that may be offered in {subnet} are in use",
                    "The subnet is small, or addresses of hosts that are gone were never freed.",
                    "muster ipam list, then muster ipam release what nobody has; or widen first and last.",
                    "warning",
                )
            )
    for where, count in sorted(homeless.items()):
        found.append(
            Finding(
                "IPAM-NO-HOME",
                _PLACE,
                f"{count} address{'es' if count != 1 else ''} in use in {where}, which the settings do not have",
                "The subnet was taken out of the cluster file, or has another group there.",
                "Put it back, or muster ipam release what nobody has.",
                "warning",
            )
        )
    return found
