from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from muster.app.offers import modelled
from muster.observed import survey
from muster.observed.survey import Answer
from tests.unit.observed.test_checks import cluster

SERVICE = modelled(cluster()).services[0]


@dataclass
class Said:
    """An answer of a member, and who gives it."""

    said: Any
    status: int = 200
    url: str = "https://192.0.2.1:9090"

    def json(self) -> Any:
        return self.said

    async def ask(self, uri: str) -> Said:
        return self


@pytest.mark.parametrize("notes", [3, None, {"a": 1}, "ab", True])
async def test_notes_that_are_none_break_no_round(notes: Any) -> None:
    server = SERVICE.servers[0]
    said = {"state": "ready", "notes": notes}

    async def kept(*_: object) -> Said:
        return Said(said)

    asked = await survey._of_member(None, [(SERVICE, server)], kept)  # type: ignore[arg-type]
    right = Answer(SERVICE.name, server.name, "ready")
    assert (asked, survey._verdict(SERVICE, server, said)) == ([right], right)
