"""expat within bounds, for documents that anybody may have written: UTF-8, no document type, few names, no endless token."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from xml.parsers import expat

from muster.content.metadata.malformed import Malformed

_FED_BYTES = 64 << 10
# expat and Python keep every name of an element or attribute that they met.
_NAMES = 10_000
_NOT_UTF_8 = frozenset({0x00, 0xFE, 0xFF})
_UTF_8 = frozenset({"UTF-8"})


class Guarded:
    """Feeds a parser with one document, in pieces. Subclasses set its handlers, and bound what they keep.

    A document type is refused, and with it every entity that a document makes itself.

    Attributes:
        parser: expat's.

    Args:
        of: how messages name the document.
        token_bytes: how long one tag with its attributes, or one comment, may be. Until a token is whole expat keeps it, and
            older ones read it anew each time.
        encodings: what a declaration may say, in capitals; all are part of UTF-8.
    """

    def __init__(self, of: str, *, token_bytes: int, encodings: Set[str] = _UTF_8) -> None:
        self._of = of
        self._token_bytes = token_bytes
        self._encodings = encodings
        self._fed = 0
        self.parser = expat.ParserCreate("UTF-8")
        self.parser.XmlDeclHandler = self._declared
        self.parser.StartDoctypeDeclHandler = self._doctype

    def fed(self, pieces: Iterable[bytes]) -> Iterator[None]:
        """Feed a document to its end, and yield after each part of it.

        Raises:
            Malformed: it is no well-formed XML in UTF-8, has a document type, more than 10,000 names, or too long a token.
        """
        for piece in pieces:
            for at in range(0, len(piece), _FED_BYTES):
                self._feed(piece[at : at + _FED_BYTES])
                yield
        self._feed(b"", is_last=True)
        yield

    def wrong(self, why: str) -> Malformed:
        """Return the error that says what is wrong where the parser is."""
        return Malformed.reading(self._of, f"{why}, at line {self.parser.CurrentLineNumber}")

    def _feed(self, data: bytes, *, is_last: bool = False) -> None:
        # expat reads UTF-16 whatever it is told; these bytes are in no UTF-8.
        if self._fed < 4 and not _NOT_UTF_8.isdisjoint(data[:4]):
            raise self.wrong("its encoding is not UTF-8")
        try:
            self.parser.Parse(data, is_last)
        except expat.ExpatError as e:
            raise Malformed.reading(self._of, f"it is no well-formed XML: {e}") from e
        self._fed += len(data)
        if len(self.parser.intern) > _NAMES:
            raise self.wrong(f"its elements and attributes have more than {_NAMES} names")
        # Where the last token that was told began.
        if not is_last and self._fed - max(self.parser.CurrentByteIndex, 0) > self._token_bytes:
            raise self.wrong(f"a token is longer than {self._token_bytes} bytes")

    def _declared(self, _version: str, encoding: str | None, _standalone: int) -> None:
        if encoding is not None and encoding.upper() not in self._encodings:
            raise self.wrong("its encoding is not UTF-8")

    def _doctype(self, *_said: object) -> None:
        raise self.wrong("it has a document type, and entities are not read here")
