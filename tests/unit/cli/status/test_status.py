from __future__ import annotations

from click.testing import CliRunner

from muster.cli import muster


def test_watching_is_for_people_and_json_for_programs() -> None:
    said = CliRunner().invoke(muster, ["status", "--watch", "--json", "--cluster", "/nowhere"])
    assert (said.exit_code, "--json" in said.output) == (2, True)
