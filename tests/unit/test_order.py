from __future__ import annotations

from pathlib import Path

from tests import order

ROOT = Path(order.__file__).parent.parent


def test_what_takes_longest_is_there_and_comes_first_of_its_room() -> None:
    assert [name for name in order.LONGEST if not (ROOT / name).is_file()] == []
    others = ["tests/unit/test_order.py", "tests/contract/test_dns.py", "tests/e2e/test_demo.py"]
    found = sorted([*others, *reversed(order.LONGEST)], key=order.place)
    assert [name for name in found if name not in others] == [*order.LONGEST]
    assert [name for name in found if name in others] == [*reversed(others)]
    for room in ("tests/e2e/", "tests/contract/"):
        of_it = [name for name in found if name.startswith(room)]
        assert of_it[-1] in others
        assert found[found.index(of_it[0]) :][: len(of_it)] == of_it
