"""One writer of Kea's configuration among all members: read, compare, set, write.

Kea sets whole configurations and compares none, so whoever sets one may undo what another has set a moment before. Members
therefore take turns by a lease of the store, and whoever has it asks, right before it sets the configuration, whether what
it read is still in force and the lease still its own: a member that was paused, or cut off from the store, sets nothing.

What is left: somebody who is no member and sets a configuration in the moment between that question and our setting it. Kea
has no command that would tell.

Changes that come meanwhile are made together by the next turn, so a hundred take hardly longer than one.

Source: Kea Administrator Reference Manual, "config-set", "config-write"; docs/facts/kea.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from muster.features.dhcp.contract import Unreached
from muster.features.dhcp.kea.commands import Kea
from muster.features.dhcp.kea.configuration import Configuration, Content, Draft
from muster.features.dhcp.kea.in_force import Current
from muster.features.dhcp.kea.unwritten import Unwritten, already_changed, unwritable
from muster.kernel.errors import Conflict, Misconfigured, MusterError, Rejected, Unavailable
from muster.kernel.log import logger
from muster.kernel.tasks import ended
from muster.store.leases import Lease, Leases

_log = logger("features")

Edit = Callable[[Draft], None]
"""Makes one change in a draft, or raises why it cannot be made."""
ROLE = "dhcp-kea"
"""The lease. The cluster file names one Kea, so there is one for all members."""
TTL_S = 30.0
"""How long a member is the writer; renewed right before it sets a configuration."""
_WAITED_S = 10.0
_BETWEEN_S = 0.05
_TRIES = 5
_AT_ONCE = 256
# The store may answer late, and after it Kea four times.
_MADE_WITHIN_S = 15.0
_Waiting = tuple[Edit, "asyncio.Future[None]"]


class Writer:
    """Changes Kea's configuration. Use :func:`opened`.

    Args:
        role: the lease's name, the same for all members that change this Kea.
        holder: unique to this life of this process.
    """

    def __init__(
        self, kea: Kea, current: Current, leases: Leases, unwritten: Unwritten, role: str, holder: str
    ) -> None:
        self._kea = kea
        self._unwritten = unwritten
        self._current = current
        self._leases = leases
        self._role = role
        self._holder = holder
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._making: set[asyncio.Future[None]] = set()

    async def change(self, edit: Edit) -> None:
        """Make a change, perhaps with others; return when it is in force and in Kea's file.

        Raises:
            MusterError: whatever ``edit`` raised; nothing was changed.
            Rejected: Kea refuses it; nothing was changed.
            Misconfigured: Kea cannot write its file; nothing was changed.
            Unreached: other writers were at it for too long, or Kea or the store did not answer; nothing was changed.
            Unavailable: whether it was made is unknown.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((edit, done))
        try:
            await asyncio.shield(done)
        except asyncio.CancelledError:
            if done in self._making:
                # It comes all the same: whoever changes the same next has to find it there.
                await asyncio.wait([done], timeout=_MADE_WITHIN_S)
            if not done.cancel() and not done.cancelled():
                # Heard, though nobody is told.
                done.exception()
            raise

    async def run(self) -> None:
        """Make the changes that are waited for, turn by turn, until cancelled."""
        try:
            while True:
                await self._turn()
        finally:
            while not self._waiting.empty():
                _all_fail([self._waiting.get_nowait()], Unreached("This member ends; nothing was changed"))

    async def _turn(self) -> None:
        turn = [await self._waiting.get()]
        while not self._waiting.empty() and len(turn) < _AT_ONCE:
            turn.append(self._waiting.get_nowait())
        # Whose call has ended waits no more; nobody knows that it was to be changed.
        turn = [one for one in turn if not one[1].done()]
        try:
            await self._made(turn)
        except MusterError as e:
            _all_fail(turn, e)
        except asyncio.CancelledError:
            _all_fail(turn, Unavailable("This member ends; whether the reservation was changed is unknown"))
            raise
        except Exception as e:  # noqa: BLE001 - boundary: a fault of ours must not end the turns of all others
            _log.exception("Changing Kea's configuration failed")
            _all_fail(turn, e)

    async def _made(self, turn: Sequence[_Waiting]) -> None:
        if not turn:
            return
        lease = await self._acquired()
        try:
            await self._together(turn, lease)
        except (Conflict, Rejected, Misconfigured, Unreached):
            await self._released(lease)
            raise
        # After anything else nobody knows what Kea still does: others wait until the lease has ended.
        await self._released(lease)

    async def _together(self, turn: Sequence[_Waiting], lease: Lease) -> None:
        try:
            await self._set(turn, lease)
        except Rejected:
            if len(turn) == 1:
                raise
            # Kea says of the whole that something is wrong with it.
            for one in turn:
                try:
                    await self._set([one], lease)
                except (Conflict, Rejected) as e:
                    _all_fail([one], e)

    async def _set(self, turn: Sequence[_Waiting], lease: Lease) -> None:
        """Make changes in one configuration.

        Raises:
            Rejected: Kea refuses it; nothing was changed.
            As :meth:`change`.
        """
        # Whoever wants a change has just asked; whether that is in force still is asked before anything is set.
        latest = self._current.latest
        before = latest.configuration if latest is not None else await self._asked()
        for _ in range(_TRIES):
            draft = Draft(before)
            made = [one for one in turn if not one[1].done() and _edited(draft, one)]
            if draft.is_empty:
                await self._unwritten.settled(own=True)
                _all_succeed(made)
                return
            self._making = {done for _, done in made}
            try:
                async with self._unwritten.marked():
                    now = await self._compared(before, draft, lease)
            finally:
                self._making = set()
            if now is None:
                _all_succeed(made)
                return
            # Somebody else has set another one meanwhile, which is to stay.
            before = now
        raise Unreached(f"Somebody else changed Kea's configuration {_TRIES} times meanwhile; nothing was changed")

    async def _compared(self, before: Configuration, draft: Draft, lease: Lease) -> Configuration | None:
        """Set a configuration if what it was made of is in force still; else return what is, with nothing changed."""
        content = draft.content()
        await self._tested(content)
        if (now := await self._asked()).content != before.content:
            return now
        await self._fenced(lease)
        await self._in_force(before.content, content)
        try:
            there = draft.is_in((await self._current.now()).configuration)
        except MusterError as e:
            raise Unavailable(f"Kea has taken a configuration, and whether it keeps it is unknown: {e}") from e
        if not there:
            raise Unavailable(
                "Kea has taken a configuration and shows another one; whether it changes again is unknown"
            )
        return None

    async def _asked(self) -> Configuration:
        try:
            return (await self._current.now()).configuration
        except Unavailable as e:
            raise Unreached(f"{e}; nothing was changed") from e

    async def _tested(self, content: Content) -> None:
        try:
            await self._kea.ask("config-test", {"Dhcp4": content})
        except Unavailable as e:
            raise Unreached(f"{e}; nothing was changed") from e

    async def _fenced(self, lease: Lease) -> None:
        """Return when the lease is ours for :data:`TTL_S` from now.

        Raises:
            Unreached: it is not, or the store does not answer.
        """
        try:
            await self._leases.renew(lease, TTL_S)
        except (Conflict, Unavailable) as e:
            raise Unreached(f"{e}; nothing was changed") from e

    async def _in_force(self, before: Content, content: Content) -> None:
        await self._kea.ask("config-set", {"Dhcp4": content})
        try:
            with already_changed():
                await self._kea.ask("config-write")
        except Rejected as e:
            # Else it would be gone when Kea starts again, and nobody would know.
            await self._undone(before)
            raise unwritable(e) from e

    async def _undone(self, before: Content) -> None:
        try:
            await self._kea.ask("config-set", {"Dhcp4": before})
        except MusterError as e:
            raise Unavailable(
                f"Kea cannot write its configuration, nor go back; the change counts until it ends: {e}"
            ) from e

    async def _acquired(self) -> Lease:
        clock = asyncio.get_running_loop().time
        end = clock() + _WAITED_S
        while True:
            try:
                lease = await self._leases.acquire(self._role, self._holder, TTL_S)
            except Unavailable as e:
                raise Unreached(f"{e}; nothing was changed") from e
            if lease is not None:
                return lease
            if clock() > end:
                raise Unreached("Another member changes Kea's configuration, or has died of it; nothing was changed")
            await asyncio.sleep(_BETWEEN_S)

    async def _released(self, lease: Lease) -> None:
        try:
            await self._leases.release(lease)
        except MusterError as e:
            _log.warning(f"The role {self._role} was not given back, others wait for {TTL_S:g} s: {e}")


def _edited(draft: Draft, one: _Waiting) -> bool:
    edit, done = one
    try:
        edit(draft)
    except MusterError as e:
        done.set_exception(e)
        return False
    return True


def _all_succeed(turn: Sequence[_Waiting]) -> None:
    for _, done in turn:
        if not done.done():
            done.set_result(None)


def _all_fail(turn: Sequence[_Waiting], error: Exception) -> None:
    for _, done in turn:
        if not done.done():
            done.set_exception(error)


@asynccontextmanager
async def opened(
    kea: Kea, current: Current, leases: Leases, unwritten: Unwritten, holder: str, name: str = ""
) -> AsyncIterator[Writer]:
    """Yield a writer, whose turns end with the block; ``name`` tells one Kea of a group from another."""
    writer = Writer(kea, current, leases, unwritten, f"{ROLE}-{name}" if name else ROLE, holder)
    task = asyncio.create_task(writer.run(), name="dhcp-kea-writer")
    try:
        yield writer
    finally:
        await ended([task])
