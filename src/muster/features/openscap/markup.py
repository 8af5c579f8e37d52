"""XML as SCAP has it, read with expat as it comes: names without their prefixes, no entities, bounds for all that is kept.

Prefixes are dropped, as in the Ruby plugin: contents of several generations have the same names in other namespaces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping

from muster.content.metadata.guarded import Guarded

# Groups lie in groups, and text is marked up; four times what large contents have.
_DEPTH = 128
_TOKEN_BYTES = 1 << 20
# Each costs time.
_ELEMENTS = 6_000_000
_ENCODINGS = frozenset({"UTF-8", "US-ASCII"})

KEPT_CHARACTERS = 32 << 20
"""How long all texts together may be that are kept of one document; those of whole distributions have a third of it."""
KEPT_VALUES = 500_000
"""How many they may be: the shortest takes its place in memory, too. Those of whole distributions have a fifth of it."""


class Capture:
    """The text of an element that is open, with that of all elements in it."""

    __slots__ = ("depth", "name", "parts")

    def __init__(self, name: str, depth: int) -> None:
        self.name = name
        self.depth = depth
        self.parts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self.parts)


class Reader(Guarded, ABC):
    """Reads one document. Subclasses say what they do with its elements.

    Attributes:
        depth: of the element that began or ends; the root's is 1.

    Args:
        of: how messages name the document.
    """

    def __init__(self, of: str) -> None:
        super().__init__(of, token_bytes=_TOKEN_BYTES, encodings=_ENCODINGS)
        self.depth = 0
        self._kept = 0
        self._values = 0
        self._elements = 0
        self._captures: list[Capture] = []
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._begins
        self.parser.EndElementHandler = self._ends

    def read(self, pieces: Iterable[bytes]) -> None:
        """Read a document to its end.

        Raises:
            Malformed: it is no well-formed XML in UTF-8, has a document type, nests too deep, has too many elements or names
                of them, or has more text than is kept.
        """
        for _ in self.fed(pieces):
            pass

    @abstractmethod
    def began(self, name: str, attributes: Mapping[str, str]) -> None:
        """Hear of an element, by its name without prefix."""

    def ended(self, name: str) -> None:
        """Hear that an element ends."""

    def captured(self, capture: Capture) -> None:
        """Hear of the text that was asked for with :meth:`capture`, when its element ends."""
        raise NotImplementedError

    def told(self, text: str) -> None:
        """Hear a text, while something is captured."""
        for one in self._captures:
            one.parts.append(text)

    def capture(self, name: str) -> Capture:
        """Have the text of the element that just began captured, and return it: when it ends it is whole."""
        found = Capture(name, self.depth)
        self._captures.append(found)
        self.parser.CharacterDataHandler = self._text
        return found

    def keep(self, *values: str | None) -> None:
        """Count texts that are kept, and what they are kept in, also where all are empty.

        Raises:
            Malformed: they are too many.
        """
        self._kept += sum(len(v) for v in values if v is not None)
        if self._kept > KEPT_CHARACTERS:
            raise self.wrong(f"it has more than {KEPT_CHARACTERS >> 20} Mi characters of text")
        self._values += 1
        if self._values > KEPT_VALUES:
            raise self.wrong(f"it has more than {KEPT_VALUES} texts")

    def _begins(self, name: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        if self.depth > _DEPTH:
            raise self.wrong(f"elements nest deeper than {_DEPTH}")
        self._elements += 1
        if self._elements > _ELEMENTS:
            raise self.wrong(f"it has more than {_ELEMENTS} elements")
        self.began(name.rpartition(":")[2], attributes)

    def _ends(self, name: str) -> None:
        while self._captures and self._captures[-1].depth == self.depth:
            self.captured(self._captures.pop())
        if not self._captures:
            self.parser.CharacterDataHandler = None
        self.ended(name.rpartition(":")[2])
        self.depth -= 1

    def _text(self, text: str) -> None:
        self.keep(text)
        self.told(text)


def attribute(attributes: Mapping[str, str], name: str) -> str | None:
    """Return an attribute without regard to its prefix; None: it is not there."""
    if (found := attributes.get(name)) is not None:
        return found
    return next((v for k, v in attributes.items() if k.rpartition(":")[2] == name), None)
