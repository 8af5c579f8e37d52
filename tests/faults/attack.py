"""Those who mean no good: rows 22 and up. Each says what it cost a member, and whether others noticed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.load import Operation
from cryptography.hazmat.primitives.asymmetric import ec

from muster.cli.local.plan import ADDRESS, PUPPET_ADMIN
from tests.faults import enrolling
from tests.faults.fault import NOISE, Outcome, p99_ms
from tests.servers import local as clusters
from tests.servers.local import Load, Local, load, until

_ROUND_S = 4.0
_CONNECTIONS = 256
_MOST_MIB = 64.0
_MOST_TIMES = 1.5
_REFUSED = 1500
_COMMANDS = 3
# Refusals are measured by source: who was refused in one row is not heard of in the next one.
_SOURCE, _OTHER_SOURCE, _REFUSED_SOURCE = "127.0.0.200", "127.0.0.201", "127.0.0.202"
_REQUESTS = 300
_PER_SOURCE = 200


def rss_mib(pid: int) -> float:
    """Return what a process holds in memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


@asynccontextmanager
async def watched(pid: int, seen: list[float]) -> AsyncIterator[None]:
    """Look at a process' memory during the block."""

    async def look() -> None:
        while True:
            with contextlib.suppress(OSError):
                seen.append(rss_mib(pid))
            await asyncio.sleep(0.1)

    task = asyncio.create_task(look())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def program(*arguments: str) -> int:
    """Run a module of the tests in a process of its own: its work must not look like a member's."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


def within(operations: list[Operation], spans: list[tuple[float, float]]) -> list[Operation]:
    return [o for o in operations if any(begin <= o.due and o.end <= end for begin, end in spans)]


@asynccontextmanager
async def sink(local: Local, name: str) -> AsyncIterator[int]:
    """Hold a server running that shakes hands as the member does and keeps nothing; yields its port."""
    host = local.target(member=name).host
    with socket.socket() as s:
        s.bind((host, 0))
        port: int = s.getsockname()[1]
    bundle = local.pki / "members" / name
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.hostile", host, str(port),
        "--sink", str(bundle / "cert.pem"), str(bundle / "key.pem"),
    )  # fmt: skip

    async def listens() -> bool:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
        return False

    try:
        await until(listens, "the sink listens")
        yield port
    finally:
        process.kill()
        await process.wait()


def judge_others(
    outcome: Outcome,
    seen: Load,
    before: list[tuple[float, float]],
    loud: list[tuple[float, float]],
    word: str = "quiet",
) -> None:
    """Compare what others saw in alternating rounds."""
    outcome.operations = seen.new + seen.kept
    was, became = p99_ms(within(seen.new, before)), p99_ms(within(seen.new, loud))
    outcome.measured |= {f"p99_{word}_ms": round(was, 1), "p99_attacked_ms": round(became, 1)}
    outcome.promise_no_failure(outcome.operations, "the others")
    if not became <= NOISE * _MOST_TIMES * was:
        outcome.late.append(f"others' p99 was {was:.0f} ms and became {became:.0f} ms, promised {_MOST_TIMES:g} times")


async def hostile_connections(local: Local, chance: random.Random, *, rounds: int) -> Outcome:
    """256 connections of one address, straight to a member: they send much, read nothing, or stop half-way.

    So many rounds, of which the last one is without TLS.
    """
    outcome = Outcome()
    name = chance.choice(local.names)
    pid, target = local.pid_of(name), local.target(member=name)
    assert pid is not None
    memory: list[float] = []
    quiet: list[tuple[float, float]] = []
    elsewhere: list[tuple[float, float]] = []
    loud: list[tuple[float, float]] = []

    async def attacked(port: int, spans: list[tuple[float, float]], *more: str) -> None:
        begin = time.monotonic()
        await program(
            "tests.faults.hostile", target.host, str(port), "--source", _SOURCE,
            "--connections", str(_CONNECTIONS), "--seconds", str(_ROUND_S), *more,
        )  # fmt: skip
        spans.append((begin, time.monotonic()))

    async with sink(local, name) as nobody, load(local, before_s=2.0) as seen:
        before = rss_mib(pid)
        async with watched(pid, memory):
            for number in range(rounds):
                begin = time.monotonic()
                await asyncio.sleep(_ROUND_S)
                quiet.append((begin, time.monotonic()))
                # The attackers' own work takes its share of this machine, too.
                await attacked(nobody, elsewhere)
                plain = number == rounds - 1
                await attacked(local.ports["anaconda"] if plain else target.port, loud, *(["--plain"] if plain else []))
    cost = max(memory) - before
    outcome.measured |= {"cost_mib": round(cost, 1), "left_mib": round(rss_mib(pid) - before, 1)}
    outcome.promise(
        cost < _MOST_MIB, f"{_CONNECTIONS} connections cost a member {cost:.0f} MiB, promised {_MOST_MIB:g}"
    )
    outcome.promise(local.pid_of(name) == pid, f"{name} was started anew")
    outcome.measured["p99_quiet_ms"] = round(p99_ms(within(seen.new, quiet)), 1)
    judge_others(outcome, seen, elsewhere, loud, "elsewhere")
    return outcome


async def refused_calls(local: Local, chance: random.Random) -> Outcome:
    """Many calls without a certificate: none is answered, and no warning is pushed out of the log."""
    outcome = Outcome()
    name = chance.choice(local.names)
    pid = local.pid_of(name)
    assert pid is not None
    begin_at = time.time()
    # A trusted client's failed call, which an operator will look for.
    failed = await local.ask("/puppet/environments/none", name)
    outcome.promise(failed.status >= 400, "the call did not fail")
    before = rss_mib(pid)
    memory: list[float] = []
    quiet: list[tuple[float, float]] = []
    loud: list[tuple[float, float]] = []
    async with load(local, before_s=2.0) as seen, watched(pid, memory):
        begin = time.monotonic()
        await asyncio.sleep(_ROUND_S)
        quiet.append((begin, time.monotonic()))
        begin = time.monotonic()
        target = local.target(member=name)
        await program(
            "tests.faults.refused", target.host, str(target.port), "--source", _REFUSED_SOURCE, "--calls", str(_REFUSED)
        )
        loud.append((begin, time.monotonic()))
    outcome.measured |= {"calls": _REFUSED, "cost_mib": round(max(memory) - before, 1)}
    records = json.loads((await local.ask(f"/logs/?from_timestamp={begin_at - 1}", name)).text)["logs"]
    mine = [r for r in records if r.get("member") == name]
    refused = [r for r in mine if r["level"] == "WARN" and "client cert" in r["message"]]
    outcome.measured["refusals_logged"] = len(refused)
    outcome.promise(0 < len(refused) <= _REFUSED // 10, f"{len(refused)} of {_REFUSED} refusals stand in the log")
    warned = [r for r in mine if r["level"] in ("WARN", "ERROR") and "puppet" in r["message"]]
    outcome.promise(bool(warned), "the warning from before the flood is gone from /logs")
    judge_others(outcome, seen, quiet, loud)
    return outcome


async def another_process(local: Local, chance: random.Random) -> Outcome:
    """Processes that open and close the members' SQLite file, the balancer's connection to it gone."""
    outcome = Outcome()
    file = local.directory / "store.db"
    log = file.with_name("store.db-wal")
    async with load(local, before_s=1.0) as seen:
        pid = local.balance_pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        inode = log.stat().st_ino
        taken = 0
        for _ in range(_COMMANDS):
            said = await local.cli("status", "--json")
            outcome.promise(said.code in (0, 1), f"muster status: {said}")
            await asyncio.sleep(chance.uniform(0.1, 0.5))
            taken += not log.exists() or log.stat().st_ino != inode
        outcome.promise(taken == 0, f"the write-ahead log was taken away under the members {taken} times")
    for name in local.names:
        pid = local.pid_of(name)
        held = [str(f.readlink()) for f in Path(f"/proc/{pid}/fd").iterdir() if f.is_symlink()] if pid else []
        lost = [f for f in held if "store.db" in f and f.endswith("(deleted)")]
        outcome.promise(not lost, f"{name} holds files that are deleted: {', '.join(lost)}")
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as plain:
        (whole,) = plain.execute("PRAGMA integrity_check").fetchone()
    outcome.promise(whole == "ok", f"the store's file: {whole}")
    # A balancer that is started anew refuses connections for a moment; that is row 12's matter.
    outcome.measured["asked_meanwhile"] = len(seen.new) + len(seen.kept)
    await until(local.is_steady, "every member is ready and up again")
    return outcome


@asynccontextmanager
async def signing() -> AsyncIterator[Local]:
    """Hold a cluster of its own whose members are a Puppet CA."""
    with contextlib.ExitStack() as stack:
        opening = clusters.running(members=2, options=["--puppet-ca"], more_ports=("puppetca",))
        local = await asyncio.to_thread(stack.enter_context, opening)
        await until(local.is_steady, "every member is ready and up")
        yield local


async def request_floods(_: Local, chance: random.Random) -> Outcome:
    """More certificate requests than one source may let wait: other hosts get in all the same, and are signed."""
    outcome = Outcome()
    async with signing() as local:
        name = chance.choice(local.names)
        pid, host = local.pid_of(name), local.target(member=name).host
        assert pid is not None
        memory: list[float] = []
        quiet: list[tuple[float, float]] = []
        loud: list[tuple[float, float]] = []
        async with load(local, before_s=2.0) as seen:
            before = rss_mib(pid)
            async with watched(pid, memory):
                begin = time.monotonic()
                await asyncio.sleep(_ROUND_S)
                quiet.append((begin, time.monotonic()))
                begin = time.monotonic()
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.faults.enrolling", host, str(local.ports["puppetca"]),
                    "--source", _SOURCE, "--requests", str(_REQUESTS), stdout=asyncio.subprocess.PIPE,
                )  # fmt: skip
                out = (await process.communicate())[0]
                loud.append((begin, time.monotonic()))
        taken = json.loads(out)
        outcome.measured |= {
            "requests": _REQUESTS, "taken": taken.get("200", 0), "cost_mib": round(max(memory) - before, 1),
        }  # fmt: skip
        outcome.promise(0 < taken.get("200", 0) <= _PER_SOURCE, f"{taken} of one source, {_PER_SOURCE} may wait")
        outcome.promise(set(taken) <= {"200", "400", "503"}, f"answered {taken}")
        listed = "listed.muster.test"
        await local.ask(f"/puppet/ca/autosign/{listed}", name, method="POST")
        with enrolling.Enrolment(host, local.ports["puppetca"], _OTHER_SOURCE) as other:
            key = ec.generate_private_key(ec.SECP256R1())
            outcome.promise(other.ask("late.muster.test", key) == 200, "another host's request was refused")
            outcome.promise(other.ask(listed, key) == 200, "a listed host's request was refused")
            outcome.promise(other.certificate(listed) is not None, "a listed host was not signed")
        judge_others(outcome, seen, quiet, loud)
    return outcome


async def squatted_names(_: Local, chance: random.Random) -> Outcome:
    """Somebody is first with a host's name, and asks for the cluster's own names while a wildcard stands in the list."""
    outcome = Outcome()
    async with signing() as local:
        name = chance.choice(local.names)
        host, port = local.target(member=name).host, local.ports["puppetca"]
        mine, theirs = (ec.generate_private_key(ec.SECP256R1()) for _number in range(2))
        with (
            enrolling.Enrolment(host, port, _SOURCE) as squatter,
            enrolling.Enrolment(host, port, _OTHER_SOURCE) as owner,
        ):
            outcome.promise(squatter.ask("web01.muster.test", theirs) == 200, "the squatter was refused")
            await local.ask("/puppet/ca/autosign/web01.muster.test", name, method="POST")
            outcome.promise(owner.ask("web01.muster.test", mine) == 200, "the host with an entry was refused")
            signed = owner.certificate("web01.muster.test")
            ours = signed is not None and signed.public_key() == mine.public_key()
            outcome.promise(ours, "the host with an entry did not get its certificate")
            await local.ask("/puppet/ca/autosign/*.muster.test", name, method="POST")
            outcome.promise(squatter.ask("web02.muster.test", theirs) == 200, "a host below the wildcard was refused")
            outcome.promise(squatter.certificate("web02.muster.test") is not None, "the wildcard signs nobody")
            for reserved in (PUPPET_ADMIN, ADDRESS, *local.names):
                squatter.ask(reserved, theirs)
                given = squatter.certificate(reserved)
                # The administrator has one, of its own key.
                is_theirs = given is not None and given.public_key() == theirs.public_key()
                outcome.promise(not is_theirs, f"{reserved} was given away")
        outcome.measured["reserved_names"] = 2 + len(local.names)
    return outcome
