"""Another Smart Proxy, ours or the Ruby one, that keeps a feature's records: its settings, its client, its faults.

The same for every feature whose contract another proxy can serve over REST.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.cluster.values import ForemanURL, Seconds
from muster.edge.feature import Surroundings
from muster.kernel.errors import Denied, MusterError
from muster.kernel.findings import Finding
from muster.kernel.names import FQDN
from muster.kernel.settings import Settings

if TYPE_CHECKING:
    from muster.foreman.smart_proxy import SmartProxy

_LARGEST_ANSWER = 4 << 20


class SmartProxySettings(Settings):
    """Another Smart Proxy, over its REST API."""

    url: ForemanURL
    """The other proxy's URL."""
    server_name: FQDN | None = None
    """Name its certificate carries, when it is not the URL's host."""
    timeout_s: Seconds = 20.0
    """How long one call may take."""


@asynccontextmanager
async def opened(
    settings: SmartProxySettings, around: Surroundings, *, answer_limit_bytes: int = _LARGEST_ANSWER
) -> AsyncIterator[SmartProxy]:
    """Yield a client that presents this member's certificate; a renewed one is taken up."""
    # Reading settings loads no HTTP client.
    from muster.foreman import smart_proxy
    from muster.pki.context import RenewedContext

    context = RenewedContext(around.ca, around.certificate, around.key) if settings.url.startswith("https") else None
    async with smart_proxy.opened(
        settings.url,
        context=context,
        server_name=settings.server_name,
        timeout_s=settings.timeout_s,
        answer_limit_bytes=answer_limit_bytes,
    ) as proxy:
        yield proxy


@dataclass(frozen=True)
class Codes:
    """What the doctor calls a proxy that refuses us, one that does not answer, and one without the feature."""

    denied: str
    down: str
    lacks: str


async def findings(
    feature: str, codes: Codes, settings: SmartProxySettings, context: ssl.SSLContext | None
) -> Sequence[Finding]:
    """Return what the doctor finds wrong with another proxy that is to serve a feature.

    ``context`` is what it is asked with; None: our own files are no use, which is said elsewhere.
    """
    # An HTTP client takes longer to load than all else that the doctor does about a feature.
    from muster.foreman import smart_proxy

    if context is None:
        return []
    place = f"feature {feature}"
    name = str(settings.server_name) if settings.server_name else None
    try:
        async with smart_proxy.opened(settings.url, context=context, server_name=name, timeout_s=5.0) as proxy:
            features = (await proxy.call("GET", "/features")).json()
    except Denied as e:
        return [
            Finding(
                codes.denied,
                place,
                str(e),
                "The other Smart Proxy does not trust our name.",
                "Add the members' names to its trusted hosts.",
            )
        ]
    except MusterError as e:
        return [
            Finding(
                codes.down,
                place,
                str(e),
                "The other Smart Proxy is stopped, elsewhere, or of another CA.",
                f"Start it; compare features: {feature}: smart_proxy: url with where it listens.",
            )
        ]
    if feature in features:
        return []
    return [
        Finding(
            codes.lacks,
            place,
            f"{settings.url} has no feature {feature}; it has {', '.join(sorted(map(str, features))) or 'none'}",
            f"{feature.upper()} is off there, or failed to start.",
            "Switch it on there, or name another Smart Proxy.",
        )
    ]
