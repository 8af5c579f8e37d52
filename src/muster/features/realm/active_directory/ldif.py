"""LDIF (RFC 2849), in which OpenLDAP's programs are told changes and tell what they find. Pure.

Every value is written in base64, so that nothing of it is taken for a line.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from muster.kernel.errors import Unavailable
from muster.kernel.secrets import Secret

_WHOLE_SUBTREE = "1.2.840.113556.1.4.805"


@dataclass(frozen=True)
class Entry:
    """What stands in the directory; names of attributes in lower case."""

    dn: str
    values: Mapping[str, Sequence[str]]

    def first(self, name: str) -> str | None:
        return next(iter(self.values.get(name.lower(), ())), None)


def added(dn: str, values: Iterable[tuple[str, str | bytes]]) -> bytes:
    """Return what adds an entry."""
    return _lines(_pair("dn", dn), "changetype: add", *(_pair(name, value) for name, value in values))


def replaced(dn: str, values: Iterable[tuple[str, str | bytes]], *, new: Collection[str] = ()) -> bytes:
    """Return what gives attributes these values and no others, all in one step.

    Of attributes that are ``new``, which have one value at most, nothing is changed where one has a value by then.
    """
    changes = (
        line
        for name, value in values
        for line in (f"{'add' if name in new else 'replace'}: {name}", _pair(name, value), "-")
    )
    return _lines(_pair("dn", dn), "changetype: modify", *changes)


def deleted(dn: str, *, with_all_below: bool) -> bytes:
    """Return what deletes an entry; one that others are below is refused unless they go with it."""
    control = (f"control: {_WHOLE_SUBTREE} true",) if with_all_below else ()
    return _lines(_pair("dn", dn), *control, "changetype: delete")


def password(secret: Secret) -> bytes:
    """Return a password as ``unicodePwd`` has it (MS-ADTS 3.1.1.3.1.5.1): in quotes, UTF-16."""
    return f'"{secret.reveal()}"'.encode("utf-16-le")


def entries(text: str) -> list[Entry]:
    """Return the entries that ``ldapsearch -LLL -o ldif-wrap=no`` printed.

    Raises:
        Unavailable: it is no LDIF.
    """
    found: list[Entry] = []
    for block in text.split("\n\n"):
        pairs = [_parsed(line) for line in block.splitlines() if line and not line.startswith("#")]
        if not pairs:
            continue
        if pairs[0][0] != "dn":
            raise Unavailable("What the directory answered does not begin with an entry's name")
        values: dict[str, list[str]] = {}
        for name, value in pairs[1:]:
            values.setdefault(name, []).append(value)
        found.append(Entry(pairs[0][1], values))
    return found


def _parsed(line: str) -> tuple[str, str]:
    name, colon, rest = line.partition(":")
    if not colon:
        raise Unavailable("What the directory answered is no LDIF")
    if not rest.startswith(":"):
        return name.lower(), rest.removeprefix(" ")
    try:
        return name.lower(), base64.b64decode(rest[1:].strip(), validate=True).decode("utf-8", "replace")
    except binascii.Error as e:
        raise Unavailable("What the directory answered is no LDIF") from e


def _pair(name: str, value: str | bytes) -> str:
    raw = value.encode() if isinstance(value, str) else value
    return f"{name}:: {base64.b64encode(raw).decode()}"


def _lines(*lines: str) -> bytes:
    return ("\n".join(lines) + "\n").encode()
