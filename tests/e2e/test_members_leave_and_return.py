"""Members that are killed, drained and stopped while clients are at work."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import time

import pytest
from bench.load import by_member

from tests.servers.local import Local, load, say, shown, until

pytestmark = pytest.mark.anyio


async def taken(local: Local, member: str) -> bool:
    return (await local.servers())[member].status == "UP"


async def test_of_a_killed_member_no_later_connection_fails_and_it_returns(local: Local) -> None:
    victim = local.names[2]
    pid = local.pid_of(victim)
    assert pid is not None
    async with load(local, kept=0, before_s=2.0) as seen:
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()

        async def is_out() -> bool:
            return not (await local.servers())[victim].takes_traffic

        await until(is_out, "the killed member is out of the balancer")
        say(f"killed member: out of the balancer after {time.monotonic() - killed:.2f} s")

        async def answers_again() -> bool:
            return by_member(seen.new, killed + 1.0)[victim] > 0

        await until(answers_again, "the killed member answers clients again")
    shown("kill -9 of a member, new", seen.new, killed)
    assert local.pid_of(victim) not in (None, pid)
    assert by_member([o for o in seen.new if o.start < killed])[victim] > 0
    assert [o for o in seen.new if not o.ok and o.start > killed + 0.5] == []
    assert [o for o in seen.new if not o.ok and o.end < killed] == []
    assert f"{victim} ended with signal SIGKILL" in (local.directory / "log" / "up.log").read_text()


async def test_a_drain_loses_no_call_and_says_its_reason_everywhere(local: Local) -> None:
    name = local.names[1]
    async with load(local) as seen:
        drained = await local.cli("drain", "proxy02", "--reason", "new memory")
        quiet_since = time.monotonic()
        assert drained.code == 0, drained
        assert "no balancer has a connection to it" in drained.out

        status = await local.cli("status", "--json")
        text = await local.cli("status")
        doctor = await local.cli("doctor", "--json")
        balancer = (await local.servers())[name]
        quiet_until = time.monotonic()

        again = await local.cli("ready", "proxy02")
        admitted = [(await local.servers(s))[name].status for s in ("smartproxy", "anaconda")]
        assert again.code == 0, again

        async def answers_again() -> bool:
            return by_member(seen.new, quiet_until)[name] > 0

        await until(answers_again, "the member answers clients again")
    shown("drain and ready, new", seen.new)
    shown("drain and ready, kept", seen.kept)
    assert [o for o in seen.new + seen.kept if not o.ok or o.resent] == []
    assert by_member([o for o in seen.new if quiet_since < o.start and o.end < quiet_until])[name] == 0
    # Planned: everything serves, and the two commands that monitoring asks agree about it.
    assert (status.code, doctor.code) == (0, 0), doctor
    assert [m["stands"] for m in status.json["members"]] == ["ready", "drained", "ready"]
    # Whoever is told that it is ready may send clients.
    assert admitted == ["UP", "UP"]
    answer = next(
        a for s in status.json["services"] if s["name"] == "smartproxy" for a in s["members"] if a["member"] == name
    )
    assert (answer["state"], answer["reason"]) == ("draining", f"drained by {getpass.getuser()}: new memory")
    assert f"{name}: drained, by {getpass.getuser()}: new memory\n" in text.out
    assert text.out.count("new memory") == 1
    assert balancer.status.startswith(("NOLB", "DRAIN"))


async def test_a_drained_member_stays_drained_over_its_restart(local: Local) -> None:
    name = local.names[1]
    assert (await local.cli("drain", "proxy02", "--reason", "over a restart")).code == 0
    pid = local.pid_of(name)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    try:

        async def drained_again() -> bool:
            try:
                answer = await local.ask("/health/ready", name)
            except OSError:
                return False
            return answer.status == 404 and local.pid_of(name) != pid

        await until(drained_again, "the restarted member drains again")
    finally:
        assert (await local.cli("ready", "proxy02")).code == 0


async def test_the_last_ready_member_is_not_drained(local: Local) -> None:
    others = ("proxy01", "proxy02")
    for said in await asyncio.gather(*(local.cli("drain", name) for name in others)):
        assert said.code == 0, said
    try:
        refused = await local.cli("drain", "proxy03")
        assert refused.code == 4
        assert "Without proxy03.muster.test there would be no ready member for anaconda, smartproxy" in refused.err
        assert (await local.ask("/health/ready", local.names[2])).status == 200
        assert (await local.ask("/version")).status == 200
    finally:
        for said in await asyncio.gather(*(local.cli("ready", name) for name in others)):
            assert said.code == 0, said


async def test_a_member_that_is_asked_to_stop_finishes_and_fails_nobody(local: Local) -> None:
    name = local.names[0]
    pid = local.pid_of(name)
    assert pid is not None
    async with load(local) as seen:
        os.kill(pid, signal.SIGTERM)
        asked = time.monotonic()

        async def is_replaced() -> bool:
            return local.pid_of(name) not in (None, pid) and await taken(local, name)

        await until(is_replaced, "another process serves as this member")
    shown("SIGTERM of a member, new", seen.new)
    shown("SIGTERM of a member, kept", seen.kept)
    assert by_member([o for o in seen.new if o.start < asked])[name] > 0
    assert [o for o in seen.new + seen.kept if not o.ok or o.resent] == []
    assert f"{name} ended with exit code 0" in (local.directory / "log" / "up.log").read_text()
