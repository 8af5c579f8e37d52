"""Members that are added, put into maintenance and removed while clients are at work, and the question who served whom."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
from bench.load import by_member, tls_context

from muster.kernel.process import end_with_parent
from tests.servers.local import READY, Local, environment, load, say, shown, until

pytestmark = pytest.mark.anyio

FOURTH = "proxy04.muster.test"
FOURTH_ADDRESS = "127.0.0.14"


@dataclass(frozen=True)
class Sample:
    """What HAProxy showed of the fourth member at one moment; ``taken`` counts connections in every backend."""

    at: float
    is_checked: bool
    taken: int


async def lives(local: Local) -> dict[str, str]:
    status = (await local.cli("status", "--json")).json
    return {m["name"]: (m["life"] or {}).get("state", "") for m in status["members"]}


async def everything(local: Local) -> dict[str, Any]:
    """Return all that a command could have changed: files, wishes, lives, HAProxy's servers."""
    status = (await local.cli("status", "--json")).json
    places = sorted(p for top in (local.pki, local.run) for p in top.rglob("*") if not p.name.startswith("candidate"))
    members = {m["name"]: (m["said"]["wish"], m["life"]["state"], m["life"]["version"]) for m in status["members"]}
    return {
        "file": local.cluster_file.read_bytes(),
        "beside": sorted(p.name for p in local.directory.iterdir()),
        "pki": [str(p) for p in places if p.is_relative_to(local.pki)],
        "members": members,
        "servers": {f"{s.backend}/{s.server}": s.status for s in await local.runtime.servers()},
    }


@contextlib.asynccontextmanager
async def served(local: Local, member: str) -> AsyncIterator[None]:
    """A member's process, started as an administrator would on its host."""
    with (local.directory / "log" / f"{member.split('.')[0]}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "muster", "serve", "--cluster", str(local.cluster_file), "--pki", str(local.pki),
             "--member", member],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(local), preexec_fn=end_with_parent,
        )  # fmt: skip
    try:
        yield
    finally:
        process.terminate()
        try:
            # In a thread: the clients of this test go on meanwhile.
            assert await asyncio.to_thread(process.wait, 20) == 0
        finally:
            process.kill()


@contextlib.asynccontextmanager
async def watched(local: Local) -> AsyncIterator[list[Sample]]:
    """Look at the fourth member in HAProxy as often as it goes, for the length of the block."""
    samples: list[Sample] = []
    done = asyncio.Event()

    async def look() -> None:
        while not done.is_set():
            with contextlib.suppress(Exception):
                states = [s for s in await local.runtime.servers() if s.server == FOURTH]
                asked = [s for s in states if not s.backend.endswith("_panic")]
                passed = bool(asked) and all(s.check.startswith(("L4OK", "L7OK")) for s in asked)
                samples.append(Sample(time.monotonic(), passed, sum(s.total_sessions for s in states)))
            await asyncio.sleep(0.02)

    work = asyncio.create_task(look())
    try:
        yield samples
    finally:
        done.set()
        await work


async def test_a_member_comes_and_goes_under_load_and_serves_nobody_before_its_checks_passed(local: Local) -> None:
    before = local.cluster_file.read_bytes()
    bundle: Path = local.pki / "members" / FOURTH
    try:
        async with load(local) as seen, watched(local) as samples:
            added = await local.cli("add", FOURTH, "--address", FOURTH_ADDRESS)
            assert added.code == 0, added
            assert f"{FOURTH} stands in {local.cluster_file}" in added.out
            assert f"muster serve --member {FOURTH}" in added.out
            assert (bundle / "cert.pem").exists()
            assert FOURTH.encode() in local.cluster_file.read_bytes()

            async def is_listed() -> bool:
                return FOURTH in await local.servers()

            await until(is_listed, "the balancer has the new member")
            reloads = await workers(local)
            # It is not started yet: its checks fail, and whoever asks must not wait for it.
            await asyncio.sleep(2)
            state = (await local.servers())[FOURTH]
            assert not state.takes_traffic

            async def is_drained_in_a_panic() -> bool:
                return (await local.servers("smartproxy_panic"))[FOURTH].status == "DRAIN"

            # The steward decides in one beat, the balancer learns of it in another.
            await until(is_drained_in_a_panic, "the newcomer takes nothing when every check fails, either")
            assert (await lives(local))[FOURTH] == "joining"

            async with served(local, FOURTH):
                ready = await local.cli("ready", "proxy04", "--wait", "40")
                assert ready.code == 0, ready
                assert await workers(local) == reloads

                async def answers() -> bool:
                    return by_member(seen.new)[FOURTH] > 3

                await until(answers, "the new member answers clients")
                removed = await local.cli("remove", "proxy04", "--reason", "it came to go", "--wait", "40")
                assert removed.code == 0, removed
                assert f"{FOURTH} is removed and no longer in {local.cluster_file}" in removed.out
                gone = time.monotonic()
                assert local.cluster_file.read_bytes() == before

                async def is_forgotten() -> bool:
                    states = await local.runtime.servers()
                    return bool(states) and not any(s.server == FOURTH for s in states)

                await until(is_forgotten, "the balancer forgot the member")
    finally:
        local.cluster_file.write_bytes(before)
        shutil.rmtree(bundle, ignore_errors=True)
    shown("a member that comes and goes, new", seen.new)
    shown("a member that comes and goes, kept", seen.kept)
    assert [o for o in seen.new + seen.kept if not o.ok or o.resent] == []
    passed = next(s.at for s in samples if s.is_checked)
    unchecked = [s for s in samples if s.at < passed]
    say(f"new member: {len(unchecked)} looks before its checks passed, {by_member(seen.new)[FOURTH]} answers after")
    assert len(unchecked) > 20
    assert max(s.taken for s in unchecked) == 0
    its = [o for o in seen.new if o.member == FOURTH]
    assert min(o.end for o in its) > passed
    assert [o for o in its if o.start > gone] == []
    # As it was found, and what was removed stays so.
    assert (await lives(local)).keys() == set(local.names)


async def workers(local: Local) -> set[int]:
    return {p.pid for p in await local.master.processes() if p.type == "worker" and not p.is_old}


async def test_a_member_in_maintenance_is_asked_nothing_and_comes_back_without_a_lost_call(local: Local) -> None:
    name = local.names[1]
    async with load(local) as seen:
        done = await local.cli("maintenance", "proxy02", "--reason", "new disk")
        quiet_since = time.monotonic()
        assert done.code == 0, done
        assert f"{name} is in maintenance." in done.out

        async def rests() -> bool:
            states = [s for s in await local.runtime.servers() if s.server == name]
            return all(s.status.startswith("MAINT") for s in states)

        await until(rests, "every backend has it in maintenance")
        assert (await lives(local))[name] == "maintenance"
        status = await local.cli("status")
        assert f"{name}: in maintenance, by " in status.out
        assert "new disk" in status.out
        quiet_until = time.monotonic()
        again = await local.cli("ready", "proxy02")
        assert again.code == 0, again

        async def answers_again() -> bool:
            return by_member(seen.new, quiet_until)[name] > 0

        await until(answers_again, "the member answers clients again")
    shown("maintenance and back, new", seen.new)
    shown("maintenance and back, kept", seen.kept)
    assert [o for o in seen.new + seen.kept if not o.ok or o.resent] == []
    assert by_member([o for o in seen.new if o.start > quiet_since and o.end < quiet_until])[name] == 0


async def test_with_dry_run_nothing_changes(local: Local) -> None:
    before = await everything(local)
    said = [
        await local.cli(*words, "--dry-run")
        for words in (
            ("drain", "proxy02"),
            ("maintenance", "proxy02"),
            ("ready", "proxy02"),
            ("remove", "proxy02"),
            ("add", FOURTH, "--address", FOURTH_ADDRESS),
        )
    ]
    assert [s.code for s in said] == [0] * 5, said
    assert all("Nothing was changed" in s.out and "  1. " in s.out for s in said), said
    assert f"take {local.names[1]} out of {local.cluster_file}" in said[3].out
    assert f"write {FOURTH} (id 4, {FOURTH_ADDRESS})" in said[4].out or "(id 5," in said[4].out
    planned = await local.cli("maintenance", "proxy02", "--dry-run", "--json")
    assert (planned.json["dry_run"], planned.json["done"], len(planned.json["steps"])) == (True, True, 3)
    await asyncio.sleep(1.5)
    assert await everything(local) == before


async def test_what_cannot_be_done_is_refused_before_anything_changes(local: Local) -> None:
    before = await everything(local)
    said = {
        "taken": await local.cli("add", "proxy01.muster.test", "--address", "127.0.0.99"),
        "address": await local.cli("add", FOURTH, "--address", "127.0.0.12"),
        "unknown": await local.cli("remove", "proxy09"),
        "hostile": await local.cli("add", "x;y", "--address", FOURTH_ADDRESS),
    }
    assert all(s.code != 0 for s in said.values()), said
    assert "has name proxy01.muster.test already" in said["taken"].err
    assert "has address 127.0.0.12 already" in said["address"].err
    assert "no members" in said["unknown"].err
    assert await everything(local) == before


async def test_of_two_drains_at_once_that_would_leave_nobody_one_is_carried_out(local: Local) -> None:
    first, *others = ("proxy03", "proxy01", "proxy02")
    assert (await local.cli("drain", first)).code == 0
    try:
        both = await asyncio.gather(*(local.cli("drain", name) for name in others))
        assert sorted(s.code for s in both) == [0, 4], both
        refused = both[[s.code for s in both].index(4)]
        loser = others[both.index(refused)]
        assert f"{loser}.muster.test" in refused.err
        assert "nothing was changed" in refused.err
        found = await lives(local)
        assert sorted(found.values()) == ["drained", "drained", "ready"]
        assert found[f"{loser}.muster.test"] == "ready"
        # The refused wish was taken back: nothing waits to happen some day.
        status = (await local.cli("status", "--json")).json
        wishes = {m["name"]: m["said"]["wish"]["wanted"] for m in status["members"]}
        assert wishes[f"{loser}.muster.test"] == "ready"
        last = await local.cli("drain", loser)
        assert last.code == 4
        assert f"Without {loser}.muster.test there would be no ready member for anaconda, smartproxy" in last.err
        assert f"Planned was: balancers send nothing new to {loser}.muster.test" in last.err
        assert (await local.ask("/version")).status == 200
    finally:
        for said in await asyncio.gather(*(local.cli("ready", name) for name in (first, *others))):
            assert said.code == 0, said


async def test_who_served_a_connection_is_explained_on_the_balancers_host(local: Local) -> None:
    since = time.time()
    port, member = await asyncio.to_thread(called, local)

    async def explained() -> list[dict[str, Any]]:
        said = await local.cli("explain", f"127.0.0.1:{port}", "--json")
        assert said.code == 0, said
        # An earlier test's connection may have had the same port. HAProxy counts milliseconds.
        return [c for c in said.json if c["at"] >= since - 0.01]

    (told,) = await until(explained, "the connection is on record")
    assert (told["server"], told["client"], told["port"]) == (member, "127.0.0.1", port)
    assert (told["service"], told["failed"], told["redispatched"]) == ("smartproxy", False, False)
    text = await local.cli("explain", "127.0.0.1", "--most", "5")
    assert f"127.0.0.1:{port} smartproxy → {member}: " in text.out
    nobody = await local.cli("explain", "192.0.2.99")
    assert nobody.code == 0
    assert nobody.out.startswith("No finished connection of 192.0.2.99 is on record. ")
    assert "muster explain --boot 192.0.2.99" in nobody.out
    hostile = await local.cli("explain", "127.0.0.1; rm")
    assert hostile.code != 0
    assert "is neither a hardware address, a host's name nor an address" in hostile.err


def called(local: Local) -> tuple[int, str]:
    """Make one call; return the port it came from and the member that answered."""
    target = local.target()
    context = tls_context(target)
    assert context is not None
    with socket.create_connection((target.host, target.port), 10.0) as raw:
        port: int = raw.getsockname()[1]
        connection = HTTPSConnection(target.server_name, target.port, timeout=10.0)
        connection.sock = context.wrap_socket(raw, server_hostname=target.server_name)
        with contextlib.closing(connection):
            connection.request("GET", READY, headers={"Host": target.server_name, "Connection": "close"})
            answer = json.loads(connection.getresponse().read())
    return port, str(answer["member"])
