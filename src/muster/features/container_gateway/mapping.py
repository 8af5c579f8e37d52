"""The forms in which Foreman says who may read what: lists of maps, nested as Rack nests them, of any length.

``users[][LOGIN][][repository]=NAME&users[][LOGIN][][auth_required]=true`` and so on. The edge's parameters have bounds that
a site with a thousand images passes, and building them nested costs many times their size; here they are read in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from urllib.parse import unquote_to_bytes

from muster.kernel.errors import Rejected
from muster.kernel.names import refuse_unless_text, shown

# An image as distributions are named, a login as Foreman has them; whatever stands between the brackets.
_REPOSITORY = re.compile(r"[a-z0-9](?:[a-z0-9._/-]{0,253}[a-z0-9])?\Z")
_LONGEST_SUBJECT = 255
# ``repositories[][repository]``, and ``users[][LOGIN][][repository]``, which without a key is an empty list.
_PLAIN = re.compile(rb"(?P<subject>)\[\](?:\[(?P<key>repository|auth_required|uuid)\])?\Z")
_OF_SOMEBODY = re.compile(rb"\[\]\[(?P<subject>[^\[\]]+)\](?:\[\](?:\[(?P<key>repository|auth_required)\])?)?\Z")
_TRUE = "true"


def is_repository(name: str) -> bool:
    """Whether it can be the name of an image."""
    return _REPOSITORY.match(name) is not None


def repositories(form: bytes) -> dict[str, bool]:
    """Return what ``repository_list`` says: images, each with whether one has to log in for it.

    Raises:
        Rejected: it is no such form.
    """
    found: dict[str, bool] = {}
    for _, one in _elements(form, "repositories", _PLAIN):
        if "repository" in one:
            # What is not said to be for everybody is not.
            found[_repository(one["repository"])] = one.get("auth_required", _TRUE).lower() == _TRUE
    return found


def granted(form: bytes, of: str) -> dict[str, set[str]]:
    """Return who may read which images that one has to log in for; ``of`` is ``users`` or ``hosts``.

    Raises:
        Rejected: it is no such form.
    """
    found: dict[str, set[str]] = {}
    for subject, one in _elements(form, of, _OF_SOMEBODY):
        if not subject or len(subject) > _LONGEST_SUBJECT:
            continue
        some = found.setdefault(subject, set())
        if "repository" in one:
            name = _repository(one["repository"])
            if one.get("auth_required", "").lower() == _TRUE:
                some.add(name)
    return found


def uuids(form: bytes) -> set[str]:
    """Return what ``update_hosts`` says.

    Raises:
        Rejected: it is no such form.
    """
    return {
        v.strip()
        for _, key, v in _pairs(form, "hosts", _PLAIN)
        if key == "uuid" and 0 < len(v.strip()) <= _LONGEST_SUBJECT
    }


def _elements(form: bytes, of: str, shape: re.Pattern[bytes]) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each element of a list and whose it is. As with Rack a key that one has already begins the next."""
    whose, one = "", dict[str, str]()
    for subject, key, value in _pairs(form, of, shape):
        if one and (subject != whose or key in one):
            yield whose, one
            one = {}
        whose = subject
        if key:
            one[key] = value
        else:
            yield whose, {}
    if one:
        yield whose, one


def _pairs(form: bytes, of: str, shape: re.Pattern[bytes]) -> Iterator[tuple[str, str, str]]:
    """Yield subject, key and value of each entry of a list; an empty list has none."""
    # Each host's are the same hundreds, and each image's name is said for every host.
    named, said = lru_cache(64)(partial(_named, of=of.encode(), shape=shape)), lru_cache(4096)(_text)
    for part in form.split(b"&"):
        name, _, value = part.partition(b"=")
        if (found := named(name)) is not None:
            yield *found, said(value)


def _named(name: bytes, of: bytes, shape: re.Pattern[bytes]) -> tuple[str, str] | None:
    raw = unquote_to_bytes(name.replace(b"+", b" "))
    if raw in (b"", of, of + b"[]"):
        return None
    found = shape.match(raw, len(of)) if raw.startswith(of) else None
    if found is None:
        raise Rejected(f"Invalid parameter {shown(raw[:100].decode('utf-8', 'replace'))}: {of.decode()} are expected")
    return _decoded(found["subject"]), (found["key"] or b"").decode()


def _text(raw: bytes) -> str:
    return _decoded(unquote_to_bytes(raw.replace(b"+", b" ")))


def _decoded(raw: bytes) -> str:
    text = raw.decode("utf-8", "surrogateescape")
    refuse_unless_text(text, "a parameter")
    if not text.isprintable():
        # PostgreSQL takes no NUL, and nobody is called so.
        raise Rejected(f"Invalid parameter {shown(text[:100])}: it holds control characters")
    return text


def _repository(name: str) -> str:
    if not is_repository(name):
        raise Rejected(f"Invalid parameter repository: {shown(name)} is no name of an image")
    return name
