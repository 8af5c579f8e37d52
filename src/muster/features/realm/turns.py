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

from muster.kernel import log
from muster.kernel.errors import Conflict, MusterError, Unavailable
from muster.kernel.names import FQDN
from muster.store.leases import Lease, Leases

TTL_S = 60.0
"""How long a turn lasts at most; a change's own deadline is shorter. Then whoever has it is taken for dead."""
_NAMES = 64
_WAITED_S = 10.0
_BETWEEN_S = 0.1

_log = log.logger("features")


class Turns:
    """Whose turn it is. ``leases`` None: this process is alone.

    Without the store turns hold within one process: a host can join, and whoever asks two members for one at once is rare.
    """

    def __init__(self, leases: Leases | None, member: str) -> None:
        self._leases = leases
        self._member = member
        self._here: set[FQDN] = set()

    @asynccontextmanager
    async def turn(self, host: FQDN, *, is_patient: bool) -> AsyncIterator[None]:
        """Hold the turn for a host.

        Whoever ``is_patient`` waits for others who change the host. Whoever wants a password does not: the other's, told a
        moment before, would be wrong then.

        Raises:
            Conflict: another call changes the host at this moment; nothing was changed.
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
            try:
                yield
            finally:
                if lease is not None:
                    await _released(self._leases, lease)
        finally:
            self._here.remove(host)

    async def _acquired(self, leases: Leases, host: FQDN, end: float, *, is_patient: bool) -> Lease | None:
        name = f"realm-{zlib.crc32(host.lower().encode()) % _NAMES:02}"
        holder = f"{self._member} {secrets.token_hex(8)} {host.lower()}"
        while True:
            try:
                lease = await leases.acquire(name, holder, TTL_S)
                if lease is not None:
                    return lease
                held = await leases.held(name)
            except MusterError as e:
                _log.warning(f"{host} is changed in its realm without asking whether another member does so, too: {e}")
                return None
            is_same = held is not None and held.holder.rpartition(" ")[2] == host.lower()
            await _waited(host, end, is_patient=is_patient or not is_same)


async def _released(leases: Leases, lease: Lease) -> None:
    try:
        await leases.release(lease)
    except MusterError as e:
        _log.warning(f"The turn {lease.name} was not given back, others wait for {TTL_S:g} s: {e}")


async def _waited(host: FQDN, end: float, *, is_patient: bool) -> None:
    if not is_patient:
        raise Conflict(f"Another call changes {host} in its realm at this moment; nothing was changed")
    if asyncio.get_running_loop().time() > end:
        raise Unavailable(f"Other calls change hosts of the realm for longer than {_WAITED_S:g} s; nothing was changed")
    await asyncio.sleep(_BETWEEN_S)
