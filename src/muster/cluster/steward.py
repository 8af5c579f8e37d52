"""The steward: of all processes of the cluster, the one whose beat decides about members now.

Every member and every balancer has one and offers it a beat; a lease lets one of them decide, and its epoch travels into
every write, so that one that was paused while another took over changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.cluster.decide import Decision, decided
from muster.cluster.file import ClusterFile
from muster.cluster.life import changed
from muster.cluster.minutes import MINUTES, ROLE
from muster.cluster.view import view
from muster.kernel.errors import Conflict
from muster.kernel.log import logger
from muster.store.documents import Documents, replaced
from muster.store.leases import Lease, Leases

if TYPE_CHECKING:
    from muster.store.engine import Store

_log = logger("cluster")

_TTL_S = 5.0
# One of them is enough, so the others ask seldom whether it is still there.
_LOOK_EVERY = 3


class Steward:
    """One process's share in deciding.

    Args:
        holder: unique to one life of this process.
    """

    def __init__(self, store: Store, holder: str) -> None:
        self._store = store
        self._leases = Leases(store)
        self._holder = holder
        self._lease: Lease | None = None
        self._skipped = _LOOK_EVERY
        self._said = ""

    @property
    def decides(self) -> bool:
        """Whether this process was the steward at its last beat."""
        return self._lease is not None

    async def beat(self, cluster: ClusterFile) -> str | None:
        """Decide and carry out, if this process is the steward; return the beat's sentence, None when another one is.

        Raises:
            Unavailable: the store did not answer; whoever answers next decides anew.
        """
        if not await self._is_mine():
            return None
        decision = decided(await view(self._store, cluster))
        try:
            await self._carry_out(decision)
        except Conflict as e:
            # Somebody changed what this was decided on; the next view has it.
            _log.debug("A decision came too late", why=str(e))
            return decision.sentence
        await self._tell(decision)
        return decision.sentence

    async def resign(self) -> None:
        """Let another process decide at once."""
        if self._lease is not None:
            await self._leases.release(self._lease)
            self._lease = None

    async def _is_mine(self) -> bool:
        if self._lease is not None:
            try:
                self._lease = await self._leases.renew(self._lease, _TTL_S)
            except Conflict:
                self._lease = None
            else:
                return True
        self._skipped += 1
        if self._skipped < _LOOK_EVERY:
            return False
        self._skipped = 0
        if await self._leases.held(ROLE) is None:
            self._lease = await self._leases.acquire(ROLE, self._holder, _TTL_S)
            # Another one spoke meanwhile.
            self._said = ""
        return self._lease is not None

    async def _carry_out(self, decision: Decision) -> None:
        """Write every step in one unit: what was decided together lands together, or not at all."""
        if not decision.commands or self._lease is None:
            return
        async with self._store.write("life") as uow:
            await self._leases.fence(uow, self._lease)
            for step in decision.commands:
                await changed(uow, step.member, step.state, reason=step.reason, expected=step.version)

    async def _tell(self, decision: Decision) -> None:
        content = {
            "sentence": decision.sentence,
            "held": dict(decision.held),
            "waiting": dict(decision.waiting),
            "by": self._holder,
        }
        if str(content) == self._said or self._lease is None:
            return
        before = await Documents(self._store).read(MINUTES)
        try:
            async with self._store.write("minutes") as uow:
                await self._leases.fence(uow, self._lease)
                await replaced(uow, before, content, by=self._holder)
        except Conflict:
            return
        if decision.sentence not in self._said:
            _log.info(decision.sentence)
        self._said = str(content)
