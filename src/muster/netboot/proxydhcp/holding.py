"""Who answers on port 67: the one member that holds the role, which another takes within two seconds of its death.

Nothing is written in this role, so no write needs the epoch as its fence: the worst that a member does which has lost the
role and does not know it yet is to answer once more, and of two answers a machine takes one. Each is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from muster.kernel import log
from muster.kernel.errors import Conflict
from muster.store.leases import Lease, Leases

_log = log.logger("netboot")

ROLE = "proxy-dhcp"
TTL_S = 1.5
RENEWED_EVERY_S = 0.5


class Holding:
    """One member's part in it.

    While the store does not answer, who held the role last goes on in it: nobody else can take it, unless the store answers
    others, and then there are two for as long as that lasts, which hurts no machine.
    """

    def __init__(self, leases: Leases, holder: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._leases = leases
        self._holder = holder
        self._now = now
        self._lease: Lease | None = None
        self._renewed_at = 0.0

    @property
    def holds(self) -> bool:
        """Whether this member answers."""
        return self._lease is not None

    async def beat(self, *, fit: bool) -> None:
        """Keep the role, take it when nobody has it, or, when this member is not ``fit`` for it, give it up.

        Raises:
            Unavailable: the store did not answer; who held the role still does.
        """
        if not fit:
            await self.resign()
            return
        if self._lease is not None:
            if self._now() - self._renewed_at < RENEWED_EVERY_S:
                return
            began = self._now()
            try:
                self._lease = await self._leases.renew(self._lease, TTL_S)
            except Conflict:
                # Too late, after a pause of ours or of the store's; whether anybody has it is seen below.
                self._lease = None
            else:
                self._renewed_at = began
                return
        elif await self._leases.held(ROLE) is not None:
            return
        began = self._now()
        self._lease = await self._leases.acquire(ROLE, self._holder, TTL_S)
        self._renewed_at = began
        if self._lease is not None:
            _log.info("Answers ProxyDHCP from now on", epoch=self._lease.epoch)

    async def resign(self) -> None:
        """Give the role up, so that another member may take it at once.

        Raises:
            Unavailable: the store did not answer; this member answers no more, and the role is free when it expires.
        """
        lease, self._lease = self._lease, None
        if lease is not None:
            _log.info("Answers ProxyDHCP no more")
            await self._leases.release(lease)
