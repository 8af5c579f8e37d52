"""Waits for what members come to by themselves; how long that takes is nobody's promise, so the wait is long."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

from tests.servers.client import ask
from tests.servers.member import Member

PATIENCE_S = 30.0
_PAUSE_S = 0.1


def until(holds: Callable[[], bool], within_s: float = PATIENCE_S) -> None:
    """Return as soon as something holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(_PAUSE_S)


def is_ready(one: Member, service: str = "https") -> bool:
    """Whether a member takes clients of a service."""
    return ask(one.https, "GET", f"/health/ready?service={service}", tls=one.tls()).status == 200


def stopped(one: Member) -> None:
    """Stop a member, unless the test did."""
    with contextlib.suppress(AttributeError):
        one.stop()
