"""The cluster's own CA, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime

from muster.authority.authority import PuppetCA
from muster.features.puppetca.contract import Certificate
from muster.features.puppetca.status import as_foreman_sees
from muster.kernel.errors import NotFound, Unavailable


class OwnCA:
    """Asks the ledger. ``authority`` returns None until the member could open its CA."""

    def __init__(self, authority: Callable[[], PuppetCA | None]) -> None:
        self._authority = authority

    async def list(self) -> list[Certificate]:
        now = datetime.now(UTC)
        return [as_foreman_sees(json.loads(s), now) for s in await self._open().certificates.statuses()]

    async def reached(self) -> None:
        await self._open().reached()

    async def sign(self, certname: str) -> None:
        await self._open().requests.sign(certname, actor="Foreman")

    async def clean(self, certname: str) -> None:
        ca = self._open()
        # A request may be signed between two looks; its certificate must be revoked, not only removed: so it is the
        # request alone that goes, and where that is gone already, the next look meets the certificate.
        while await ca.certificates.clean([certname], actor="Foreman"):
            try:
                await ca.requests.reject(certname, actor="Foreman")
            except NotFound:
                if await ca.certificates.status(certname) is None:
                    return
            else:
                return

    def _open(self) -> PuppetCA:
        found = self._authority()
        if found is None:
            raise Unavailable("This member's Puppet CA is not open yet; muster status says why")
        return found
