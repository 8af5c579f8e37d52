"""A change of boot files is acknowledged when every member that takes clients has it; who has not is taken out first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from muster.cluster.roster import SILENT_AFTER_S
from muster.kernel import log
from muster.kernel.errors import Unavailable
from muster.netboot.ledger import Ledger, Standing

_log = log.logger("netboot")

CONFIRM_S = 5.0
"""So long a change waits for members that do not confirm it."""
# So long for them to hear that they are fenced, and to say so, or to be silent: nobody says more than once a second.
_FENCED_S = SILENT_AFTER_S + 2.0
_AGAIN_S = 0.05


async def confirmed(
    ledger: Ledger, version: int, *, within_s: float = CONFIRM_S, why: Callable[[], str] = lambda: ""
) -> Sequence[str]:
    """Return when every member that takes clients has a version of the tree on its disk; which were taken out for that.

    Args:
        ledger: of the tree.
        version: that has the change.
        within_s: how long they are waited for.
        why: says what is known of why this one has it not.

    Raises:
        Unavailable: the store did not answer; no member has it, in which case nobody is taken out; or one that has it not
            goes on taking clients.
    """
    limit = time.monotonic() + within_s
    while late := _late(standings := await ledger.standings(), version):
        if time.monotonic() >= limit:
            break
        await asyncio.sleep(_AGAIN_S)
    if not any(s.version >= version for s in standings):
        reason = why() or next((s.trouble for s in standings if s.trouble), "") or "none confirmed it"
        raise Unavailable(f"No member has the changed boot files on its disk: {reason}")
    if not late:
        return ()
    behind = [s.member for s in standings if s.version < version]
    await ledger.fence(behind, version)
    _log.warning("Members that do not confirm boot files are taken out", members=", ".join(behind), tree=version)
    limit = time.monotonic() + _FENCED_S
    while late := _late(await ledger.standings(), version):
        if time.monotonic() >= limit:
            names = ", ".join(s.member for s in late)
            raise Unavailable(f"{names} has not the changed boot files, and does not say that it takes no clients")
        await asyncio.sleep(_AGAIN_S * 2)
    return behind


def _late(standings: Sequence[Standing], version: int) -> list[Standing]:
    return [s for s in standings if s.counts and s.version < version]
