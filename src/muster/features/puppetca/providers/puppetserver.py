"""A real puppetserver's CA over its HTTP API (docs/facts/puppet-ca.md §1)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from muster.features.puppetca.contract import Certificate
from muster.features.puppetca.settings import PuppetserverSettings
from muster.features.puppetca.status import as_foreman_sees
from muster.foreman import smart_proxy as http
from muster.foreman.answers import Answer
from muster.kernel.errors import Conflict, Misconfigured, NotFound, Unavailable
from muster.kernel.names import shown
from muster.pki.context import RenewedContext

_STATUS = "/puppet-ca/v1/certificate_status/"


class PuppetserverCA:
    """Asks the server as the Ruby proxy does; the key in the list's path is a dummy there, too."""

    def __init__(self, server: http.SmartProxy) -> None:
        self._server = server

    async def list(self) -> list[Certificate]:
        answer = await self._ask("GET", "/puppet-ca/v1/certificate_statuses/foreman")
        # The status first: what a server says of its failure is seldom JSON.
        found = answer.json() if answer.status == 200 else None
        if not isinstance(found, list):
            raise Unavailable(f"Failed to query Puppet CA search v1 API: {answer.status} {shown(answer.text, 200)}")
        now = datetime.now(UTC)
        return [as_foreman_sees(s, now) for s in found if isinstance(s, dict)]

    async def reached(self) -> None:
        answer = await self._ask("GET", "/status/v1/simple/ca")
        if answer.status != 200:
            raise Unavailable(f"{self._server.url} answered {answer.status} for the state of its CA")

    async def sign(self, certname: str) -> None:
        answer = await self._ask("PUT", _STATUS + quote(certname, safe=""), {"desired_state": "signed"})
        if answer.status >= 300:
            said = f"Failed to set Puppet CA certificate_status v1 API: {answer.status} {shown(answer.text, 300)}"
            raise {404: NotFound, 409: Conflict}.get(answer.status, Unavailable)(said)

    async def clean(self, certname: str) -> None:
        # Nothing to revoke, or nothing but a request, is as good as done.
        for method, document in (("PUT", {"desired_state": "revoked"}), ("DELETE", None)):
            answer = await self._ask(method, _STATUS + quote(certname, safe=""), document)
            if answer.status >= 300 and answer.status not in (404, 409):
                raise Unavailable(f"{self._server.url} answered {answer.status} to {method}: {shown(answer.text, 300)}")

    async def _ask(self, method: str, path: str, document: Any = None) -> Answer:
        answer = await self._server.ask(method, path, document=document)
        if answer.status in (401, 403):
            raise Misconfigured(
                f"{self._server.url} refuses our certificate for {path}: its auth.conf must let that certname in"
            )
        return answer


@asynccontextmanager
async def opened(settings: PuppetserverSettings) -> AsyncIterator[PuppetserverCA]:
    """Yield the provider; renewed certificate files are taken up.

    Raises:
        Misconfigured: a file cannot be used.
    """
    context = RenewedContext(settings.ca, settings.certificate, settings.key)
    async with http.opened(
        settings.url, context=context, server_name=settings.server_name, timeout_s=settings.timeout_s
    ) as server:
        yield PuppetserverCA(server)
