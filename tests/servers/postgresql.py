"""A throw-away PostgreSQL: its own directory, a free port of 127.0.0.1, gone with the block."""

from __future__ import annotations

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from tests.servers import available, schemas

PASSWORD = "not-for-messages"
_USER = "muster"
_START_LIMIT_S = 60.0


class PostgreSQL:
    """A server that can be stopped, started again and paused; databases are made on demand."""

    def __init__(self, directory: Path, binaries: Path) -> None:
        self.directory = directory
        self._binaries = binaries
        account = _account()
        self._user = account[0] if account else None
        self._group = account[1] if account else None
        self._process: subprocess.Popen[bytes] | None = None
        self._numbers = itertools.count(1)
        self._schema: str | None = None
        self.port = _free_port()

    def create_standby_of(self, primary: PostgreSQL) -> None:
        """Copy a running server whole; started, this one follows it until it is promoted."""
        if self._user is not None and self._group is not None:
            shutil.chown(self.directory, self._user, self._group)
        self._run("pg_basebackup", f"--pgdata={self.directory / 'data'}", "--write-recovery-conf", "--no-sync",
                  "--checkpoint=fast", f"--dbname={primary.url('postgres')}", password=PASSWORD)  # fmt: skip

    def promote(self) -> None:
        """Return when the standby takes writes."""
        self._run("pg_ctl", "promote", f"--pgdata={self.directory / 'data'}", "--wait")

    def create(self) -> None:
        """Make the empty cluster of databases."""
        password_file = self.directory / "password"
        password_file.write_text(PASSWORD)
        if self._user is not None and self._group is not None:
            for path in (self.directory, password_file):
                shutil.chown(path, self._user, self._group)
        self._run("initdb", f"--pgdata={self.directory / 'data'}", f"--username={_USER}", f"--pwfile={password_file}",
                  "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")  # fmt: skip

    def save(self, to: Path) -> None:
        """Copy the stopped server's databases to a directory that is not there yet."""
        part = to.with_name(f"{to.name}.part")
        _copy(self.directory / "data", part)
        part.rename(to)

    def copy(self, saved: Path) -> None:
        """Make the databases by copying those that were saved."""
        if self._user is not None and self._group is not None:
            shutil.chown(self.directory, self._user, self._group)
        _copy(saved, self.directory / "data")

    def start(self, **more: str) -> None:
        """Return when the server has answered a query; ``more`` are settings of this run."""
        settings: dict[str, object] = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.directory,
            "fsync": "off",
            # Of hundreds of databases it would look into one every tenth of a second.
            "autovacuum": "off",
            "wal_init_zero": "off",
            "full_page_writes": "off",
            "max_connections": 100,
            "shared_buffers": "16MB",
            **more,
        }
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._binaries / "postgres",
                    "-D",
                    self.directory / "data",
                    *itertools.chain.from_iterable(("-c", f"{name}={value}") for name, value in settings.items()),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self._user,
                group=self._group,
            )
        self._wait_until_it_answers(self._process)

    def stop(self) -> None:
        """End the server at once, as `pg_ctl stop -m fast` does: open sessions are cut off."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(30)

    @property
    def pid(self) -> int:
        """The process id of the server, of which all others of it descend."""
        assert self._process is not None, "it is stopped"
        return self._process.pid

    def give(self, file: Path) -> None:
        """Let the server's account, and nobody else, read a file."""
        file.chmod(0o600)
        if self._user is not None and self._group is not None:
            shutil.chown(file, self._user, self._group)

    def kill(self) -> None:
        """End the server as a crash does: nothing is written any more, nobody is told."""
        process, self._process = self._process, None
        if process is not None:
            # The postmaster's children end with SIGQUIT; one killed alone would leave them.
            process.send_signal(signal.SIGQUIT)
            process.wait(30)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Hold every process of the server still: connections stay open and nobody answers."""
        assert self._process is not None
        held: list[int] = []
        # The postmaster first, so that it starts no more children.
        for pid in itertools.chain([self._process.pid], _children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                held.append(pid)
        try:
            yield
        finally:
            for pid in held:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def fresh_database(self) -> str:
        """Make an empty database and return its URL, password included."""
        return self._copied("template1")

    def fresh_store(self) -> str:
        """Make a database that has the schema of now and nothing in it; return its URL, password included."""
        if self._schema is None:
            url = self.fresh_database()
            schemas.prepare(url)
            self._schema = url.rpartition("/")[2]
        return self._copied(self._schema)

    def _copied(self, template: str) -> str:
        name = f"fresh_{next(self._numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            # By the other way all that is in it goes through the log, which costs six times as much.
            strategy = " STRATEGY FILE_COPY" if connection.info.server_version >= 150000 else ""
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}{strategy}".encode())
        return self.url(name)

    def parameters(self, database: str) -> dict[str, str]:
        """Return what a database's URL says, by Django's names."""
        return {"NAME": database, "USER": _USER, "PASSWORD": PASSWORD, "HOST": "127.0.0.1", "PORT": str(self.port)}

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://{_USER}:{password}@127.0.0.1:{self.port}/{database}"

    def _run(self, program: str, *arguments: str, password: str = "") -> None:
        try:
            subprocess.run(
                [self._binaries / program, *arguments],
                check=True,
                capture_output=True,
                timeout=_START_LIMIT_S,
                env={**os.environ, "PGPASSWORD": password} if password else None,
                user=self._user,
                group=self._group,
            )
        except subprocess.CalledProcessError as e:
            raise RuntimeError(f"{program} failed: {e.stderr.decode(errors='replace')[-2000:]}") from e

    def _wait_until_it_answers(self, process: subprocess.Popen[bytes]) -> None:
        limit = time.monotonic() + _START_LIMIT_S
        while True:
            try:
                with psycopg.connect(self.url("postgres"), connect_timeout=2) as connection:
                    connection.execute("SELECT 1")
                return
            except psycopg.OperationalError as e:
                if process.poll() is not None or time.monotonic() > limit:
                    log = (self.directory / "log").read_text(errors="replace")[-2000:]
                    raise RuntimeError(f"PostgreSQL did not start: {e}\n{log}") from e
                time.sleep(0.05)


@contextlib.contextmanager
def running() -> Iterator[PostgreSQL]:
    """Hold a server running; ask ``needs("postgresql")`` first."""
    with housed() as server:
        server.create()
        server.start()
        yield server


@contextlib.contextmanager
def replicated() -> Iterator[tuple[PostgreSQL, PostgreSQL]]:
    """Hold a primary and its standby running; the primary acknowledges what the standby has on disk."""
    with housed() as primary, housed() as standby:
        primary.create()
        primary.start()
        standby.create_standby_of(primary)
        standby.start()
        with psycopg.connect(primary.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            limit = time.monotonic() + _START_LIMIT_S
            while not connection.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone():
                assert time.monotonic() < limit, "the standby does not follow"
                time.sleep(0.05)
        yield primary, standby


@contextlib.contextmanager
def housed() -> Iterator[PostgreSQL]:
    """Give a server that has no databases yet a directory of its own; what runs is stopped with the block."""
    binaries = available.postgresql_binaries()
    assert binaries is not None
    # Not pytest's directory: that belongs to root alone, and PostgreSQL refuses to run as root.
    directory = Path(tempfile.mkdtemp(prefix="muster-pg-"))
    server = PostgreSQL(directory, binaries)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _copy(directory: Path, to: Path) -> None:
    # With its owners, which nothing of Python's keeps.
    subprocess.run(["cp", "--archive", "--reflink=auto", directory, to], check=True, timeout=_START_LIMIT_S)


def _account() -> tuple[int, int] | None:
    """The user and group the server runs as, None for our own."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            found = pwd.getpwnam(name)
            return found.pw_uid, found.pw_gid
    raise RuntimeError("neither user postgres nor user nobody exists, and PostgreSQL does not run as root")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
