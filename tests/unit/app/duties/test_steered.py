"""Steered Pulps are looked at by who has the role alone, and what is away ends nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from muster.app.duties.duty import NOTHING
from muster.app.duties.steered import PulpsTurned
from muster.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


@dataclass
class Turning:
    has_role: bool
    beats: int = 0

    async def beat(self) -> None:
        self.beats += 1
        raise Unavailable("the store does not answer")


@pytest.mark.parametrize(("has_role", "beats"), [(False, 0), (True, 1)])
async def test_who_has_the_role_looks(has_role: bool, beats: int) -> None:
    turning: Any = Turning(has_role)
    it = PulpsTurned(turning, turning)
    await it.beat()
    assert (turning.beats, it.found()) == (beats, NOTHING)
