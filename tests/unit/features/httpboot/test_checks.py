from __future__ import annotations

from pathlib import Path

import pytest

from muster.features.httpboot.checks import checks
from muster.features.httpboot.settings import HTTPBootSettings

pytestmark = pytest.mark.anyio


async def codes(root: Path | None, tftproot: Path | None) -> list[str]:
    return [f.code for check in checks(HTTPBootSettings(root_dir=root), tftproot) for f in await check.run()]


async def test_the_cluster_s_own_tree_is_no_finding(tmp_path: Path) -> None:
    assert await codes(None, None) == []
    assert await codes(tmp_path, tmp_path / "." / "") == []


async def test_a_directory_that_nobody_keeps_alike_is_said(tmp_path: Path) -> None:
    assert await codes(tmp_path, None) == ["HTTPBOOT-OTHER-ROOT"]
    assert await codes(tmp_path, tmp_path / "other") == ["HTTPBOOT-OTHER-ROOT"]


async def test_a_directory_that_is_not_there_is_said(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    assert await codes(nowhere, nowhere) == ["HTTPBOOT-ROOT-ABSENT"]
    assert await codes(nowhere, None) == ["HTTPBOOT-OTHER-ROOT", "HTTPBOOT-ROOT-ABSENT"]
