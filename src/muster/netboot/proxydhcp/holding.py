"""Who answers on port 67: the one member that holds the role, which another takes within two seconds of its death.

Nothing is written in this role, so no write needs the epoch as its fence: the worst that a member does which has lost the
role and does not know it yet is to answer once more, and of two answers a machine takes one. Each is whole.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from muster.kernel import log
from muster.kernel.errors import Conflict, MusterError
from muster.store.leases import Lease, Leases

_log = log.logger("netboot")

ROLE = "proxy-dhcp"
TTL_S = 1.5
RENEWED_EVERY_S = 0.5
LEFT_S = 3.0
"""So long after the store was away its last holder may take the role before others do."""


class Holding:
    """One member's part in it.

    While the store does not answer, who held the role last goes on in it: nobody else can take it, unless the store answers
    others, and then there are two for as long as that lasts, which hurts no machine.

    When the store is back, or a member or the store was paused, the lease has expired without anybody having died: whoever
    asks first would take the role from one that answers, and both would until that one hears of it. So a member that just
    missed the store leaves the role to its last holder for a while.
    """

    def __init__(self, leases: Leases, holder: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._leases = leases
        self._holder = holder
        self._now = now
        self._lease: Lease | None = None
        self._renewed_at = 0.0
        # Whether the store did not answer, or this member did not ask, since the role was last seen in somebody's hands.
        self._missed = False
        self._answered_at: float | None = None
        self._free_since: float | None = None

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
            self._answered_at = None
            await self.resign()
            return
        try:
            await self._keep()
        except MusterError:
            self._missed, self._free_since = True, None
            raise
        self._answered_at = self._now()

    async def _keep(self) -> None:
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
                self._missed = False
                return
        elif not await self._is_free():
            return
        began = self._now()
        self._lease = await self._leases.acquire(ROLE, self._holder, TTL_S)
        self._renewed_at = began
        self._missed, self._free_since = False, None
        if self._lease is not None:
            _log.info("Answers ProxyDHCP from now on", epoch=self._lease.epoch)

    async def _is_free(self) -> bool:
        """Whether this member may take the role, which was not its own."""
        if await self._leases.held(ROLE) is not None:
            self._missed, self._free_since = False, None
            return False
        now = self._now()
        if self._answered_at is not None and now - self._answered_at > TTL_S:
            # This member or the store was paused, and the role's holder may have been.
            self._missed = True
        if not self._missed:
            return True
        # From the first time on that it was seen free: a store that is always slow must not keep everybody waiting.
        self._free_since = now if self._free_since is None else self._free_since
        return now - self._free_since >= LEFT_S

    async def resign(self) -> None:
        """Give the role up, so that another member may take it at once.

        Raises:
            Unavailable: the store did not answer; this member answers no more, and the role is free when it expires.
        """
        lease, self._lease = self._lease, None
        if lease is not None:
            _log.info("Answers ProxyDHCP no more")
            await self._leases.release(lease)
