"""How slow an origin may be."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from muster.content.backend import GatewayTimeout
from muster.kernel.clock import Clock
from muster.kernel.pace import Least


async def no_slower(
    pieces: AsyncGenerator[bytes, None], least_bytes_per_s: float, at: str, *, clock: Clock
) -> AsyncGenerator[bytes, None]:
    """Yield what comes, as long as it comes at a least pace; the time that whoever takes it needs does not count.

    Raises:
        GatewayTimeout: it is slower, ``at`` being who.
    """
    least = Least(least_bytes_per_s)
    async with contextlib.aclosing(pieces) as coming:
        asked = clock.monotonic()
        async for piece in coming:
            if not least.is_kept(len(piece), clock.monotonic() - asked):
                raise GatewayTimeout(
                    f"{at} is too slow: {least.came} bytes came in {least.waited_s:.0f} s, and it has to give "
                    f"{least_bytes_per_s:g} a second, averaged over a minute (content.mirror.least_bytes_per_s)"
                )
            yield piece
            asked = clock.monotonic()
