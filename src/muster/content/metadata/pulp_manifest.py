"""``PULP_MANIFEST``: the files of a repository of files, a line each: path, SHA-256 and size, with commas between.

Nothing is quoted: what holds more commas has them in its path. White space around the three is none of theirs, and a line
that begins with ``#`` says nothing; so pulp_file reads and writes it.
"""

from __future__ import annotations

from muster.content.metadata.malformed import Malformed
from muster.content.metadata.names import checksum, is_inside, whole_number
from muster.content.metadata.primary import LeftOut, Package, unheard
from muster.kernel.names import shown

LIMIT_BYTES = 4 << 20
_LIMIT_LINES = 200_000


def packages(body: bytes, *, of: str = "PULP_MANIFEST", left_out: LeftOut = unheard) -> tuple[Package, ...]:
    """Return the files that are listed, in the order of the document; ``of`` is what an error calls it.

    Left out are paths that lead out of the repository or are written in a way that is another one when it is asked for, and
    paths that are there with different bytes: which of them is meant nobody can tell.

    Raises:
        Malformed: larger than 4 MiB, more than 200,000 lines, no UTF-8, or a line that is no path, SHA-256 and size.
    """
    if len(body) > LIMIT_BYTES:
        raise Malformed.reading(of, f"it is larger than {LIMIT_BYTES} bytes")
    try:
        lines = body.decode().split("\n")
    except UnicodeDecodeError as e:
        raise Malformed.reading(of, f"it is not UTF-8 at byte {e.start}") from None
    if len(lines) > _LIMIT_LINES + 1:
        raise Malformed.reading(of, f"it has more than {_LIMIT_LINES} lines")
    found: dict[str, Package | None] = {}
    for number, line in enumerate((one.strip() for one in lines), start=1):
        if not line or line[0] == "#":
            continue
        package = _package(line, number, of)
        if not is_inside(package.href):
            left_out(package.href)
        elif found.setdefault(package.href, package) != package:
            found[package.href] = None
    for href in (href for href, one in found.items() if one is None):
        left_out(href)
    return tuple(one for one in found.values() if one is not None)


def _package(line: str, number: int, of: str) -> Package:
    words = [word.strip() for word in line.rsplit(",", 2)]
    proof = checksum("sha256", words[1]) if len(words) == 3 else None
    size = whole_number(words[-1])
    if proof is None or size is None or not words[0]:
        raise Malformed.reading(of, f"line {number}, {shown(line)!r}, is no path, SHA-256 and size")
    return Package(words[0], size, *proof)
