"""A CA's status objects in Foreman's words. Source: docs/facts/smart-proxy-protocol.md §12."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from muster.features.puppetca.contract import Certificate

_STATES = {"signed": "valid", "requested": "pending"}
_MOMENT = "%Y-%m-%dT%H:%M:%SUTC"


def as_foreman_sees(status: Mapping[str, Any], now: datetime) -> Certificate:
    """Return a CA's status object in Foreman's words."""
    state = str(status.get("state", ""))
    word = _STATES.get(state, state)
    ends = status.get("not_after")
    if word == "valid" and isinstance(ends, str) and _ended(ends, now):
        word = "revoked"
    serial = status.get("serial_number")
    return Certificate(
        name=str(status.get("name", "")),
        state=word,
        fingerprint=status.get("fingerprint"),
        serial=serial if isinstance(serial, int) else None,
        not_before=status.get("not_before"),
        not_after=ends,
    )


def _ended(text: str, now: datetime) -> bool:
    try:
        return datetime.strptime(text, _MOMENT).replace(tzinfo=UTC) < now
    except ValueError:
        return False
