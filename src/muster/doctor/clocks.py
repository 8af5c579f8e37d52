"""Whose clock is wrong: every member's against this host's, read from the Date header of an answer."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from muster.kernel.clock import Clock
from muster.kernel.findings import Finding

_TOLERANCE_S = 5.0
# From here on, signed DNS updates are refused and fresh certificates are not yet valid.
_FAILS_FROM_S = 300.0
_HEAD_LIMIT_BYTES = 16 << 10
_REMEDY = "Compare timedatectl on both; let chrony or systemd-timesyncd set the clock."
_CAUSE = (
    "No time service runs there, or it cannot reach its servers. Signed DNS updates and new certificates fail from five "
    "minutes on."
)


async def ahead_s(
    host: str, port: int, server_name: str, context: ssl.SSLContext, clock: Clock, *, timeout_s: float = 3.0
) -> float | None:
    """Return by how many seconds the other side's clock is ahead of ours; None when it does not say.

    The header has whole seconds and was written between our question and its answer; within that it is 0.
    """
    before = clock.now().timestamp()
    try:
        async with asyncio.timeout(timeout_s):
            head = await _head(host, port, server_name, context)
        date = next(v for k, _, v in (line.partition(":") for line in head.splitlines()) if k.lower() == "date")
        theirs = parsedate_to_datetime(date.strip()).replace(tzinfo=UTC).timestamp()
    except (OSError, TimeoutError, ValueError, StopIteration, asyncio.LimitOverrunError, EOFError):
        # Silence, refusals and bad certificates are the matrix's business.
        return None
    after = clock.now().timestamp()
    if theirs > after:
        return theirs - after
    return min(0.0, theirs + 1.0 - before)


def compared(ahead: Mapping[str, float]) -> list[Finding]:
    """Return what the members' clocks mean; when all of several are off alike, it is this host's that is wrong."""
    off = {m: s for m, s in ahead.items() if abs(s) > _TOLERANCE_S}
    if len(off) == len(ahead) > 1 and max(off.values()) - min(off.values()) <= _TOLERANCE_S:
        return [_finding("this host", -next(iter(off.values())), f"that of all {len(off)} members")]
    return [_finding(member, s, "this host's") for member, s in off.items()]


def _finding(whose: str, ahead_s: float, than: str) -> Finding:
    return Finding(
        "CLOCK-OFF",
        whose,
        f"The clock of {whose} is {abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {than}",
        _CAUSE,
        _REMEDY,
        "error" if abs(ahead_s) >= _FAILS_FROM_S else "warning",
    )


async def _head(host: str, port: int, server_name: str, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection(
        host, port, ssl=context, server_hostname=server_name, limit=_HEAD_LIMIT_BYTES
    )
    try:
        writer.write(f"GET /version HTTP/1.1\r\nHost: {server_name}\r\nConnection: close\r\n\r\n".encode("ascii"))
        await writer.drain()
        return (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    finally:
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await writer.wait_closed()
