from __future__ import annotations

import pytest
from click.testing import CliRunner

from muster.cli import muster


def test_watching_is_for_people_and_json_for_programs() -> None:
    said = CliRunner().invoke(muster, ["status", "--watch", "--json", "--cluster", "/nowhere"])
    assert (said.exit_code, "--json" in said.output) == (2, True)


@pytest.mark.parametrize(
    "options", [["--serve", "--json"], ["--serve", "--watch"], ["--port", "8080"], ["--serve", "--port", "0"]]
)
def test_the_page_is_served_by_itself(options: list[str]) -> None:
    said = CliRunner().invoke(muster, ["status", *options, "--cluster", "/nowhere"])
    assert said.exit_code == 2
    assert "--serve" in said.output or "65535" in said.output
