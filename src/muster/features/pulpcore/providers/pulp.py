"""A real Pulp's API over HTTP, TLS or a socket of this host; one question, which anybody may ask.

Source: docs/facts/smart-proxy-protocol.md §18.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

from muster.edge.feature import Surroundings
from muster.features.pulpcore.contract import Said
from muster.features.pulpcore.settings import PulpcoreSettings
from muster.foreman import smart_proxy as http
from muster.pki.context import RenewedContext

_STATUS = "/pulp/api/v3/status/"
_ANSWER_LIMIT_BYTES = 1 << 20


class RealPulp:
    """Asks the Pulp at a URL. A Pulp may move, and each place has a client of its own."""

    def __init__(self, stack: AsyncExitStack, context: Callable[[], ssl.SSLContext], timeout_s: float) -> None:
        self._stack = stack
        self._context = context
        self._timeout_s = timeout_s
        self._clients: dict[str, http.SmartProxy] = {}

    async def status(self, url: str) -> Said:
        client = self._clients.get(url)
        if client is None:
            opening = http.opened(
                url, context=self._context, timeout_s=self._timeout_s, answer_limit_bytes=_ANSWER_LIMIT_BYTES
            )
            client = self._clients[url] = await self._stack.enter_async_context(opening)
        answer = await client.ask("GET", _STATUS)
        return Said(answer.status, answer.text)


@asynccontextmanager
async def opened(settings: PulpcoreSettings, around: Surroundings) -> AsyncIterator[RealPulp]:
    """Yield the provider; renewed certificate files are taken up.

    Raises:
        Misconfigured: a file cannot be used.
    """
    site = around.cluster.foreman.ca_file if around.cluster is not None else None
    ca, also = (settings.ca_file, ()) if settings.ca_file is not None else (around.ca, (site,) if site else ())
    context = RenewedContext(ca, around.certificate, around.key, also=also)
    async with AsyncExitStack() as stack:
        yield RealPulp(stack, context, settings.status_timeout_s)
