"""Parameters the way Rack nests them: bare keys, ``a[]`` and ``a[b]`` (docs/facts/smart-proxy-protocol.md §2.1).

Foreman's client sends ``related_macs`` as a bare key for an empty list and ``ztp_firmware[core]=…`` for maps, so both must
arrive as they were meant: a bare key is ``None``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, Union, cast
from urllib.parse import quote_plus, unquote_to_bytes

from muster.kernel.errors import Rejected
from muster.kernel.names import refuse_unless_text, shown

Value = Union[str, None, list["Value"], dict[str, "Value"]]  # noqa: UP007 - recursive, so its parts are texts
Params = dict[str, Value]

T = TypeVar("T", list[Value], dict[str, Value])

MAX_PARAMETERS = 1000
MAX_DEPTH = 32


def from_query(raw: bytes) -> Params:
    """Parse a query string, whose pairs stand between ``&`` or ``;``.

    Raises:
        Rejected: conflicting nesting (``a=1&a[b]=2``), too many parameters or too deep, or a text that is no UTF-8.
    """
    return _nested(_pairs(raw.replace(b";", b"&")))


def from_form(raw: bytes) -> Params:
    """Parse a urlencoded body, whose pairs stand between ``&`` only: a ``;`` belongs to a value (Rack 2.2.22).

    Raises:
        Rejected: as for :func:`from_query`.
    """
    return _nested(_pairs(raw))


def merged(*sources: Mapping[str, Value]) -> Params:
    """Return all parameters; a later source wins."""
    out: Params = {}
    for source in sources:
        out.update(source)
    return out


def written(params: Mapping[str, Value]) -> str:
    """Return a query string that says the same, in the same order; bare keys are left out, but for those within others.

    It is written as the Ruby proxy does for Foreman (docs/facts/smart-proxy-protocol.md §15).
    """
    pairs = ((name, one) for name, value in params.items() if value is not None for name, one in _flat(name, value))
    return "&".join(quote_plus(name) + (f"={quote_plus(one)}" if one is not None else "") for name, one in pairs)


def _flat(name: str, value: Value) -> Iterator[tuple[str, str | None]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{name}[{key}]", inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(f"{name}[]", inner)
    else:
        yield name, value


def _pairs(raw: bytes) -> Iterable[tuple[str, str | None]]:
    if not raw:
        return
    parts = raw.split(b"&")
    if len(parts) > MAX_PARAMETERS:
        raise Rejected(f"Invalid query parameters: more than {MAX_PARAMETERS}")
    for part in parts:
        # Blanks after a separator belong to it.
        if given := part.lstrip(b" "):
            key, has_value, value = given.partition(b"=")
            yield _text(key), _text(value) if has_value else None


def _text(raw: bytes) -> str:
    text = unquote_to_bytes(raw.replace(b"+", b" ")).decode("utf-8", "surrogateescape")
    refuse_unless_text(text, "a parameter")
    return text


def _nested(pairs: Iterable[tuple[str, str | None]]) -> Params:
    out: Params = {}
    for name, value in pairs:
        key, path = _parsed_name(name)
        _store(out, key, path, value, name)
    return out


def _parsed_name(name: str) -> tuple[str, list[str]]:
    """Split ``a[b][]`` into its key and the texts in brackets; a name that is not of that form is one plain key."""
    start = name.find("[")
    if start <= 0 or not name.endswith("]"):
        return name, []
    path = name[start + 1 : -1].split("][")
    if any("[" in part or "]" in part for part in path):
        return name, []
    if len(path) > MAX_DEPTH:
        raise Rejected(f"Invalid query parameters: {shown(name)} nests deeper than {MAX_DEPTH}")
    return name[:start], path


def _store(into: Params, key: str, path: list[str], value: str | None, name: str) -> None:
    if not path:
        into[key] = value
        return
    step, rest = path[0], path[1:]
    if step == "":
        items = _container(into, key, list, name)
        if not rest:
            items.append(value)
            return
        # a[][b]=1&a[][c]=2 fills one map until something repeats; then a new map begins.
        last = items[-1] if items else None
        if not isinstance(last, dict) or _holds(last, rest):
            last = {}
            items.append(last)
        _store(last, rest[0], rest[1:], value, name)
        return
    _store(_container(into, key, dict, name), step, rest, value, name)


def _holds(value: Value, path: list[str]) -> bool:
    """Whether the whole path already leads to a value; a list at its end takes another one, so it never does."""
    for step in path:
        if step == "":
            return False
        if not isinstance(value, dict) or step not in value:
            return False
        value = value[step]
    return True


def _container(into: Params, key: str, kind: type[T], name: str) -> T:
    existing = into.get(key)
    if existing is None:
        fresh = kind()
        into[key] = cast(Value, fresh)
        return fresh
    if not isinstance(existing, kind):
        expected = "Array" if kind is list else "Hash"
        raise Rejected(f"Invalid query parameters: expected {expected} for param `{shown(name)}'")
    return existing
