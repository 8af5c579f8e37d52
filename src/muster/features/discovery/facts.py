"""What a machine says of itself, looked at before it goes anywhere. Pure."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from muster.kernel.documents import values_in
from muster.kernel.errors import Rejected
from muster.kernel.names import MACAddress

LARGEST_BYTES = 4 << 20
"""The longest body with facts; a large machine's are about 1 MiB."""

_MOST_VALUES = 200_000
# By which Foreman knows a machine, and what it was called before there were more cards than one.
_NAMED = ("discovery_bootif", "macaddress")


def checked(body: bytes, what: str) -> dict[str, Any]:
    """Return the JSON object that a body is.

    Raises:
        Rejected: it is none; ``what`` begins the sentence, in which nothing of the body stands.
    """
    if values_in(body) > _MOST_VALUES:
        raise Rejected(f"{what}: the body holds more than {_MOST_VALUES} values")
    try:
        found = json.loads(body.decode(), parse_constant=_refused)
    except (ValueError, RecursionError):
        raise Rejected(f"{what}: the body is no JSON") from None
    if not isinstance(found, dict):
        raise Rejected(f"{what}: the body is JSON, but no object")
    return found


def sent(body: bytes) -> dict[str, Any]:
    """Return the facts in what the discovery image sends: ``{"facts": {...}}``.

    Raises:
        Rejected: it is something else.
    """
    what = "Failed to hand facts to Foreman"
    facts = checked(body, what).get("facts")
    if not isinstance(facts, dict):
        raise Rejected(f"{what}: the body has no object 'facts'")
    return facts


def mac_of(facts: dict[str, Any]) -> str | None:
    """Return the hardware address by which a machine is known; None: it does not say."""
    for name in _NAMED:
        value = facts.get(name)
        if isinstance(value, str):
            try:
                return str(MACAddress.parse(value))
            except Rejected:
                continue
    return None


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is none of JSON's values")
