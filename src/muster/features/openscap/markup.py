"""XML as SCAP has it, read with expat as it comes: names without their prefixes, no entities, bounds for all that is kept.

Prefixes are dropped, as in the Ruby plugin: contents of several generations have the same names in other namespaces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from xml.parsers import expat

from muster.content.metadata.malformed import Malformed

_FED_BYTES = 64 << 10
# Groups lie in groups, and text is marked up; four times what large contents have.
_DEPTH = 128
# One tag with its attributes, or one comment. Until a token is whole expat keeps it.
_TOKEN_BYTES = 1 << 20
# What all of them together may be: expat and Python keep every name they met, and each element costs time.
_NAMES = 10_000
_ELEMENTS = 6_000_000
_NOT_UTF_8 = frozenset({0x00, 0xFE, 0xFF})

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


class Reader(ABC):
    """Reads one document. Subclasses say what they do with its elements.

    Attributes:
        depth: of the element that began or ends; the root's is 1.

    Args:
        of: how messages name the document.
    """

    def __init__(self, of: str) -> None:
        self._of = of
        self.depth = 0
        self._fed = 0
        self._kept = 0
        self._values = 0
        self._elements = 0
        self._captures: list[Capture] = []
        self._parser = expat.ParserCreate("UTF-8")
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._declared
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._begins
        self._parser.EndElementHandler = self._ends

    def read(self, pieces: Iterable[bytes]) -> None:
        """Read a document to its end.

        Raises:
            Malformed: it is no well-formed XML in UTF-8, has a document type, nests too deep, has too many elements or names
                of them, or has more text than is kept.
        """
        for piece in pieces:
            for at in range(0, len(piece), _FED_BYTES):
                self._feed(piece[at : at + _FED_BYTES])
        self._feed(b"", is_last=True)

    @abstractmethod
    def began(self, name: str, attributes: Mapping[str, str]) -> None:
        """Hear of an element, by its name without prefix."""

    def ended(self, name: str) -> None:  # noqa: B027 - most look at captures alone
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
        self._parser.CharacterDataHandler = self._text
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

    def wrong(self, why: str) -> Malformed:
        return Malformed.reading(self._of, f"{why}, at line {self._parser.CurrentLineNumber}")

    def _feed(self, data: bytes, *, is_last: bool = False) -> None:
        # expat reads UTF-16 whatever it is told; these bytes are in no UTF-8.
        if self._fed < 4 and not _NOT_UTF_8.isdisjoint(data[:4]):
            raise self.wrong("its encoding is not UTF-8")
        try:
            self._parser.Parse(data, is_last)
        except expat.ExpatError as e:
            raise Malformed.reading(self._of, f"it is no well-formed XML: {e}") from e
        self._fed += len(data)
        if len(self._parser.intern) > _NAMES:
            raise self.wrong(f"its elements and attributes have more than {_NAMES} names")
        if not is_last and self._fed - max(self._parser.CurrentByteIndex, 0) > _TOKEN_BYTES:
            raise self.wrong(f"a token is longer than {_TOKEN_BYTES} bytes")

    def _declared(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.upper() not in ("UTF-8", "US-ASCII"):
            raise self.wrong("its encoding is not UTF-8")

    def _doctype(self, *_said: object) -> None:
        raise self.wrong("it has a document type, and entities are not read here")

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
            self._parser.CharacterDataHandler = None
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
