"""A command rolled over a serving cluster: nobody notices, and it stops where it must."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.local import Local, load, shown, until

pytestmark = pytest.mark.anyio


async def test_a_roll_over_every_member_loses_no_call_and_runs_the_command_once_on_each(
    local: Local, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    async with load(local) as seen:
        said = await local.cli("roll", "--", "sh", "-c", f"echo {{member}} {{address}} >> {diary}")
    assert said.code == 0, said
    assert "Rolled over 3 members." in said.out
    assert diary.read_text().splitlines() == [f"{n} 127.0.0.{11 + i}" for i, n in enumerate(local.names)]
    for name, operations in (("new", seen.new), ("kept", seen.kept)):
        shown(f"roll over three members, {name}", operations)
        assert [o for o in operations if not o.ok] == []


async def test_a_roll_stops_at_the_first_failure_and_is_resumed_there(local: Local, tmp_path: Path) -> None:
    mended, diary = tmp_path / "mended", tmp_path / "diary"
    broken = local.names[1]
    script = f"echo {{member}} >> {diary}; test {{member}} != {broken} -o -e {mended}"
    stopped = await local.cli("roll", "--json", "--", "sh", "-c", script)
    assert stopped.code == 4, stopped
    assert stopped.json["done"] is False
    assert stopped.json["roll"]["out"] == broken
    assert stopped.json["roll"]["done"] == [local.names[0]]
    assert (await local.ask("/health/ready?service=smartproxy", member=broken)).status == 404

    another = await local.cli("roll", "--", "true")
    assert another.code == 4
    assert f"stands at {broken}: sh ended with 1; --resume or --forget it first" in another.err

    planned = await local.cli("roll", "--resume", "--dry-run", "--json")
    assert planned.json["steps"][0] == f"drain {broken}"

    mended.touch()
    resumed = await local.cli("roll", "--resume")
    assert resumed.code == 0, resumed
    assert diary.read_text().splitlines() == [local.names[0], broken, broken, local.names[2]]
    assert (await local.cli("roll", "--resume")).code == 4
    await until(local.is_steady, "every member is ready again")


async def test_a_roll_that_would_leave_too_few_members_changes_nothing(local: Local) -> None:
    said = await local.cli("roll", "--min-ready", "3", "--", "true")
    assert said.code == 4
    assert "there would be fewer than 3 ready members for anaconda, smartproxy" in said.out
    assert (await local.cli("roll", "--forget")).code == 0
    assert await local.is_steady()


async def test_a_roll_is_planned_before_it_is_done(local: Local) -> None:
    said = await local.cli("roll", "--dry-run", "--member", "proxy03", "--", "echo", "{member}")
    assert said.code == 0
    assert said.out.splitlines() == [
        "Would:",
        f"  1. drain {local.names[2]}",
        f"  2. run echo {local.names[2]}",
        f"  3. wait until {local.names[2]} is ready",
    ]
    assert (await local.cli("roll", "--", "echo", "{host}")).code == 4
    assert (await local.cli("roll")).code == 2
