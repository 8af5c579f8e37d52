"""What a client and this server agree on before the first block: a pure function from options to terms.

Source: RFC 2347 (options), 2348 (blksize), 2349 (timeout, tsize), 7440 (windowsize). ``blksize2``, ``utimeout`` and
``rollover`` are no RFC's; what they mean is told in docs/facts/tftp.md §2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from muster.netboot.tftp.packets import Request

DEFAULT_BLKSIZE: Final = 512
LEAST_BLKSIZE: Final = 8
LARGEST_BLKSIZE: Final = 65464
_NUMBER = re.compile(rb"[0-9]{1,20}\Z")
_LEAST_UTIMEOUT = 10_000
_MOST_UTIMEOUT = 255_000_000


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the server agrees to at most.

    Attributes:
        blksize: in bytes, as large as goes through the network in one piece, or as an administrator wants it.
        windowsize: in blocks.
        window_bytes: windowsize times blksize; one block may always be sent.
    """

    blksize: int = LARGEST_BLKSIZE
    windowsize: int = 64
    window_bytes: int = 256 << 10


@dataclass(frozen=True, slots=True)
class Terms:
    """How one file is sent.

    Attributes:
        timeout_s: what the client wants between retransmissions; None: it did not say.
        rollover: the number that follows block 65535.
        answered: what the OACK says, in the order it was asked, names as they were sent; empty: no OACK is sent.
    """

    blksize: int = DEFAULT_BLKSIZE
    windowsize: int = 1
    timeout_s: float | None = None
    rollover: Literal[0, 1] = 0
    answered: tuple[tuple[bytes, bytes], ...] = ()


def agreed(request: Request, size_bytes: int, bounds: Bounds) -> Terms:
    """Return the terms for a file of that size.

    An option that is unknown, comes a second time, or has a value outside of what its RFC allows is left out of the answer,
    as RFC 2347 wants it, and the transfer goes on without it.
    """
    asked: dict[bytes, tuple[bytes, int]] = {}
    for name, value in request.options:
        if _NUMBER.match(value):
            asked.setdefault(name.lower(), (name, int(value)))
    numbers = {name: number for name, (_, number) in asked.items()}
    answers: dict[bytes, int] = {}
    blksize = _blksize(numbers, bounds, answers)
    windowsize = 1
    if 1 <= (wanted := numbers.get(b"windowsize", 0)) <= 65535:
        fitting = max(1, bounds.window_bytes // blksize)
        windowsize = answers[b"windowsize"] = min(wanted, bounds.windowsize, fitting)
    # Of a text that is converted nobody knows the size before it is.
    if b"tsize" in numbers and request.mode == "octet":
        answers[b"tsize"] = size_bytes
    timeout_s = _timeout(numbers, answers)
    rollover: Literal[0, 1] = 0
    if numbers.get(b"rollover") in (0, 1):
        rollover = 1 if numbers[b"rollover"] else 0
        answers[b"rollover"] = rollover
    # In the order they were asked, which setdefault has kept.
    answered = tuple((sent, str(answers[name]).encode()) for name, (sent, _) in asked.items() if name in answers)
    return Terms(blksize, windowsize, timeout_s, rollover, answered)


def _blksize(numbers: Mapping[bytes, int], bounds: Bounds, answers: dict[bytes, int]) -> int:
    most = max(LEAST_BLKSIZE, min(bounds.blksize, LARGEST_BLKSIZE))
    blksize = DEFAULT_BLKSIZE
    if (wanted := numbers.get(b"blksize", 0)) >= LEAST_BLKSIZE:
        blksize = answers[b"blksize"] = min(wanted, most)
    elif (wanted := numbers.get(b"blksize2", 0)) >= LEAST_BLKSIZE:
        # The largest power of two that is neither more than what is asked nor more than what goes.
        blksize = answers[b"blksize2"] = 1 << (min(wanted, most).bit_length() - 1)
    return blksize


def _timeout(numbers: Mapping[bytes, int], answers: dict[bytes, int]) -> float | None:
    if 1 <= (seconds := numbers.get(b"timeout", 0)) <= 255:
        answers[b"timeout"] = seconds
        return float(seconds)
    if _LEAST_UTIMEOUT <= (micro := numbers.get(b"utimeout", 0)) <= _MOST_UTIMEOUT:
        answers[b"utimeout"] = micro
        return micro / 1e6
    return None
