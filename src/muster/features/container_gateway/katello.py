"""What Katello, in Foreman, says of who somebody is and of what he may read."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

from muster.content import backend as backends
from muster.content.backend import Backend, GatewayTimeout, Patience
from muster.kernel.errors import Unavailable
from muster.pki.context import RenewedContext

_LARGEST = 16 << 20
_CONNECT_S = 5.0


@dataclass(frozen=True)
class Said:
    """An answer of Katello's. Its body is handed to clients as it is where it refuses."""

    status: int
    body: bytes
    content_type: str

    def json(self) -> dict[str, Any]:
        """Return the body.

        Raises:
            Unavailable: it is no JSON object.
        """
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise Unavailable("What Katello answered is no JSON object: is foreman.url a Foreman with Katello?")
        return found


class Katello:
    """Asks Katello's registry. Use :func:`opened`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def token(self, authorization: str, query: Mapping[str, str]) -> Said:
        """Ask whether somebody may log in.

        Raises:
            Unavailable, BadGateway: Foreman did not answer.
        """
        return await self._asked("/v2/token", query, {"Authorization": authorization} if authorization else {})

    async def repositories_of_user(self, authorization: str, query: Mapping[str, str]) -> Said:
        """Ask what a user may read; as :meth:`token`."""
        return await self._asked("/v2/_catalog", query, {"Authorization": authorization})

    async def repositories_of_host(self, uuid: str) -> Said:
        """Ask what the host with a subscription may read; as :meth:`token`."""
        return await self._asked("/v2/_catalog", {}, {"HostUUID": uuid})

    async def _asked(self, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> Said:
        sent = [("Accept", "application/json"), ("Accept-Encoding", "identity"), *headers.items()]
        try:
            got = await self._backend.ask("GET", f"{path}?{urlencode(query)}" if query else path, sent)
        except GatewayTimeout as e:
            # For whoever logs in it is away, and may be back when he asks again.
            raise Unavailable(str(e)) from e
        body = await got.whole(_LARGEST)
        if body is None:
            raise Unavailable(f"What Katello answered to {path} is larger than {_LARGEST >> 20} MiB")
        kind = next((v for k, v in got.headers if k.lower() == "content-type"), "application/json")
        return Said(got.status, body, kind)


@contextlib.asynccontextmanager
async def opened(foreman_url: str, context: RenewedContext, *, timeout_s: float) -> AsyncIterator[Katello]:
    """Yield what asks the Katello of a Foreman, whose registry lies at its root."""
    parts = urlsplit(foreman_url)
    origin = f"{parts.scheme}://{parts.netloc}"
    patience = Patience(_CONNECT_S, timeout_s, timeout_s)
    async with backends.opened("Foreman", origin, patience, context=context) as backend:
        yield Katello(backend)
