from __future__ import annotations

from pathlib import Path

from tests import order

ROOT = Path(order.__file__).parent.parent


def test_what_takes_longest_is_there_and_comes_first() -> None:
    assert [name for name in order.LONGEST if not (ROOT / name).is_file()] == []
    others = ["tests/unit/test_order.py", "tests/contract/test_dns.py", "tests/e2e/test_demo.py"]
    found = sorted([*others, *reversed(order.LONGEST)], key=order.place)
    assert found == [*order.LONGEST, *reversed(others)]
