from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muster.derived.consumer import accepted, found
from muster.kernel.errors import Rejected, Unavailable

pytestmark = pytest.mark.anyio


def said(text: str) -> list[str]:
    return [sys.executable, "-c", text]


async def test_a_program_that_is_not_installed_is_named_with_what_to_do() -> None:
    with pytest.raises(Unavailable, match=r"No muster-absent in .*: install it"):
        found("muster-absent", "install it")


async def test_a_program_is_found_on_path_and_where_it_is_packaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "muster-present"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert found("muster-present", "install it", also=(str(tmp_path),)) == program
    monkeypatch.setenv("PATH", str(tmp_path))
    assert found("muster-present", "install it") == program


async def test_what_a_consumer_complains_of_is_one_line_and_what_it_accepts_is_returned() -> None:
    assert (await accepted(said("print('fine')"))).stdout == "fine\n"
    with pytest.raises(Rejected, match=r"refuses it: line 1; line 2$"):
        await accepted(said("import sys; sys.stderr.write('line 1\\n\\n  line 2\\n'); sys.exit(1)"))
    with pytest.raises(Rejected, match=r"refuses it: status 3$"):
        await accepted(said("import sys; sys.exit(3)"))


async def test_a_consumer_that_dies_or_is_silent_refused_nothing() -> None:
    with pytest.raises(Unavailable, match="killed by signal 9"):
        await accepted(said("import os; os.kill(os.getpid(), 9)"))
    with pytest.raises(Unavailable, match="did not finish"):
        await accepted(said("import time; time.sleep(60)"), timeout_s=0.2)
