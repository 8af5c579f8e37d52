"""What a member says of keepers that cannot be turned, and that it says nothing where there are to be none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest

from muster.app.duties.duty import NOTHING
from muster.app.duties.keepers import KeepersTurned
from muster.cluster.sections import Content
from muster.content.retention.keepers import Keepers

pytestmark = pytest.mark.anyio


@dataclass
class Turned:
    trouble: str = ""
    beats: int = 0

    async def beat(self) -> None:
        self.beats += 1


def duty(count: int, trouble: str) -> tuple[KeepersTurned, Turned]:
    turned = Turned(trouble)
    return KeepersTurned(cast(Keepers, turned), count), turned


async def test_what_cannot_be_turned_is_a_note() -> None:
    it, turned = duty(4, "Pulp's API cannot be reached: Connection refused")
    await it.beat()
    assert turned.beats == 1
    found = it.found()
    assert (found.down, found.out) == ({}, ())
    assert found.notes == (
        "packages that newer versions drop are not kept: Pulp's API cannot be reached: Connection refused",
    )


@pytest.mark.parametrize(("count", "trouble"), [(4, ""), (0, "Pulp's API answers 401")])
def test_where_nothing_is_wrong_or_wanted_nothing_is_said(count: int, trouble: str) -> None:
    it, _ = duty(count, trouble)
    assert it.found() == NOTHING
    assert it.begins_at_once is bool(count)


async def test_a_password_file_that_is_none_is_a_note(tmp_path: Path) -> None:
    settings = Content(keepers=2, pulp_password_file=tmp_path / "absent")
    nothing: Any = Mock()
    it = KeepersTurned.of(nothing, settings, nothing, nothing, nothing)
    await it.beat()
    assert str(tmp_path / "absent") in it.found().notes[0]
    # Where nothing is followed nothing is kept.
    without = KeepersTurned.of(nothing, settings, nothing, None, nothing)
    assert without.found() == NOTHING
