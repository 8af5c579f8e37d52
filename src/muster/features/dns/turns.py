"""One change of a name at a time, in whatever member: for servers whose API takes no condition with a change.

Who looks first and writes then has to keep others out between. A name falls into one of :data:`TURNS` leases of the store,
so there are no more rows than those, however many names there are; who changes a name holds its lease. In one member calls
wait for each other in their order; of several members, each looks again every few hundredths of a second.

A lease ends by itself when its holder dies. A server that carries out what it was sent after the lease has ended would be a
late writer that no epoch keeps out, since no such server knows epochs; so the change is given up well before.
"""

from __future__ import annotations

import asyncio
import secrets
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import FQDN, ServiceName
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

_log = logger("features")

TURNS = 64
"""How many changes of different names can go on at once."""
CHANGED_WITHIN_S = 20.0
"""How long a change may take, all that is asked of the server included."""
_HELD_S = CHANGED_WITHIN_S + 10.0
_WAITED_S = 10.0
_BETWEEN_S = 0.03


class Turns:
    """The turns of one provider. ``store`` None: of this process alone."""

    def __init__(self, store: Store | None, provider: str) -> None:
        self._leases = None if store is None else Leases(store)
        self._provider = provider
        self._here = [asyncio.Lock() for _ in range(TURNS)]

    @asynccontextmanager
    async def of(self, name: FQDN | ServiceName) -> AsyncIterator[None]:
        """Hold a name while the block looks at it and changes it.

        Raises:
            Unavailable: another call holds it for too long, or the store does not answer, and nothing was changed; or the
                block took longer than :data:`CHANGED_WITHIN_S`, and whether anything was is unknown.
        """
        number = zlib.crc32(name.lower().encode()) % TURNS
        async with self._here[number]:
            lease = await self._taken(f"dns-{self._provider}-{number:02d}", name)
            try:
                async with asyncio.timeout(CHANGED_WITHIN_S):
                    yield
            except TimeoutError:
                raise Unavailable(
                    f"Changing {name} took longer than {CHANGED_WITHIN_S:g} s; whether it was changed is unknown"
                ) from None
            finally:
                if lease is not None:
                    # However the call ends, also when its client has gone: others would wait for it.
                    await asyncio.shield(asyncio.ensure_future(self._given_up(lease)))

    async def _taken(self, what: str, name: str) -> Lease | None:
        if self._leases is None:
            return None
        clock = asyncio.get_running_loop().time
        end = clock() + _WAITED_S
        # Unique to the call, so that no other of this member takes it for its own.
        holder = secrets.token_hex(8)
        while True:
            lease = await self._leases.acquire(what, holder, _HELD_S)
            if lease is not None:
                return lease
            if clock() > end:
                raise Unavailable(f"Other calls change {name}, or a name beside it, all the time; nothing was changed")
            await asyncio.sleep(_BETWEEN_S)

    async def _given_up(self, lease: Lease) -> None:
        try:
            if self._leases is not None:
                await self._leases.release(lease)
        except MusterError as e:
            # What was changed is changed; the lease ends by itself.
            _log.warning(f"A change of DNS was not ended in the store, others wait for it: {e}")
