"""Looks at all that lies on a disk, and has what is damaged brought again."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from muster.content.kept import Kept
from muster.kernel import log
from muster.kernel.errors import MusterError

_log = log.logger("content")
_TELL_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """What was found.

    Attributes:
        looked_at_bytes: how many bytes were read.
        damaged: the SHA-256s of files whose bytes were others; they are removed.
        mended: of these, those that are here again.
        lost: the others.
    """

    looked_at_bytes: int
    damaged: tuple[str, ...]
    mended: tuple[str, ...]
    lost: tuple[str, ...]


async def verified(
    kept: Kept,
    *,
    bytes_per_s: float,
    mend: Callable[[str], Awaitable[bool]],
    progress: Callable[[int, int, str], Awaitable[None]],
) -> Outcome:
    """Read every file at this pace, remove what is damaged, and have ``mend`` bring it again, by its SHA-256.

    ``mend`` returns whether it did; what it raises of a :class:`~muster.kernel.errors.MusterError` is logged, and is a file
    that is lost. ``progress`` hears how many bytes were read, of how many, and what was found.

    Raises:
        Unavailable: the disk refused.
        MusterError: what ``progress`` raised, which ends it.
    """
    done = of = 0
    mended: list[str] = []
    lost: list[str] = []

    def note(read: int, size: int) -> None:
        nonlocal done, of
        done, of = read, size

    async def tell() -> None:
        while True:
            await progress(done, of, _sentence(mended, lost))
            await asyncio.sleep(_TELL_S)

    try:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(tell())
            async with contextlib.aclosing(kept.verify(bytes_per_s=bytes_per_s, progress=note)) as found:
                async for name in found:
                    await kept.drop(name)
                    (mended if await _is_mended(kept, name, mend) else lost).append(name)
            telling.cancel()
    except BaseExceptionGroup as failed:
        # boundary: whoever called knows no groups; the first is what ended it
        raise failed.exceptions[0] from None
    await progress(done, of, _sentence(mended, lost))
    return Outcome(done, tuple(sorted((*mended, *lost))), tuple(mended), tuple(lost))


async def _is_mended(kept: Kept, name: str, mend: Callable[[str], Awaitable[bool]]) -> bool:
    try:
        # Whoever brings it may have brought something else.
        return await mend(name) and await kept.has(name)
    except MusterError as e:
        _log.warning("A damaged file did not come again", file=name, why=str(e))
        return False


def _sentence(mended: list[str], lost: list[str]) -> str:
    count = len(mended) + len(lost)
    if not count:
        return "No file is damaged so far"
    return (
        f"{count} {'file was' if count == 1 else 'files were'} damaged: {len(mended)} came again, {len(lost)} are lost"
    )
