"""What the doctor concludes from what services say of their disks; its other checks run in ``tests/contract``."""

from __future__ import annotations

import pytest

from muster.cluster.checks import short_of_room
from muster.cluster.service import FREE, TOTAL, Register, Told, merged, of_settings

GIB = 1 << 30


def found(free_percent: int, *, age_s: float = 30.0, without: str = "") -> list[tuple[str, str, str]]:
    facts = {TOTAL: 1000 * GIB, FREE: free_percent * 10 * GIB}
    facts = {k: v for k, v in facts.items() if k != without}
    told = Told("proxy01.test", "asked by proxy01.test", {"pulp": {"facts": facts}})
    base = {"pulp": of_settings("pulp", "https://{member}")}
    register = Register(merged({}, base, [(told, 1000.0 - age_s)], 1000.0))
    return [(f.code, f.severity, f.sentence) for f in short_of_room(register)]


@pytest.mark.parametrize(("free", "severity"), [(9, "warning"), (3, "warning"), (2, "error"), (0, "error")])
def test_a_disk_that_is_nearly_full_is_said_with_its_member(free: int, severity: str) -> None:
    ((code, grave, sentence),) = found(free)
    assert (code, grave) == ("SERVICE-STORAGE", severity)
    assert sentence == f"The pulp of proxy01.test has {free * 10:.1f} of 1000.0 GiB left, {free} %"


def test_room_figures_that_are_old_or_absent_say_nothing() -> None:
    assert found(10) == []
    assert found(1, age_s=901) == []
    assert found(1, without=TOTAL) == []
    assert found(1, without=FREE) == []
