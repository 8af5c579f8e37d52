"""A code that is found is a code that is documented, and the other way round."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_every_code_is_documented_and_no_other() -> None:
    given = {
        code
        for file in (ROOT / "src" / "muster" / "observed" / "adoption").glob("*.py")
        for code in re.findall(r'"(ADOPT(?:-[A-Z]+)+)"', file.read_text("utf-8"))
    }
    told = set(
        re.findall(r"^\| `(ADOPT(?:-[A-Z]+)+)`", (ROOT / "docs/admin/adopting.md").read_text("utf-8"), re.MULTILINE)
    )
    assert len(given) > 20
    assert given == told
