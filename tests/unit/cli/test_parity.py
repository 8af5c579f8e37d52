from __future__ import annotations

from typing import Any

from muster.cli import parity
from tests.unit.cli.terminal import CLEAN, EVIL, printed


def test_what_members_told_of_themselves_is_shown_and_not_obeyed() -> None:
    found: dict[str, Any] = {
        "cluster": "demo",
        "address": "proxy.test",
        "members": [{"name": "proxy01.test", "kind": "muster"}],
        "fields": 3,
        "drifts": [],
        "unasked": {"proxy01.test": EVIL},
        "notes": [EVIL],
        "unneeded": [{"field": "x", "reason": EVIL}],
    }
    said = printed(parity.shown(found))
    assert said.count(CLEAN) == 3
    assert said.replace("\n", "").isprintable()
