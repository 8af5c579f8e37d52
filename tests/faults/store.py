"""The store away, a lease's holder paused, a member's clock wrong: rows 16 to 18."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
from bench.load import by_member
from sqlalchemy import select

from muster.cluster.minutes import ROLE as STEWARD
from muster.cluster.minutes import minutes
from muster.kernel.errors import Conflict
from muster.kernel.secrets import Secret
from muster.store.engine import opened
from muster.store.leases import Lease, Leases
from muster.store.tables import log_records
from tests.e2e.test_doctor_and_status_find_it import findings, stopped
from tests.e2e.test_the_store_fails import complains, serves_without_store
from tests.faults.fault import Outcome, moment
from tests.servers import local as clusters
from tests.servers import postgresql
from tests.servers.local import Local, environment, load, until

_TTL_S = 2.0
_STEWARD_TTL_S = 5.0
_SKEW_S = 600
_ROLE = "fault-matrix"


async def away(_: Local, chance: random.Random, *, for_s: float) -> Outcome:
    """Stop PostgreSQL under a running cluster for so long."""
    outcome = Outcome()
    with postgresql.running() as server, clusters.running(members=2, store_url=server.fresh_database()) as local:
        await until(local.is_steady, "every member is ready and up")
        pids = [local.pid_of(name) for name in local.names]
        async with load(local) as seen:
            await moment(chance)
            outcome.fault_at = time.monotonic()
            await asyncio.to_thread(server.stop)
            try:
                await complains(local)
                await serves_without_store(local, chance.randrange(1000))
                found = (await findings(local))[1]
                codes = {f["code"] for f in found if f["remedy"]}
                outcome.promise("STORE-DOWN" in codes, f"doctor does not name the store, but {codes}")
                await asyncio.sleep(max(0.0, for_s - (time.monotonic() - outcome.fault_at)))
            finally:
                await asyncio.to_thread(server.start)
            back_at = time.monotonic()
            await until(local.is_steady, "every member reports again")
            outcome.measured["away_s"] = round(back_at - outcome.fault_at, 1)
            outcome.measured["reporting_again_s"] = round(time.monotonic() - back_at, 2)
        outcome.promise([local.pid_of(n) for n in local.names] == pids, "a member was restarted")
    outcome.operations = seen.new + seen.kept
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


class Contender:
    """A process that contends for the lease; its events are read in order."""

    def __init__(self, process: asyncio.subprocess.Process, holder: str) -> None:
        self.process = process
        self.holder = holder

    async def says(self, *wanted: str) -> dict[str, Any]:
        """Return its next event of a wanted kind."""
        assert self.process.stdout is not None
        async with asyncio.timeout(clusters.PATIENCE_S):
            while line := await self.process.stdout.readline():
                event: dict[str, Any] = json.loads(line)
                if event["event"] in wanted:
                    return event
        raise AssertionError(f"{self.holder} ended without saying {wanted}")

    async def writes(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(b"write\n")
        await self.process.stdin.drain()
        return await self.says("wrote", "refused")


@contextlib.asynccontextmanager
async def contending(url: str, holder: str, ttl_s: float, *, under: Sequence[str] = ()) -> AsyncIterator[Contender]:
    process = await asyncio.create_subprocess_exec(
        *under, sys.executable, "-m", "tests.faults.contender", url, _ROLE, holder, str(ttl_s),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True,
        env={**environment(), "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )  # fmt: skip
    try:
        yield Contender(process, holder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def holder_paused(local: Local, chance: random.Random) -> Outcome:
    """Stop the process that holds a lease, let another take it over, and let the first one go on.

    Once with processes made for it, which write with the lease they had when they are told to; once with the one that is the
    cluster's steward.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="muster-fault-") as directory, postgresql.running() as server:
        urls = (f"sqlite:///{directory}/store.db", server.fresh_database())
        # Side by side, for they mostly wait; with numbers of their own, whoever is first.
        made = [_holder_paused(outcome, url, random.Random(chance.random())) for url in urls]
        await asyncio.gather(*made, _steward_paused(outcome, local))
    return outcome


async def _steward_paused(outcome: Outcome, local: Local) -> None:
    file = local.directory / "store.db"
    async with opened(Secret(f"sqlite:///{file}"), migrate=False) as store:
        leases = Leases(store)
        was = await until(lambda: leases.held(STEWARD), "somebody is steward")
        assert was is not None
        pid = int(was.holder.rpartition(" ")[2].partition(".")[0])
        outcome.measured["steward"] = was.holder.rpartition(" ")[0]
        paused_at = await paused_between_writes(pid, file)
        try:

            async def another() -> Lease | None:
                now = await leases.held(STEWARD)
                return now if now is not None and now.holder != was.holder else None

            now = await until(another, "another process is steward")
            assert now is not None
            outcome.promise_within("steward_taken_over_s", time.monotonic() - paused_at, _STEWARD_TTL_S)
            outcome.promise(now.epoch == was.epoch + 1, f"the steward's epoch {was.epoch} became {now.epoch}")

            async def speaks() -> bool:
                return (await minutes(store)).by == now.holder

            await until(speaks, "what the new steward decides stands in the store")
        finally:
            os.kill(pid, signal.SIGCONT)
        try:
            async with store.write() as uow:
                await leases.fence(uow, was)
            refusal = ""
        except Conflict as e:
            refusal = str(e)
        outcome.promise(now.holder in refusal, f"a write in the name of {was.holder} is not refused: {refusal!r}")
        await until(local.is_steady, "the process that was paused reports again")
        last = await leases.held(STEWARD)
        outcome.promise(
            last is not None and (last.holder, last.epoch) == (now.holder, now.epoch),
            f"{was.holder} went on, and then {last} was steward instead of {now}",
        )
        by = (await minutes(store)).by
        outcome.promise(by == now.holder, f"{was.holder} went on, and then {by} had the last word")


async def paused_between_writes(pid: int, store: Path) -> float:
    """Stop a process while it does not write, and return when: it would take SQLite's only write lock with it."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        at = time.monotonic()
        try:
            with contextlib.closing(sqlite3.connect(store, timeout=1.0, isolation_level=None)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            return at
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.1)


async def _holder_paused(outcome: Outcome, url: str, chance: random.Random) -> None:
    where = url.partition(":")[0]
    first, second = chance.sample(["proxy01", "proxy02", "proxy03"], 2)
    async with contending(url, first, _TTL_S) as old:
        was = await old.says("acquired")
        outcome.promise((await old.writes())["event"] == "wrote", f"{where}: the holder's write was refused")
        async with contending(url, second, _TTL_S) as new:
            # Right after a renewal: in the middle of one, it would take SQLite's only write lock with it.
            for _ in range(chance.randrange(1, 3)):
                await old.says("renewed")
            paused_at = time.monotonic()
            os.kill(old.process.pid, signal.SIGSTOP)
            try:
                now = await new.says("acquired")
                outcome.promise_within(f"taken_over_{where}_s", time.monotonic() - paused_at, _TTL_S)
                outcome.promise(
                    now["epoch"] == was["epoch"] + 1, f"{where}: epoch {was['epoch']} became {now['epoch']}"
                )
                outcome.promise(
                    (await new.writes())["event"] == "wrote", f"{where}: the new holder's write was refused"
                )
            finally:
                os.kill(old.process.pid, signal.SIGCONT)
            late = await old.writes()
            outcome.promise(late.get("kind") == "Conflict", f"{where}: the old holder's write ended as {late}")
            outcome.promise(second in late.get("why", ""), f"{where}: the refusal does not name {second}: {late}")
    async with opened(Secret(url)) as store, store.read() as uow:
        written = (
            (await uow.connection.execute(select(log_records.c.member).order_by(log_records.c.id))).scalars().all()
        )
    outcome.promise(list(written) == [first, second], f"{where}: written were {written}")


async def clock_skewed(_: Local, chance: random.Random) -> Outcome:
    """Run a member ten minutes before or after the others, on a store with a clock of its own."""
    outcome = Outcome()
    skew = f"{chance.choice('+-')}{_SKEW_S}s"
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muster-fault-")))
        server, _made = await asyncio.gather(
            asyncio.to_thread(stack.enter_context, postgresql.running()),
            asyncio.to_thread(make_older_certificates, directory),
        )
        url = server.fresh_database()
        local = stack.enter_context(clusters.running(members=2, store_url=url, directory=directory))
        name = chance.choice(local.names)
        # No client is there yet, so nobody has to be let finish.
        async with stopped(local, local.pid_of(name), signal.SIGKILL):
            outcome.fault_at = time.monotonic()
            with serving_at(local, name, skew):
                await until(local.is_steady, "the member with the wrong clock serves, reports and is up")
                async with load(local) as seen:
                    await _look(outcome, local, name, url, skew)
    outcome.operations = seen.new + seen.kept
    answered = by_member(seen.new)[name]
    outcome.measured |= {"skew": skew, "answered_there": answered}
    outcome.promise(answered > 0, f"{name} answered no client")
    outcome.promise_no_failure(outcome.operations, "clients")
    return outcome


async def _look(outcome: Outcome, local: Local, name: str, url: str, skew: str) -> None:
    ages = []
    for _ in range(2):
        status = (await local.cli("status", "--json")).json
        ages += [m["said"]["age_s"] for m in status["members"] if m["name"] == name]
        silent = [m["name"] for m in status["members"] if m["said"]["silent"]]
        outcome.promise(not silent, f"{silent} count as silent")
    outcome.measured["oldest_report_s"] = max(ages)
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT extract(epoch FROM clock_timestamp()) - started_at FROM members WHERE name = %s", [name]
        ).fetchone()
        assert row is not None
        outcome.promise(0 <= row[0] < 300, f"the store says that {name} started {row[0]:.0f} s ago")

        ttl_s = 20.0
        async with contending(url, name, ttl_s, under=("faketime", "-f", skew)) as contender:
            await contender.says("acquired")
            row = connection.execute(
                "SELECT expires_at - extract(epoch FROM clock_timestamp()) FROM leases WHERE name = %s", [_ROLE]
            ).fetchone()
            assert row is not None
            outcome.measured["lease_left_s"] = round(float(row[0]), 1)
            outcome.promise(0 < row[0] <= ttl_s, f"a lease of {ttl_s:g} s taken there has {row[0]:.0f} s left")
    _, found, _ = await findings(local)
    about = [f for f in found if f["code"] == "CLOCK-OFF"]
    outcome.promise([f["place"] for f in about] == [name], f"doctor names the clock of {[f['place'] for f in about]}")
    direction = "ahead of" if skew.startswith("+") else "behind"
    outcome.promise(
        any(direction in f["sentence"] and f["severity"] == "error" and f["remedy"] for f in about),
        f"doctor does not say that it is far {direction} this host's: {about}",
    )


def make_older_certificates(directory: Path) -> None:
    """Make the cluster's certificates a day ago: fresh ones are not valid yet for whoever is ten minutes behind."""
    program = (
        "import pathlib, sys; from muster.cli.local.files import prepare; from muster.cli.local.plan import planned;"
        "prepare(planned(pathlib.Path(sys.argv[1]), members=2))"
    )
    command = ["faketime", "-f", "-1d", sys.executable, "-c", program, str(directory)]
    subprocess.run(command, check=True, capture_output=True, timeout=60, env=environment())


@contextlib.contextmanager
def serving_at(local: Local, name: str, skew: str) -> Iterator[None]:
    """Run the member under a clock that is off; its monotonic clock is right, as it is on a host with the wrong date."""
    log = (local.directory / "log" / f"{name.split('.')[0]}.log").open("ab")
    shared = ["--cluster", str(local.cluster_file), "--pki", str(local.pki), "--member", name]
    process = subprocess.Popen(
        ["faketime", "-f", skew, sys.executable, "-m", "muster", "serve", *shared],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
        env={**environment(), "FAKETIME_DONT_FAKE_MONOTONIC": "1"},
    )
    try:
        yield
    finally:
        log.close()
        # Its clients are gone, so it needs no time to drain.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
