from __future__ import annotations

import pytest

from muster.kernel.errors import Conflict
from muster.kernel.happenings import Happening, told, untold
from muster.kernel.names import MACAddress

MAC = MACAddress.parse("52:54:00:aa:00:01")


def test_what_a_block_does_is_told_when_it_has_ended() -> None:
    heard: list[Happening] = []
    with told(heard.append, "reserved", MAC, "192.0.2.10", provider="isc"):
        assert heard == []
    assert heard == [Happening("reserved", MAC, "192.0.2.10", {"provider": "isc"})]


def test_what_failed_is_told_with_its_reason_and_fails_all_the_same() -> None:
    heard: list[Happening] = []
    with pytest.raises(Conflict), told(heard.append, "configured", MAC, "", variant="PXEGrub2"):
        raise Conflict("taken\nby another" + "x" * 1000)
    (one,) = heard
    failed = str(one.detail["failed"])
    assert failed.startswith("taken\\nby another")
    assert len(failed) < 400


def test_a_defect_is_no_happening() -> None:
    heard: list[Happening] = []
    with pytest.raises(ZeroDivisionError), told(heard.append, "configured", MAC, ""):
        raise ZeroDivisionError
    assert heard == []
    untold(Happening("configured", MAC))
