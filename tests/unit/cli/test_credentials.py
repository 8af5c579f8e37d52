"""What a command shows members when it asks them, and what it says where that is not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from muster.cli.credentials import ca_file
from muster.kernel.errors import Misconfigured
from tests.unit.cli.calls import run


def test_a_ca_that_is_here_is_the_one_that_members_are_asked_with(file: Path) -> None:
    assert ca_file(file.parent / "pki") == file.parent / "pki" / "ca.pem"


@pytest.mark.parametrize("command", ["status", "parity", "drain proxy01", "content keepers"])
def test_whoever_asks_members_without_the_ca_is_told_where_it_may_be(command: str, file: Path, tmp_path: Path) -> None:
    if command == "content keepers":
        file.write_text(f"{file.read_text()}content: {{services: [http]}}\n")
    with pytest.raises(
        Misconfigured, match=r"There is no CA file .*none/ca\.pem, .* --pki or MUSTER_PKI, or .* certs init"
    ):
        run(file, *command.split(), "--pki", str(tmp_path / "none"))
