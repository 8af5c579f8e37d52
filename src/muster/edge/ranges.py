"""One range of bytes of something whose length is known. Source: RFC 9110 §14."""

from __future__ import annotations

import re

_ONE = re.compile(r"bytes=\s*(?P<first>[0-9]{0,64})-(?P<last>[0-9]{0,64})\s*\Z", re.IGNORECASE)


class Unsatisfiable(ValueError):
    """No byte of it is there."""


def asked(field: str | None, length: int) -> tuple[int, int] | None:
    """Return first and last position; None: the whole, also for what is no range, or several.

    Raises:
        Unsatisfiable: the range lies outside.
    """
    found = _ONE.match(field) if field is not None else None
    if found is None or not (found["first"] or found["last"]):
        return None
    if not found["first"]:
        count = min(int(found["last"]), length)
        if not count:
            raise Unsatisfiable(field)
        return length - count, length - 1
    first, last = int(found["first"]), int(found["last"]) if found["last"] else length - 1
    if found["last"] and last < first:
        return None
    if first >= length:
        raise Unsatisfiable(field)
    return first, min(last, length - 1)
