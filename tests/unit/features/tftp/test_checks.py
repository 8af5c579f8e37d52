from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muster.features.tftp.checks import checks
from muster.features.tftp.settings import TFTPSettings
from tests.unit.cluster.written import SMALL, parsed

pytestmark = pytest.mark.anyio

BALANCED = parsed(f"{SMALL}balancers: [{{name: lb1, address: 192.0.2.1}}]\n")


async def codes(
    cluster: Any = BALANCED, *, account: str = "nobody", has: tuple[str, ...] = (), **given: Any
) -> list[str]:
    settings = TFTPSettings.model_validate(given)
    asked = checks(cluster, settings, addresses=lambda _: has, account=account)
    return [f.code for check in asked for f in await check.run()]


async def test_a_name_that_only_balancers_have_is_said() -> None:
    assert await codes() == ["TFTP-SERVER-NAME"]
    assert await codes(parsed(SMALL)) == []


async def test_a_server_without_an_address_of_four_numbers_is_said() -> None:
    assert await codes(tftp_servername="192.0.2.5") == []
    assert await codes(tftp_servername="2001:db8::5") == ["TFTP-SERVER-ADDRESS"]
    assert await codes(tftp_servername="tftp.test") == ["TFTP-SERVER-ADDRESS"]
    assert await codes(tftp_servername="tftp.test", has=("192.0.2.5",)) == []


async def test_a_name_is_looked_up_as_this_host_does() -> None:
    settings = TFTPSettings(tftp_servername="localhost")
    assert [f for check in checks(BALANCED, settings) for f in await check.run()] == []
    settings = TFTPSettings(tftp_servername="nobody.invalid")
    assert [f.code for check in checks(BALANCED, settings) for f in await check.run()] == ["TFTP-SERVER-ADDRESS"]


async def test_a_directory_that_members_cannot_write_into_is_said(tmp_path: Path) -> None:
    named: dict[str, Any] = {"tftp_servername": "192.0.2.5", "tftproot": str(tmp_path)}
    tmp_path.chmod(0o755)
    assert await codes(**named) == ["TFTP-ROOT-NOT-WRITABLE"]
    tmp_path.chmod(0o775)
    assert await codes(**named) == ["TFTP-ROOT-NOT-WRITABLE"]
    tmp_path.chmod(0o777)
    assert await codes(**named) == []
    assert await codes(**named, account="no-such-account") == []
    assert await codes(**{**named, "tftproot": str(tmp_path / "nowhere")}) == ["TFTP-ROOT-ABSENT"]
