"""Parameters the way Rack nests them: bare keys, ``a[]`` and ``a[b]`` (protocol reference §2.1).

Foreman's client sends ``related_macs`` as a bare key for an empty list and ``ztp_firmware[core]=…`` for maps, so both must
arrive as they were meant: a bare key is ``None``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import TypeVar, Union, cast
from urllib.parse import unquote_plus

from muster.kernel.errors import Rejected
from muster.kernel.names import shown

Value = Union[str, None, list["Value"], dict[str, "Value"]]  # noqa: UP007 - recursive, so its parts are texts
Params = dict[str, Value]

T = TypeVar("T", list[Value], dict[str, Value])

MAX_PARAMETERS = 1000
MAX_DEPTH = 32


def from_query(raw: bytes) -> Params:
    """Parse a query string or urlencoded body.

    Raises:
        Rejected: conflicting nesting (``a=1&a[b]=2``), too many parameters or too deep.
    """
    return _nested(_pairs(raw))


def from_multipart(body: bytes, content_type: str) -> Params:
    """Parse a multipart form; files become their content, as text.

    Raises:
        Rejected: not a well-formed multipart body.
    """
    # Only multipart bodies need the library, and Foreman never sends one.
    from python_multipart import parse_form
    from python_multipart.exceptions import FormParserError

    pairs: list[tuple[str, str | None]] = []

    def text(raw: bytes | None) -> str:
        return (raw or b"").decode("utf-8", "surrogateescape")

    def take_field(field: object) -> None:
        pairs.append((text(field.field_name), text(field.value)))  # type: ignore[attr-defined]

    def take_file(file: object) -> None:
        content = file.file_object  # type: ignore[attr-defined]
        content.seek(0)
        pairs.append((text(file.field_name), text(content.read())))  # type: ignore[attr-defined]

    headers = {"Content-Type": content_type.encode("latin-1"), "Content-Length": str(len(body)).encode()}
    try:
        parse_form(headers, io.BytesIO(body), take_field, take_file)
    except (FormParserError, ValueError) as e:
        raise Rejected(f"Invalid multipart body: {e}") from e
    return _nested(pairs)


def merged(*sources: Mapping[str, Value]) -> Params:
    """Return all parameters; a later source wins."""
    out: Params = {}
    for source in sources:
        out.update(source)
    return out


def _pairs(raw: bytes) -> Iterable[tuple[str, str | None]]:
    if not raw:
        return
    parts = raw.replace(b";", b"&").split(b"&") if b";" in raw and b"&" not in raw else raw.split(b"&")
    if len(parts) > MAX_PARAMETERS:
        raise Rejected(f"Invalid query parameters: more than {MAX_PARAMETERS}")
    for part in parts:
        if part:
            key, has_value, value = part.partition(b"=")
            yield _text(key), _text(value) if has_value else None


def _text(raw: bytes) -> str:
    return unquote_plus(raw.decode("utf-8", "surrogateescape"), "utf-8", "surrogateescape")


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
