from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.features.bmc.checks import checks
from muster.features.bmc.settings import BMCSettings
from tests.unit.cluster.written import SMALL, parsed

pytestmark = pytest.mark.anyio


async def found(**given: Any) -> list[tuple[str, str]]:
    (check,) = checks(BMCSettings.model_validate(given), parsed(SMALL))
    return [(f.code, f.severity) for f in await check.run()]


async def test_no_default_is_said() -> None:
    assert await found() == [("BMC-NO-DEFAULT", "warning")]
    assert await found(bmc_default_provider="redfish") == []


async def test_a_program_that_is_absent_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muster.features.bmc.providers.ipmitool.PATH", "/nowhere")
    assert await found(bmc_default_provider="ipmitool") == [("BMC-PROVIDER-ABSENT", "error")]


async def test_a_file_of_cas_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    given = {"redfish": {"ca_file": str(tmp_path / "none.pem")}}
    assert await found(bmc_default_provider="memory", **given) == [("BMC-PROVIDER-ABSENT", "warning")]
    assert await found(bmc_default_provider="redfish", **given) == [("BMC-PROVIDER-ABSENT", "error")]


async def test_the_shell_of_several_members_is_said() -> None:
    cluster = parsed(SMALL)
    (check,) = checks(BMCSettings(bmc_default_provider="shell"), cluster)
    expected = ["BMC-SHELL"] if len(cluster.members) > 1 else []
    assert [f.code for f in await check.run()] == expected
