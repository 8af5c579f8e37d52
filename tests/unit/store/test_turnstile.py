"""Writers of several processes take turns, and nobody's write depends on it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from muster.store.turnstile import Turnstile

# Longer than anything here takes: a test that hangs is ended by it.
_LONG_S = 30.0

_HOLDER = """
import sys
from pathlib import Path
from muster.store.turnstile import Turnstile
print(Turnstile(Path(sys.argv[1])).enter(30), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def unwritable(tmp_path: Path) -> Path:
    """A database whose side files cannot be opened, whoever asks."""
    database = tmp_path / "store.db"
    for name in ("store.db-next", "store.db-turn"):
        (tmp_path / name).mkdir()
    return database


def test_one_at_a_time_has_the_turn(database: Path) -> None:
    one, other = Turnstile(database), Turnstile(database)
    assert one.enter(_LONG_S)
    assert not other.enter(0)
    one.leave()
    assert other.enter(_LONG_S)
    assert not one.enter(0)
    other.close()
    assert one.enter(_LONG_S)
    one.close()


def test_whoever_gave_up_is_in_nobodys_way(database: Path) -> None:
    holder, gone, waiter = (Turnstile(database) for _ in range(3))
    assert holder.enter(_LONG_S)
    assert not gone.enter(0)
    holder.leave()
    assert waiter.enter(_LONG_S)


def test_who_waits_comes_before_who_just_had_it(database: Path) -> None:
    greedy, waiter = Turnstile(database), Turnstile(database)
    came: list[str] = []

    def wait() -> None:
        assert waiter.enter(_LONG_S)
        came.append("waiter")
        waiter.leave()

    assert greedy.enter(_LONG_S)
    thread = threading.Thread(target=wait)
    thread.start()
    while _is_free(database.with_name("store.db-next")):
        pass
    greedy.leave()
    assert greedy.enter(_LONG_S)
    came.append("greedy")
    thread.join()
    assert came == ["waiter", "greedy"]


def test_the_turn_of_a_process_that_was_killed_is_free(database: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        mine = Turnstile(database)
        assert not mine.enter(0)
        holder.kill()
        holder.wait()
        assert mine.enter(_LONG_S)


def test_without_its_files_there_is_nothing_to_wait_for(unwritable: Path) -> None:
    turnstile = Turnstile(unwritable)
    assert not turnstile.enter(_LONG_S)
    turnstile.leave()
    turnstile.close()


def test_no_link_is_followed(database: Path) -> None:
    elsewhere = database.with_name("elsewhere")
    elsewhere.write_text("mine")
    database.with_name("store.db-turn").symlink_to(elsewhere)
    assert not Turnstile(database).enter(_LONG_S)
    database.with_name("store.db-turn").unlink()
    database.with_name("store.db-turn").symlink_to(database.with_name("made"))
    assert not Turnstile(database).enter(_LONG_S)
    assert not database.with_name("made").exists()
    assert elsewhere.read_text() == "mine"


def test_its_files_are_its_owners_alone_and_closed_with_it(database: Path) -> None:
    before = _descriptors()
    turnstile = Turnstile(database)
    assert _descriptors() == before
    assert turnstile.enter(_LONG_S)
    assert {p.name: p.stat().st_mode & 0o777 for p in database.parent.iterdir()} == {
        "store.db-next": 0o600,
        "store.db-turn": 0o600,
    }
    turnstile.close()
    turnstile.close()
    assert _descriptors() == before
    # A connection that was closed asks for no turn; were it to, there would be none.
    assert not turnstile.enter(0)


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _is_free(file: Path) -> bool:
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


async def started(script: str, database: Path, who: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(database), who)


def written(database: Path) -> dict[str, int]:
    with contextlib.closing(sqlite3.connect(database)) as plain:
        return dict(plain.execute("SELECT who, count(*) FROM written GROUP BY who").fetchall())


async def until(process: asyncio.subprocess.Process) -> int:
    async with asyncio.timeout(_LONG_S):
        return await process.wait()


_OLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous=FULL")
for _ in range(20):
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO written VALUES ('older')")
    connection.execute("COMMIT")
"""

_NEWER = """
import sqlite3, sys
from pathlib import Path
from muster.store.turnstile import Turnstile
connection = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
connection.execute("PRAGMA synchronous=FULL")
turnstile = Turnstile(Path(sys.argv[1]))
while connection.execute("SELECT count(*) FROM written WHERE who = 'older'").fetchone()[0] < 20:
    turnstile.enter(30)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO written VALUES (?)", (sys.argv[2],))
    connection.execute("COMMIT")
    turnstile.leave()
"""


@pytest.mark.anyio
async def test_an_older_member_that_knows_no_turnstile_is_not_starved(database: Path) -> None:
    with contextlib.closing(sqlite3.connect(database)) as plain:
        plain.execute("PRAGMA journal_mode=WAL")
        plain.execute("CREATE TABLE written (who TEXT)")
    processes = [await started(_NEWER, database, who) for who in ("one", "two")]
    async with asyncio.timeout(_LONG_S):
        while len(written(database)) < 2:
            await asyncio.sleep(0.01)
    processes.append(await started(_OLDER, database, "older"))
    try:
        assert [await until(p) for p in processes] == [0, 0, 0]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert written(database)["older"] == 20
