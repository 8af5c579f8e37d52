"""How long a backup and a restore of a large store take, beside what each database brings itself, encrypted by age."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.figures import Figure, Findings
from muster.kernel.secrets import Secret
from muster.store import copies
from muster.store.engine import opened

_CERTIFICATES = 100_000
# As large as a certificate of an agent with an RSA key of 4096 bits is in PEM.
_PEM_BYTES = 1_300


async def measured(directory: Path, *, quick: bool) -> Findings:
    """Return times of whole commands, rounds alternating with the peer's."""
    count, rounds = (_CERTIFICATES // 10, 1) if quick else (_CERTIFICATES, 3)
    findings = Findings(f"Backup and restore of {count} certificates")
    if shutil.which("age") is None:
        findings.notes.append("not measured: no age on this machine (Debian package age)")
        return findings
    said = subprocess.run(["age-keygen", "-o", directory / "key"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"age1[0-9a-z]+", said)
    assert found is not None
    host = Host(directory, found[0])
    await _on_sqlite(findings, host, count, rounds)
    await _on_postgresql(findings, host, count, rounds)
    return findings


@dataclass
class Host:
    """Where a cluster is; ``memory_mb`` is the most that a command of ours had."""

    directory: Path
    recipient: str
    memory_mb: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return str(self.directory / "key")

    def at(self, url: str, name: str) -> Path:
        """Write a cluster file."""
        file = self.directory / name / "cluster.yaml"
        (file.parent / "pki").mkdir(parents=True)
        members = [{"id": 1, "name": "proxy01.example.net", "address": "127.0.0.1"}]
        content = {
            "schema": 1, "cluster": "bench", "address": "proxy.example.net", "store": {"url": url}, "members": members,
        }  # fmt: skip
        file.write_text(yaml.safe_dump(content))
        return file

    def ours(self, *arguments: str) -> float:
        """Run a command of Muster's; return how many seconds it took."""
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "muster", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        _, status, used = os.wait4(process.pid, 0)
        taken = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, arguments
        self.memory_mb[arguments[0]] = max(self.memory_mb.get(arguments[0], 0.0), used.ru_maxrss * 1024 / 1e6)
        return taken


def _peer(*programs: Sequence[str], environment: dict[str, str] | None = None) -> float:
    """Run programs one into the other; return how many seconds they took."""
    begun = time.perf_counter()
    running: list[subprocess.Popen[bytes]] = []
    for program in programs:
        into = running[-1].stdout if running else subprocess.DEVNULL
        is_last = len(running) == len(programs) - 1
        out = subprocess.DEVNULL if is_last else subprocess.PIPE
        running.append(subprocess.Popen(program, stdin=into, stdout=out, env={**os.environ, **(environment or {})}))
    assert all(one.wait() == 0 for one in running), programs
    return time.perf_counter() - begun


async def _filled(url: str, count: int) -> None:
    async with opened(Secret(url)) as store:
        await store.prepare()
        for start in range(0, count, 10_000):
            rows: list[dict[str, Any]] = []
            for n in range(start, min(start + 10_000, count)):
                pem = base64.encodebytes(os.urandom(_PEM_BYTES)).decode()
                rows.append(
                    {
                        "serial": f"{os.urandom(20).hex().upper()}", "certname": f"host{n:06d}.example.net", "pem": pem,
                        "not_before": 1.7e9 + n / 3, "not_after": 1.9e9 + n / 3, "state": "live", "issued_by": "proxy01",
                        "status": '{"name":"host","fingerprint":"' + os.urandom(32).hex() + '"}', "issued_at": 1.7e9 + n / 7,
                    }
                )  # fmt: skip
            async with store.whole(writing=True, limit_s=600) as uow:
                await copies.write(uow, "certificates", rows)


async def _on_sqlite(findings: Findings, host: Host, count: int, rounds: int) -> None:
    file = host.directory / "old.db"
    await _filled(f"sqlite:///{file}", count)
    cluster, at = host.at(f"sqlite:///{file}", "sqlite"), host.directory / "sqlite.age"
    made: list[float] = []
    theirs: list[float] = []
    restored: list[float] = []
    back: list[float] = []
    for n in range(rounds):
        made.append(
            host.ours(
                "backup", "--cluster", str(cluster), "--recipient", host.recipient, "--output", str(at), "--force"
            )
        )
        plain, sealed = host.directory / f"plain{n}.db", host.directory / f"peer{n}.age"
        dumped = (
            _peer(["sqlite3", str(file), f"VACUUM INTO '{plain}'"])
            if shutil.which("sqlite3")
            else await _vacuumed(file, plain)
        )
        theirs.append(dumped + _peer(["age", "-r", host.recipient, "-o", str(sealed), str(plain)]))
        new = host.directory / f"sqlite-new{n}"
        new.mkdir()
        restored.append(
            host.ours("restore", str(at), "--identity", host.key, "--cluster", str(new / "cluster.yaml"), "--store-url", f"sqlite:///{new}/new.db")
        )  # fmt: skip
        back.append(_peer(["age", "-d", "-i", host.key, "-o", str(new / "peer.db"), str(sealed)]))
        if n == 0:
            findings.notes.append(
                f"SQLite: {at.stat().st_size / 1e6:.0f} MB; peer {sealed.stat().st_size / 1e6:.0f} MB"
            )
    findings.figures += [
        Figure("SQLite: backup", "s", made, "VACUUM INTO, age", theirs),
        Figure("SQLite: restore", "s", restored, "age -d, which copies the file", back),
    ]
    _tell_memory(findings, host, "SQLite")


async def _vacuumed(file: Path, to: Path) -> float:
    import sqlite3

    def carried_out() -> None:
        with sqlite3.connect(file) as connection:
            connection.execute("VACUUM INTO ?", (str(to),))

    begun = time.perf_counter()
    await asyncio.to_thread(carried_out)
    return time.perf_counter() - begun


async def _on_postgresql(findings: Findings, host: Host, count: int, rounds: int) -> None:
    # Imported here: what runs without PostgreSQL does not need the tests beside it.
    from tests.servers import available, postgresql

    binaries = available.postgresql_binaries()
    if binaries is None or not (binaries / "pg_dump").exists():
        findings.notes.append("PostgreSQL was not measured: no pg_dump on this machine (Debian package postgresql)")
        return
    environment = {"PGPASSWORD": postgresql.PASSWORD}
    (host.directory / "password").write_text(f"{postgresql.PASSWORD}\n")
    with postgresql.running() as server:
        url = server.fresh_database()
        await _filled(url, count)
        cluster, at = host.at(url, "postgresql"), host.directory / "postgresql.age"
        made: list[float] = []
        theirs: list[float] = []
        restored: list[float] = []
        back: list[float] = []
        for n in range(rounds):
            made.append(
                host.ours(
                    "backup", "--cluster", str(cluster), "--recipient", host.recipient, "--output", str(at), "--force"
                )
            )
            sealed = host.directory / f"pg{n}.age"
            dump = [str(binaries / "pg_dump"), "-Fc", f"--dbname={url}"]
            theirs.append(_peer(dump, ["age", "-r", host.recipient, "-o", str(sealed)], environment=environment))
            new, other, their_new = host.directory / f"pg-new{n}", server.fresh_database(), server.fresh_database()
            new.mkdir()
            place = other.replace(f":{postgresql.PASSWORD}@", "@")
            restored.append(
                host.ours(
                    "restore", str(at), "--identity", host.key, "--cluster", str(new / "cluster.yaml"), "--store-url", place,
                    "--store-password-file", str(host.directory / "password"),
                )
            )  # fmt: skip
            load = [str(binaries / "pg_restore"), "--single-transaction", f"--dbname={their_new}"]
            back.append(_peer(["age", "-d", "-i", host.key, str(sealed)], load, environment=environment))
            if n == 0:
                findings.notes.append(
                    f"PostgreSQL: {at.stat().st_size / 1e6:.0f} MB; peer {sealed.stat().st_size / 1e6:.0f} MB"
                )
    findings.figures += [
        Figure("PostgreSQL: backup", "s", made, "pg_dump -Fc | age", theirs),
        Figure("PostgreSQL: restore", "s", restored, "age -d | pg_restore", back),
    ]
    _tell_memory(findings, host, "PostgreSQL")


def _tell_memory(findings: Findings, host: Host, where: str) -> None:
    findings.notes.append(
        f"{where}: at most " + ", ".join(f"{mb:.0f} MB for {name}" for name, mb in host.memory_mb.items())
    )
    host.memory_mb.clear()
