"""What Kea was told and has perhaps not written: a mark in the store for each change, until Kea's file has it.

A reservation that is in force and in no file is gone when Kea starts again, and one that was removed is there again. Kea has
no command that tells whether its file is what is in force, and whoever was to have it written may have died. So nobody takes
what is in force for kept, nor what is not there for removed, while there is a mark, without having Kea write first.

Marks are rows of ``dhcp_changes``, for a day: a Kea that was started since has nothing that its file has not.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from muster.features.dhcp.contract import Unreached
from muster.features.dhcp.kea.commands import Kea
from muster.kernel.errors import Conflict, Misconfigured, MusterError, NotFound, Rejected, Unavailable
from muster.kernel.log import logger
from muster.store.engine import Store
from muster.store.reading import Query
from muster.store.writing import Change, Writing

_log = logger("features")

_KEY = "kea unwritten "
_KEY_OF = "kea {0} unwritten "
_KEPT_S = 86400.0
# Longer than any change takes: whoever made it has ended, so nothing of it comes behind what is written now.
_OVER_S = 60.0
_MARK = Change("INSERT INTO dhcp_changes (key, holder, until) VALUES (:key, :holder, {now} + :for_s)")
_CLEAR = Change("DELETE FROM dhcp_changes WHERE key = :key")
_CLEAR_OLD = Change("DELETE FROM dhcp_changes WHERE key = :key AND until < {now} + :younger_s")
_MARKS = Query("SELECT key FROM dhcp_changes WHERE substr(key, 1, :length) = :beginning")
NOTHING_CHANGED = (Conflict, Rejected, Misconfigured, NotFound, Unreached)
"""Errors of a change that leave nothing changed."""


class Unwritten:
    """The marks of all members that change one Kea."""

    def __init__(self, kea: Kea, store: Store, name: str = "") -> None:
        """``name`` tells one Kea of a group from another."""
        self._kea = kea
        self._key = _KEY_OF.format(name) if name else _KEY
        self._store = store
        self._live: set[str] = set()
        self._lock = asyncio.Lock()
        self._begun = self._written = 0

    @asynccontextmanager
    async def marked(self) -> AsyncIterator[None]:
        """Mark a change while the block makes it and has it written; the mark stays when nobody knows what came of it.

        Raises:
            Unreached: the store does not answer; nothing was changed.
        """
        key = f"{self._key}{secrets.token_hex(8)}"

        async def mark(uow: Writing) -> None:
            await uow.change(_MARK, [{"key": key, "holder": "", "for_s": _KEPT_S}])

        async def clear(uow: Writing) -> None:
            await uow.change(_CLEAR, [{"key": key}])

        try:
            await self._store.carry_out("dhcp-kea-marked", mark)
        except Unavailable as e:
            raise Unreached(f"{e}; nothing was changed") from e
        self._live.add(key)
        try:
            yield
        except NOTHING_CHANGED:
            await self._tried(clear)
            raise
        else:
            await self._tried(clear)
        finally:
            self._live.discard(key)

    async def _tried(self, work: Callable[[Writing], Coroutine[Any, Any, None]]) -> None:
        try:
            await self._store.carry_out("dhcp-kea-written", work)
        except MusterError as e:
            # Kea writes once too often, that is all.
            _log.info(f"That Kea has written its configuration was not noted: {e}")

    async def settled(self, *, own: bool) -> None:
        """Return when Kea has written whatever was in force at the call, unless there is nothing that it may not have.

        Args:
            own: whether changes count that this member makes at this moment, and has acknowledged to nobody.

        Raises:
            Misconfigured: Kea cannot write its file.
            Unavailable: it did not answer, or the store did not.
        """
        if keys := await self.marks(own=own):
            await self.written(keys)

    async def marks(self, *, own: bool) -> Sequence[str]:
        """Return the marks there are, ``own`` as for :meth:`settled`; raises Unavailable for the store alone."""
        async with self._store.read() as uow:
            found = await uow.rows(_MARKS, beginning=self._key, length=len(self._key))
        return [str(one["key"]) for one in found if own or one["key"] not in self._live]

    async def written(self, keys: Sequence[str]) -> None:
        """Have Kea write what was in force at the call, and clear those of the marks whose changes are over."""
        try:
            await self.write()
        except Rejected as e:
            raise unwritable(e) from e

        async def work(uow: Writing) -> None:
            await uow.change(_CLEAR_OLD, [{"key": key, "younger_s": _KEPT_S - _OVER_S} for key in sorted(keys)])

        await self._tried(work)

    async def write(self) -> None:
        """Have Kea write its configuration; those that come meanwhile share the next time, which has all of theirs."""
        arrived = self._begun
        async with self._lock:
            if self._written > arrived:
                return
            self._begun += 1
            number = self._begun
            await self._kea.ask("config-write")
            self._written = number


@contextmanager
def already_changed() -> Iterator[None]:
    """Let nobody take for undone what was changed before the block, when Kea is not reached, or does not take us, within it.

    Kea's refusals are its caller's to answer.

    Raises:
        Unavailable: in place of those errors.
    """
    try:
        yield
    except (Unreached, Misconfigured) as e:
        raise Unavailable(f"Kea has taken a change, and whether it keeps it is unknown: {e}") from e


def unwritable(error: Rejected) -> Misconfigured:
    """Return what Kea's refusal to write its file means."""
    return Misconfigured(
        f"Kea cannot write its configuration, so the reservation would be gone when it starts again; nothing was changed. "
        f"Let Kea's own account write the file and, where AppArmor confines it, let its profile: {error}"
    )
