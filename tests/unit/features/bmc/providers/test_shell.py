from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from muster.features.bmc.contract import Device
from muster.features.bmc.providers.shell import ShellBMC, opened
from muster.kernel.errors import Rejected, Unsupported

pytestmark = pytest.mark.anyio
HERE = Device("localhost")


async def test_this_host_is_on_and_is_begun_anew_once(tmp_path: Path) -> None:
    done = tmp_path / "done"
    shell = ShellBMC(("sh", "-c", f"echo again >>{done}"), pause_s=0.0)
    assert await shell.power(HERE) == "on"
    await shell.switch(HERE, "cycle")
    await shell.switch(HERE, "cycle")
    pending = shell._pending
    assert pending is not None
    await asyncio.wait_for(asyncio.shield(pending), 20)
    assert done.read_text() == "again\n"
    await shell.close()


async def test_a_start_that_has_not_begun_is_forgotten_with_the_member(tmp_path: Path) -> None:
    shell = ShellBMC(("sh", "-c", f"touch {tmp_path}/done"), pause_s=600)
    await shell.switch(HERE, "cycle")
    await shell.close()
    assert not (tmp_path / "done").exists()


async def test_nothing_else_can_be_asked_of_it() -> None:
    async with opened() as shell:
        for call in (shell.switch(HERE, "off"), shell.lan(HERE, "ip"), shell.sensors(HERE), shell.identified(HERE)):
            with pytest.raises(Unsupported):
                await call
    with pytest.raises(Rejected, match="no no-such-program"):
        await ShellBMC(("no-such-program",)).switch(HERE, "cycle")
