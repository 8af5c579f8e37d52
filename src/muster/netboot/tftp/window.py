"""Which blocks are under way and what an ACK makes of them: pure, for one transfer, blocks counted from 1 without end.

Invariants:
    1. An ACK that brings nothing new never makes two packets of one (the Sorcerer's Apprentice of RFC 1123 §4.2.3.1). With a
       window of one block it makes none. With a larger one, and where it comes from within the window, it means a gap
       (RFC 7440 §4), but clients say the same of a block that came twice. So it counts only where it cannot be a late
       answer (sooner than the client's quickest answer after the window was sent, or as often as a window was sent twice),
       and where nothing more is acknowledged for a moment.
    2. What is remembered never exceeds the window.
    3. Time alone sends anything a second time otherwise, each time later than before, and never more often than
       ``attempts`` without an ACK that brings something new.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal

_LEAST_WAIT_S: Final = 0.25
_FIRST_WAIT_S: Final = 1.0
# A wait that the client asked for may exceed it, and doubles no further then.
_MOST_WAIT_S: Final = 8.0
_ATTEMPTS_UNHEARD: Final = 4
_LEAST_PATIENCE_S: Final = 0.002
_MOST_PATIENCE_S: Final = 0.1
_PERIOD = {0: 65536, 1: 65535}


class Heard(Enum):
    """What an ACK means: nothing; more may be sent; so it may, and a block is perhaps missing; all has arrived."""

    NOTHING = "nothing"
    MORE = "more"
    GAP = "gap"
    ALL = "all"


@dataclass(slots=True)
class Window:
    """Blocks of one transfer.

    Attributes:
        size: of the window, in blocks.
        opens_with_oack: block 0 stands for the OACK, which is to be acknowledged before any block is sent.
        acknowledged: the last block of which the client has all before; -1: not even the OACK.
        sent: the last block that was sent.
        last: the file's last block, when it is known.
        resent: packets that were sent again.
    """

    size: int
    rollover: Literal[0, 1] = 0
    timeout_s: float | None = None
    attempts: int = 6
    opens_with_oack: bool = False
    acknowledged: int = field(default=0, init=False)
    sent: int = field(default=0, init=False)
    last: int | None = field(default=None, init=False)
    resent: int = field(default=0, init=False)
    is_heard: bool = field(default=False, init=False)
    _begun_at: float = field(default=0.0, init=False)
    _sent_at: float = field(default=0.0, init=False)
    _copies: int = field(default=1, init=False)
    _late_answers: int = field(default=0, init=False)
    _quickest_s: float | None = field(default=None, init=False)
    _smooth_s: float | None = field(default=None, init=False)
    _varies_s: float = field(default=0.0, init=False)
    _tries: int = field(default=1, init=False)
    _told: tuple[int, int] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.opens_with_oack:
            self.acknowledged = -1

    @property
    def room(self) -> int:
        """How many blocks more may be sent now."""
        if self.acknowledged < 0:
            return 0
        most = self.acknowledged + self.size
        return (most if self.last is None else min(most, self.last)) - self.sent

    def number(self, block: int) -> int:
        """Return what a block is called on the wire."""
        if block <= 0:
            return 0
        return block % 65536 if self.rollover == 0 else (block - 1) % 65535 + 1

    def went(self, blocks: int, now: float) -> None:
        """Count blocks, or with 0 the OACK, as sent for the first time."""
        if self.sent == max(self.acknowledged, 0):
            self._begun_at = now
        self._sent_at = now
        self.sent += blocks

    @property
    def is_waiting(self) -> bool:
        """Whether something is under way that the client has not acknowledged."""
        return self.sent > self.acknowledged

    @property
    def due_at(self) -> float:
        """When what is under way is to be sent again, unless an ACK comes before."""
        wait = self.timeout_s
        if wait is None:
            wait = _FIRST_WAIT_S
            if self._smooth_s is not None:
                wait = min(max(self._smooth_s + 4 * self._varies_s, _LEAST_WAIT_S), _FIRST_WAIT_S)
        doubled: float = wait * 2 ** (self._tries - 1)
        return self._sent_at + max(wait, min(doubled, _MOST_WAIT_S))

    def overdue(self, now: float) -> bool:
        """Count one more attempt; false: there were as many as may be."""
        # Somebody may have asked in another's name: whoever has not answered yet gets little.
        if self._tries >= (self.attempts if self.is_heard else min(self.attempts, _ATTEMPTS_UNHEARD)):
            return False
        self._tries += 1
        self._again(now)
        return True

    def heard(self, number: int, now: float) -> Heard:
        """Take an ACK by the number it has on the wire."""
        block = self._block(number)
        if block is None:
            return Heard.NOTHING
        if block == self.acknowledged:
            return self._repeated(now)
        self.is_heard = True
        is_whole = block == self.sent
        if self._copies == 1 and is_whole:
            self._measured(now - self._sent_at)
        # A window that was sent twice is answered twice when both arrived.
        self._late_answers = self._copies - 1 if is_whole else 0
        self._copies = 1
        self._tries = 1
        self.acknowledged = block
        if self.last is not None and block >= self.last:
            return Heard.ALL
        return Heard.MORE if is_whole else self._gap()

    @property
    def patience_s(self) -> float:
        """For how long a gap is not believed.

        A client that was only told something twice counts a whole window from there on, and its answer takes the way there
        and back once more.
        """
        return min(max(1.5 * (self._smooth_s or 0.0), _LEAST_PATIENCE_S), _MOST_PATIENCE_S)

    @property
    def state(self) -> tuple[int, int]:
        """What a gap is told of: the last acknowledged block, and how often what is behind it was sent."""
        return self.acknowledged, self._copies

    def is_missing(self, state: tuple[int, int], now: float) -> bool:
        """``patience_s`` after a gap: whether all is as it was then, so that what is under way is to be sent again."""
        if self.state != state or not self.is_waiting:
            return False
        self._again(now)
        return True

    def _block(self, number: int) -> int | None:
        """Return which block an ACK means, from the last acknowledged one on; None: none that is under way."""
        ahead = (number - self.number(self.acknowledged)) % _PERIOD[self.rollover]
        block = self.acknowledged + ahead
        if self.acknowledged < 0:
            block = 0
        return block if block <= self.sent and self.number(block) == number else None

    def _repeated(self, now: float) -> Heard:
        if self.size == 1 or self.sent == self.acknowledged:
            return Heard.NOTHING
        if self._quickest_s is None or now - self._begun_at < self._quickest_s:
            return Heard.NOTHING
        if self._late_answers:
            self._late_answers -= 1
            return Heard.NOTHING
        return self._gap() if self._told != self.state else Heard.NOTHING

    def _gap(self) -> Heard:
        self._told = self.state
        return Heard.GAP

    def _again(self, now: float) -> None:
        self._copies += 1
        self.resent += max(1, self.sent - max(self.acknowledged, 0))
        self._begun_at = self._sent_at = now

    def _measured(self, took_s: float) -> None:
        self._quickest_s = took_s if self._quickest_s is None else min(self._quickest_s, took_s)
        if self._smooth_s is None:
            self._smooth_s, self._varies_s = took_s, took_s / 2
            return
        # RFC 6298 §2.
        self._varies_s += (abs(self._smooth_s - took_s) - self._varies_s) / 4
        self._smooth_s += (took_s - self._smooth_s) / 8
