"""One change of a server's records at a time, in whatever member: for servers whose API takes no condition with a change.

Who looks first and writes then has to keep others out between. Whoever changes holds one lease of the store. Not one a
name: a PowerDNS that has its zones in SQLite fails changes that are made at once, of whatever names. In one member calls
wait for each other in their order; of several members, each looks again every few hundredths of a second.

A lease ends by itself when its holder dies. A server that carries out what it was sent after the lease has ended would be a
late writer that no epoch keeps out, since no such server knows epochs; so the change is given up well before. For the same
reason a lease under which something was sent that had no answer is kept until it ends by itself: the server may be at it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from muster.kernel.errors import MusterError, Unavailable
from muster.kernel.log import logger
from muster.kernel.names import FQDN, ServiceName
from muster.store.engine import Store
from muster.store.leases import Lease, Leases

_log = logger("features")

CHANGED_WITHIN_S = 20.0
"""How long a change may take, all that is asked of the server included."""
_HELD_S = CHANGED_WITHIN_S + 10.0
_WAITED_S = 10.0
_BETWEEN_S = 0.03


class Turn:
    """The turn of one change.

    Attributes:
        is_unanswered: something was sent that the server may still carry out.
    """

    def __init__(self) -> None:
        self.is_unanswered = False

    @contextmanager
    def sent(self) -> Iterator[None]:
        """Send what changes something in the block: an error other than ``Unavailable`` is an answer, too."""
        self.is_unanswered = True
        try:
            yield
        except MusterError as e:
            self.is_unanswered = isinstance(e, Unavailable)
            raise
        self.is_unanswered = False


class Turns:
    """The turns of one provider. ``store`` None: of this process alone."""

    def __init__(self, store: Store | None, provider: str) -> None:
        self._leases = None if store is None else Leases(store)
        self.lease = f"dns-{provider}"
        self._here = asyncio.Lock()

    @asynccontextmanager
    async def of(self, name: FQDN | ServiceName) -> AsyncIterator[Turn]:
        """Keep others out while the block looks at a name and changes it, within :meth:`Turn.sent`.

        Raises:
            Unavailable: others change something all the time, or the store does not answer, and nothing was changed; or the
                block took longer than :data:`CHANGED_WITHIN_S`, and whether anything was is unknown.
        """
        async with self._here:
            lease, turn = await self._taken(name), Turn()
            try:
                async with asyncio.timeout(CHANGED_WITHIN_S):
                    yield turn
            except TimeoutError:
                raise Unavailable(
                    f"Changing {name} took longer than {CHANGED_WITHIN_S:g} s; whether it was changed is unknown"
                ) from None
            finally:
                if lease is not None and turn.is_unanswered:
                    _log.warning(
                        "A change of DNS had no answer; others wait until it can no longer come late, %g s at most",
                        _HELD_S,
                    )
                elif lease is not None:
                    # However the call ends, also when its client has gone: others would wait for it.
                    await asyncio.shield(asyncio.ensure_future(self._given_up(lease)))

    async def _taken(self, name: str) -> Lease | None:
        if self._leases is None:
            return None
        clock = asyncio.get_running_loop().time
        end = clock() + _WAITED_S
        # Unique to the call, so that no other of this member takes it for its own.
        holder = secrets.token_hex(8)
        while True:
            lease = await self._leases.acquire(self.lease, holder, _HELD_S)
            if lease is not None:
                return lease
            if clock() > end:
                raise Unavailable(
                    f"Others change DNS all the time, or the change before had no answer, so {name} had no turn; "
                    "nothing was changed"
                )
            await asyncio.sleep(_BETWEEN_S)

    async def _given_up(self, lease: Lease) -> None:
        try:
            if self._leases is not None:
                await self._leases.release(lease)
        except MusterError as e:
            # What was changed is changed; the lease ends by itself.
            _log.warning(f"A change of DNS was not ended in the store, others wait for it: {e}")
