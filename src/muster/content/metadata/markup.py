"""XML of few levels, as repositories write it, read with expat in bounded memory.

A document type, and so every entity that a document makes itself, is refused; so is any encoding but UTF-8. Names are
compared as they are written, with their prefix: so dnf does it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from muster.content.metadata.guarded import Guarded

T = TypeVar("T")

_DEPTH = 16
_TOKEN_BYTES = 256 << 10
_TEXT_CHARACTERS = 4096


class Field(NamedTuple):
    """An element that is looked for in a record.

    Attributes:
        text: without white space around it.
    """

    attributes: Mapping[str, str]
    text: str


class Element(NamedTuple):
    """An element that is looked for wherever it is.

    Attributes:
        within: the name of what it is in.
        text: without white space around it.
    """

    name: str
    within: str
    attributes: Mapping[str, str]
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """A child of the root.

    Attributes:
        text: its own, without white space around it; empty for one in which fields are looked for.
        fields: by name; each is there once at most.
    """

    name: str
    attributes: Mapping[str, str]
    text: str = ""
    fields: dict[str, Field] = field(default_factory=dict)


def records(
    pieces: Iterable[bytes], root: str, wanted: Mapping[str, Set[str]], *, of: str, limit_records: int
) -> Iterator[Record]:
    """Yield the children of the root whose names are wanted, with those of their children that are wanted, in order.

    ``wanted`` says for the name of a record which fields are looked for in it; of a record without any the text is read.

    Raises:
        Malformed: it is no well-formed XML with that root, has a document type, is not UTF-8, nests deeper than 16, has more
            than ``limit_records`` records or 10,000 names, a token longer than 256 KiB, a text that is looked for and is
            longer than 4096 characters or has an element in it, or a field twice. What was yielded until then came before
            the fault.
    """
    yield from _Records(root, wanted, of, limit_records).read(pieces)


def elements(
    pieces: Iterable[bytes], root: str, wanted: Set[str], *, of: str, limit_elements: int
) -> Iterator[Element]:
    """Yield the elements below the root whose names are wanted, at any depth, in order.

    Raises:
        Malformed: as :func:`records`.
    """
    yield from _Elements(root, wanted, of, limit_elements).read(pieces)


class _Reading(Guarded, Generic[T]):
    """What expat has told so far, within limits that hold for whatever is looked for."""

    def __init__(self, root: str, of: str) -> None:
        super().__init__(of, token_bytes=_TOKEN_BYTES)
        self._root = root
        self._depth = 0
        self._whole: list[T] = []
        # Name and attributes of the element whose text is read.
        self._open: tuple[str, Mapping[str, str]] | None = None
        self._text: list[str] = []
        self._length = 0
        self.parser.StartElementHandler = self._began
        self.parser.EndElementHandler = self._ended

    def read(self, pieces: Iterable[bytes]) -> Iterator[T]:
        """Yield what is whole, as it comes."""
        for _ in self.fed(pieces):
            whole, self._whole = self._whole, []
            yield from whole

    def _began(self, name: str, attributes: Mapping[str, str]) -> None:
        raise NotImplementedError

    def _ended(self, name: str) -> None:
        raise NotImplementedError

    def _enter(self, name: str) -> int:
        """Count an element that begins, and return how deep it is."""
        self._depth = depth = self._depth + 1
        if depth > _DEPTH:
            raise self.wrong(f"elements nest deeper than {_DEPTH}")
        if self._open is not None:
            raise self.wrong(f"an element is in the text of {self._open[0]}")
        if depth == 1 and name != self._root:
            raise self.wrong(f"its root is not {self._root}")
        return depth

    def _read_text(self, name: str, attributes: Mapping[str, str]) -> None:
        self._open = (name, attributes)
        self._text, self._length = [], 0
        self.parser.CharacterDataHandler = self._told

    def _close_text(self) -> str:
        self._open = None
        self.parser.CharacterDataHandler = None
        return "".join(self._text).strip()

    def _told(self, text: str) -> None:
        self._length += len(text)
        if self._length > _TEXT_CHARACTERS:
            raise self.wrong(f"a text is longer than {_TEXT_CHARACTERS} characters")
        self._text.append(text)


class _Records(_Reading[Record]):
    """Children of the root, and theirs."""

    def __init__(self, root: str, wanted: Mapping[str, Set[str]], of: str, limit_records: int) -> None:
        super().__init__(root, of)
        self._wanted = wanted
        self._limit_records = limit_records
        self._count = 0
        self._record: tuple[str, Mapping[str, str]] | None = None
        self._fields: dict[str, Field] = {}

    def _began(self, name: str, attributes: Mapping[str, str]) -> None:
        if 3 <= self._depth < _DEPTH and self._open is None:
            # Most are as deep as that, and a call more for each is felt.
            self._depth += 1
            return
        depth = self._enter(name)
        if depth == 3:
            if self._record is not None and name in self._wanted[self._record[0]]:
                if name in self._fields:
                    raise self.wrong(f"{name} is there twice")
                self._read_text(name, attributes)
        elif depth == 2:
            fields = self._wanted.get(name)
            if fields is None:
                return
            self._count += 1
            if self._count > self._limit_records:
                raise self.wrong(f"it has more than {self._limit_records} entries")
            self._record, self._fields = (name, attributes), {}
            if not fields:
                self._read_text(name, attributes)

    def _ended(self, name: str) -> None:
        depth = self._depth
        self._depth = depth - 1
        if depth > 3 or self._record is None:
            return
        text = ""
        if self._open is not None:
            attributes = self._open[1]
            text = self._close_text()
            if depth == 3:
                self._fields[name] = Field(attributes, text)
        if depth == 2:
            self._whole.append(Record(*self._record, text, self._fields))
            self._record = None


class _Elements(_Reading[Element]):
    """Elements of some names, wherever they are."""

    def __init__(self, root: str, wanted: Set[str], of: str, limit_elements: int) -> None:
        super().__init__(root, of)
        self._wanted = wanted
        self._limit_elements = limit_elements
        self._count = 0
        self._way: list[str] = []

    def _began(self, name: str, attributes: Mapping[str, str]) -> None:
        if self._enter(name) > 1 and name in self._wanted:
            self._count += 1
            if self._count > self._limit_elements:
                raise self.wrong(f"it has more than {self._limit_elements} entries")
            self._read_text(name, attributes)
        self._way.append(name)

    def _ended(self, name: str) -> None:
        self._depth -= 1
        self._way.pop()
        if self._open is not None:
            attributes = self._open[1]
            self._whole.append(Element(name, self._way[-1], attributes, self._close_text()))
