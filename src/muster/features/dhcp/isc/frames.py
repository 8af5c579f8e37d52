"""How members tell each other dhcpd's files: frames, each a line of a word and a number, and behind some so many bytes.

=========  ================================================  ==========================================================
word       number                                            behind it
=========  ================================================  ==========================================================
conf       bytes that follow                                 what members read of dhcpd.conf and what it includes
whole      0                                                 nothing; the leases file is told from its start from now on
more       bytes that follow                                 what comes next in the leases file
all        the mark that had come before it was looked       nothing; all is told that stood in the files then
trouble    bytes that follow                                 a sentence on why the files cannot be told; nothing follows
=========  ================================================  ==========================================================
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

from muster.features.dhcp.isc import grammar
from muster.features.dhcp.isc.appended import WHOLE_BYTES
from muster.kernel.errors import Unavailable
from muster.kernel.names import shown

Word = Literal["conf", "whole", "more", "all", "trouble"]

MAX_CONF_BYTES = grammar.MAX_CHARACTERS
MAX_TROUBLE_BYTES = 4096
MAX_MARK = 10**12

_LIMITS: dict[Word, int] = {
    "conf": MAX_CONF_BYTES,
    "whole": 0,
    "more": WHOLE_BYTES,
    "all": MAX_MARK,
    "trouble": MAX_TROUBLE_BYTES,
}
_WITH_BYTES = frozenset({"conf", "more", "trouble"})
_HEAD = re.compile(rb"(conf|whole|more|all|trouble) (0|[1-9][0-9]{0,12})\Z")
_LONGEST_HEAD = 32


class Frame(NamedTuple):
    """One frame; ``number`` is the mark of ``all``, else how many bytes there are."""

    word: Word
    number: int
    content: bytes = b""


def written(word: Word, content: bytes = b"", *, mark: int = 0) -> bytes:
    """Return a frame as it is sent."""
    number = len(content) if word in _WITH_BYTES else mark
    return b"%s %d\n%s" % (word.encode(), number, content)


class Frames:
    """Reads frames out of pieces that are cut anywhere.

    Args:
        pieces: as they come; bounded in time by whoever brings them.
        whose: who sends them, in words.
    """

    def __init__(self, pieces: AsyncIterator[bytes], whose: str) -> None:
        self._pieces = pieces
        self._whose = whose
        self._rest = bytearray()

    async def next(self) -> Frame | None:
        """Return the next frame; None: they have ended between two.

        Raises:
            Unavailable: they end within one, or this is none; and what the pieces raise.
        """
        while (end := self._rest.find(b"\n", 0, _LONGEST_HEAD)) < 0:
            if len(self._rest) >= _LONGEST_HEAD:
                raise self._no_frame(bytes(self._rest[:_LONGEST_HEAD]))
            if not await self._more():
                if self._rest:
                    raise self._broken_off()
                return None
        head = bytes(self._rest[:end])
        word, number = self._parsed(head)
        del self._rest[: end + 1]
        if word not in _WITH_BYTES:
            return Frame(word, number)
        while len(self._rest) < number:
            if not await self._more():
                raise self._broken_off()
        content = bytes(self._rest[:number])
        del self._rest[:number]
        return Frame(word, number, content)

    def _parsed(self, head: bytes) -> tuple[Word, int]:
        found = _HEAD.match(head)
        if found is None:
            raise self._no_frame(head)
        number = int(found[2])
        for word, limit in _LIMITS.items():
            if word == found[1].decode() and number <= limit:
                return word, number
        raise self._no_frame(head)

    async def _more(self) -> bool:
        piece = await anext(self._pieces, None)
        if piece is None:
            return False
        self._rest += piece
        return True

    def _broken_off(self) -> Unavailable:
        return Unavailable(f"{self._whose} broke off within what it told of dhcpd's files")

    def _no_frame(self, found: bytes) -> Unavailable:
        return Unavailable(f"{self._whose} told what is no part of dhcpd's files: {shown(found)}")
