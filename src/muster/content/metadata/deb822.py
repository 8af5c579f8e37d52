"""Fields of Debian's control files, stanza by stanza, read while they come and in bounded memory.

Names of fields count without regard to case. A line with nothing but white space ends a stanza, as it does for apt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from muster.content.metadata.malformed import Malformed

_FED_BYTES = 64 << 10
# Names of what a package provides make the longest lines there are, some tens of thousands of bytes.
_LINE_BYTES = 256 << 10

Stanza = dict[str, list[str]]
"""Fields by their names in lower case: of each the lines of its value, without white space around them."""


def stanzas(
    pieces: Iterable[bytes], wanted: Set[str], *, of: str, limit_stanzas: int, limit_bytes: int
) -> Iterator[Stanza]:
    """Yield of each stanza the fields that are wanted, by their names in lower case.

    Raises:
        Malformed: a line that is none of a field, is longer than 256 KiB, or belongs to a field before the first; a wanted
            field twice in one stanza, or not in UTF-8; a stanza larger than ``limit_bytes``; more than ``limit_stanzas``.
            What was yielded until then came before the fault.
    """
    keys = {name.encode(): name for name in wanted}
    found: Stanza = {}
    count = size = number = 0
    # The lines of the field that is read, None: it is not wanted.
    value: list[str] | None = None
    for line in _lines(pieces, of):
        number += 1
        if not line.strip():
            if size:
                yield found
            found, size, value = {}, 0, None
            continue
        if not size:
            count += 1
            if count > limit_stanzas:
                raise Malformed.reading(of, f"it has more than {limit_stanzas} entries")
        elif size + len(line) > limit_bytes:
            raise Malformed.reading(of, f"an entry is larger than {limit_bytes} bytes, at line {number}")
        if line[0] in b" \t":
            if not size:
                raise Malformed.reading(of, f"line {number} goes on where no field began")
            if value is not None:
                value.append(_text(line, of, number))
        else:
            name, colon, rest = line.partition(b":")
            if not colon or not name or name != name.strip():
                raise Malformed.reading(of, f"line {number} is no field")
            key = keys.get(name.lower())
            if key is None:
                value = None
            elif key in found:
                raise Malformed.reading(of, f"{key} is there twice, at line {number}")
            else:
                value = found[key] = [_text(rest, of, number)]
        size += len(line) + 1
    if size:
        yield found


def single(stanza: Stanza, name: str, *, of: str) -> str:
    """Return a value of one line; empty where the field is not there.

    Raises:
        Malformed: it has more lines.
    """
    lines = stanza.get(name, [""])
    if len(lines) > 1:
        raise Malformed.reading(of, f"{name} has several lines")
    return lines[0]


def _lines(pieces: Iterable[bytes], of: str) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        for at in range(0, len(piece), _FED_BYTES):
            *whole, rest = (rest + piece[at : at + _FED_BYTES]).split(b"\n")
            if len(rest) > _LINE_BYTES or any(len(line) > _LINE_BYTES for line in whole):
                raise Malformed.reading(of, f"a line is longer than {_LINE_BYTES} bytes")
            yield from whole
    if rest:
        yield rest


def _text(value: bytes, of: str, number: int) -> str:
    try:
        return value.decode().strip()
    except UnicodeDecodeError:
        raise Malformed.reading(of, f"line {number} is not UTF-8") from None
