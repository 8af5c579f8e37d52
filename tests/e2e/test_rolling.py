"""A command rolled over a serving cluster: nobody notices, and it stops where it must."""

from __future__ import annotations

import asyncio
import getpass
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers.local import Local, environment, load, shown, until

pytestmark = pytest.mark.anyio


def edited(local: Local, directory: Path, change: Callable[[dict[str, Any]], object]) -> list[str]:
    """Return the options that give a command another cluster file than the members have."""
    content = yaml.safe_load(local.cluster_file.read_text())
    change(content)
    other = directory / "cluster.yaml"
    other.write_text(yaml.safe_dump(content, sort_keys=False))
    return ["--cluster", str(other)]


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

    assert "It stays drained; mend it, then muster roll --resume" in stopped.json["sentence"]

    tried = await local.cli("roll", "--forget", "--dry-run")
    assert (tried.code, f"stands at {broken}: sh ended with 1" in tried.out) == (0, True), tried
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


async def test_a_roll_that_would_leave_too_few_members_changes_nothing_and_is_not_planned_either(
    local: Local, tmp_path: Path
) -> None:
    stricter = edited(local, tmp_path, lambda content: content.update(min_ready=3))
    said = await asyncio.gather(
        local.cli("roll", "--min-ready", "3", "--", "true"),
        local.cli("roll", *stricter, "--dry-run", "--", "true"),
        # What the cluster file asks for the steward holds, too: it would stop the roll on its way.
        local.cli("roll", *stricter, "--min-ready", "1", "--dry-run", "--", "true"),
    )
    each = "; ".join(f"without {name} for anaconda, smartproxy" for name in local.names)
    for one in said:
        assert one.code == 4, one
        assert f"There would be fewer than 3 ready members {each}; nothing was changed" in one.err
    assert "There was no roll." in (await local.cli("roll", "--forget")).out
    assert await local.is_steady()


async def test_a_roll_that_stops_before_its_member_is_drained_does_not_call_it_drained(
    local: Local, tmp_path: Path
) -> None:
    late = {"id": 9, "name": "proxy09.muster.test", "address": "127.0.0.19"}
    planned = edited(local, tmp_path, lambda content: content["members"].append(late))
    try:
        said = await local.cli("roll", *planned, "--member", "proxy09", "--wait", "1", "--", "true")
    finally:
        forgotten = await local.cli("roll", "--forget")
        # Nobody waits for it: the members' own cluster file does not list it.
        await local.cli("ready", *planned, "proxy09", "--wait", "0")
    assert "Forgotten." in forgotten.out
    assert said.code == 4, said
    assert "Stopped at proxy09.muster.test: proxy09.muster.test is joining" in said.out
    assert "It is joining, and wished to be drained; mend it" in said.out
    assert "stays drained" not in said.out


async def test_the_command_has_the_administrator_s_environment_and_is_heard_while_it_runs(
    local: Local, tmp_path: Path
) -> None:
    heard = tmp_path / "heard"
    script = f'echo agent "$SSH_AUTH_SOCK" {{member}}; until test -e {heard}; do sleep 0.1; done; echo late >&2'
    words = ["--member", "proxy03", "--timeout", "60", "--json"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "muster", "roll", *words, "--", "sh", "-c", script,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**environment(local), "SSH_AUTH_SOCK": "/run/agent.sock"},
    )  # fmt: skip
    assert process.stderr is not None
    said = []
    async for line in process.stderr:
        said.append(line.decode().rstrip())
        if said[-1] == f"{local.names[2]} | agent /run/agent.sock {local.names[2]}":
            # It waits for this.
            heard.touch()
    out, _ = await process.communicate()
    assert await process.wait() == 0, said
    assert f"{local.names[2]} | late" in said
    assert json.loads(out)["done"]


async def test_a_roll_leaves_alone_who_is_out_because_somebody_wants_it(local: Local, tmp_path: Path) -> None:
    rests, diary = local.names[2], tmp_path / "diary"
    assert (await local.cli("maintenance", rests, "--reason", "host is off")).code == 0
    try:
        planned, named, status, doctor = await asyncio.gather(
            local.cli("roll", "--dry-run", "--", "true"),
            local.cli("roll", "--member", "proxy03", "--", "true"),
            local.cli("status", "--json"),
            local.cli("doctor", "--json"),
        )
        # What is put into maintenance while the command runs elsewhere is not brought back by it either.
        second = f"{sys.executable} -m muster maintenance proxy02 --force --wait 30"
        script = f"echo {{member}} >> {diary}; test {{member}} != {local.names[1]} || {second}"
        rolled = await local.cli("roll", "--", "sh", "-c", script)
        lives = {m["name"]: m["life"] for m in (await local.cli("status", "--json")).json["members"]}
    finally:
        for name in (rests, local.names[1]):
            assert (await local.cli("ready", name)).code == 0
    why = f"put into maintenance by {getpass.getuser()}: host is off"
    assert f"leave {rests} alone" in planned.out
    assert f"{rests}: left alone, {why}" in planned.out
    assert (named.code, f"{rests} is {why}; a roll would take it back" in named.err) == (4, True), named
    assert (status.code, doctor.code) == (0, 0), (status, doctor)
    assert (rolled.code, diary.read_text().splitlines()) == (0, local.names[:2]), rolled
    assert f"Rolled over 2 members. Left alone: {rests}." in rolled.out
    assert f"{local.names[1]}: meanwhile put into maintenance by {getpass.getuser()}; it is left as it is" in rolled.out
    assert (lives[rests]["state"], lives[rests]["reason"]) == ("maintenance", why)
    assert lives[local.names[1]]["state"] in ("drained", "maintenance")
    await until(local.is_steady, "every member is ready again")


async def test_a_roll_is_planned_before_it_is_done(local: Local) -> None:
    said = await local.cli("roll", "--dry-run", "--member", "proxy03", "--", "echo", "{member}")
    assert said.code == 0
    assert said.out.splitlines() == [
        "Would:",
        f"  1. drain {local.names[2]}",
        f"  2. run echo {local.names[2]}",
        f"  3. wait until {local.names[2]} is ready",
    ]
    unknown, nothing = await asyncio.gather(local.cli("roll", "--", "echo", "{host}"), local.cli("roll"))
    assert (unknown.code, nothing.code) == (4, 2)
