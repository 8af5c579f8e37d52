"""What was done to a certificate, in one line."""

from __future__ import annotations

from typing import Any


def event_line(event: dict[str, Any]) -> str:
    about = " ".join(str(event[k]) for k in ("certname", "serial") if event[k])
    return f"{event['at']}  {event['event']:10} {about}  by {event['actor'] or '-'} on {event['member']}"
