"""Whatever has two sizes is a proof, and every proof has two sizes."""

from __future__ import annotations

import re
from pathlib import Path

from tests import scale

TESTS = Path(scale.__file__).parent
_READ = re.compile(r"\bscale\.([A-Z_]+)\b")


def test_every_size_is_read_by_a_file_with_proofs() -> None:
    named = {name for name in vars(scale) if name.isupper() and name not in {"T", "LONG"}}
    read: dict[str, bool] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text("utf-8")
        if path != Path(__file__) and (found := set(_READ.findall(text))):
            read |= dict.fromkeys(found, "@pytest.mark.proof" in text)
    # Rows of the fault matrix; make proof runs the whole matrix by itself.
    matrix = (TESTS / "faults" / "__init__.py").read_text("utf-8")
    read |= {name: f"scale.{name}" in matrix for name in ("STORE_AWAY_S", "REMOVALS", "ATTACKS")}
    assert read == dict.fromkeys(named, True)
