"""One change of a host at a time, whichever members are asked: of two passwords at once one would be wrong.

The leases of the store stand for hosts, a few names for all of them, because a lease's row stays for good. Whose turn it is
stands in the lease's holder.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muster.features.realm.contract import Untouched
from muster.kernel import log
from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.kernel.names import FQDN
from muster.store.leases import Lease, Leases

SETTLED_S = 35.0
"""How long a turn lasts beyond a change's deadline; then its holder is taken for dead, what was not answered for done."""
_NAMES = 64
# With a change of its own after it within the 60 s that Foreman waits, which takes a refused removal for done.
_WAITED_S = 30.0
_BETWEEN_S = 0.1

_log = log.logger("features")


class Turns:
    """Whose turn it is. ``leases`` None: this process is alone; ``longest_s``: a change's own deadline.

    A change that was not answered may be made later yet, after the next one: its turn is not given back, it ends by itself.

    Without the store turns hold within one process: a host can join, and whoever asks two members for one at once is rare.
    """

    def __init__(self, leases: Leases | None, member: str, longest_s: float) -> None:
        self._leases = leases
        self._member = member
        self._ttl_s = longest_s + SETTLED_S
        self._here: set[FQDN] = set()

    @asynccontextmanager
    async def turn(self, host: FQDN, *, is_patient: bool) -> AsyncIterator[None]:
        """Hold the turn for a host.

        Whoever ``is_patient`` waits for others who change the host. Whoever wants a password does not: the other's, told a
        moment before, would be wrong then.

        Raises:
            Conflict: another call changes the host at this moment, or was not answered; nothing was changed.
            Unavailable: others took too long; nothing was changed.
        """
        end = asyncio.get_running_loop().time() + _WAITED_S
        while host in self._here:
            await _waited(host, end, is_patient=is_patient)
        self._here.add(host)
        try:
            if self._leases is None:
                yield
                return
            lease = await self._acquired(self._leases, host, end, is_patient=is_patient)
            if lease is None:
                yield
                return
            is_settled = True
            try:
                yield
            except (Unavailable, asyncio.CancelledError) as e:
                is_settled = isinstance(e, Untouched)
                raise
            finally:
                if is_settled:
                    await self._released(self._leases, lease)
        finally:
            self._here.remove(host)

    async def _acquired(self, leases: Leases, host: FQDN, end: float, *, is_patient: bool) -> Lease | None:
        name = f"realm-{zlib.crc32(host.lower().encode()) % _NAMES:02}"
        holder = f"{self._member} {secrets.token_hex(8)} {host.lower()}"
        while True:
            try:
                lease = await leases.acquire(name, holder, self._ttl_s)
                if lease is not None:
                    return lease
                held = await leases.held(name)
            except MusterError as e:
                _log.warning(f"{host} is changed in its realm without asking whether another member does so, too: {e}")
                return None
            is_same = held is not None and held.holder.rpartition(" ")[2] == host.lower()
            await _waited(host, end, is_patient=is_patient or not is_same)

    async def _released(self, leases: Leases, lease: Lease) -> None:
        try:
            await leases.release(lease)
        except MusterError as e:
            _log.warning(f"The turn {lease.name} was not given back, others wait for {self._ttl_s:g} s: {e}")


async def _waited(host: FQDN, end: float, *, is_patient: bool) -> None:
    if not is_patient:
        raise Conflict(
            f"Another call changes {host} in its realm, or was not answered a moment ago; nothing was changed"
        )
    if asyncio.get_running_loop().time() > end:
        raise Unavailable(
            f"Other calls change hosts of the realm, or were not answered, for {_WAITED_S:g} s and more; nothing was changed"
        )
    await asyncio.sleep(_BETWEEN_S)
