"""What the doctor asks about mirrored repositories: whether what members last fetched is what origins have."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING

from muster.cluster.file import ClusterFile
from muster.kernel.errors import MusterError
from muster.kernel.findings import Check, Finding

if TYPE_CHECKING:
    from muster.store.reading import Readable

_NAMED = 20


def checks(cluster: ClusterFile, store: Callable[[], AbstractAsyncContextManager[Readable]]) -> list[Check]:
    """Return the check of the last synchronisations; none where nothing is mirrored."""
    content = cluster.content
    mirrored = content.mirror.repositories if content is not None and content.mirror is not None else {}
    if not mirrored:
        return []

    async def looked() -> Sequence[Finding]:
        from muster.content.mirror.recorded import Recorded

        # Of a store that is away another check speaks.
        with suppress(MusterError):
            async with store() as opened:
                failed = [
                    (j.repository, j.sentence) for j in await Recorded(opened).failed() if j.repository in mirrored
                ]
                return _found(failed)
        return []

    return [Check("mirror", looked)]


def _found(failed: Sequence[tuple[str, str]]) -> list[Finding]:
    found = [_failed(name, f"The last sync of {name} failed: {why}") for name, why in failed[:_NAMED]]
    if more := failed[_NAMED:]:
        name = more[0][0]
        found.append(_failed(name, f"The last syncs of {len(more)} more repositories failed, of {name} among them"))
    return found


def _failed(name: str, sentence: str) -> Finding:
    return Finding(
        "CONTENT-MIRROR",
        name,
        sentence,
        "Clients go on getting what they got; what the origin has had since does not come.",
        "The sentence says what the origin answered, or why it was not believed; muster content sync NAME tries again, and "
        "muster content jobs tells of every attempt.",
        "warning",
    )
