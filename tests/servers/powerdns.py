"""A real PowerDNS Authoritative Server with its SQLite backend: dynamic updates under one TSIG key, and its HTTP API."""

from __future__ import annotations

import base64
import contextlib
import secrets
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import dns.exception
import dns.message
import dns.query

from muster.cli.demo.bind import Zone, free_port
from muster.kernel.process import clean_environment
from tests.servers.available import sbin

__all__ = ["API_KEY", "PowerDNSServer", "running"]

SCHEMA = Path("/usr/share/pdns-backend-sqlite3/schema/schema.sqlite3.sql")
KEY_NAME = "muster-test"
API_KEY = "powerdns-test-key"
_NOBODY = "nobody"


class PowerDNSServer:
    """A running ``pdns_server``. Use :func:`running`.

    Attributes:
        key_file: its TSIG key in BIND's form.
        api: the URL of its HTTP API, which :data:`API_KEY` opens.
        database: its zones, which other servers may have as well.
    """

    def __init__(self, directory: Path, address: str, database: Path) -> None:
        self.directory = directory
        self.address, self.port = address, free_port(address)
        self.api_port = free_port(address)
        self.api = f"http://{address}:{self.api_port}/api/v1/servers/localhost"
        self.database = database
        self.key_file = directory / "key.conf"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and return when it has answered."""
        server = sbin("pdns_server")
        assert server is not None
        with (self.directory / "pdns.log").open("ab") as log:
            self._process = subprocess.Popen(
                [server, f"--config-dir={self.directory}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=clean_environment(),
            )  # fmt: skip
        question = dns.message.make_query("version.pdns", "TXT", "CH")
        for _ in range(200):
            if self._process.poll() is not None:
                break
            with contextlib.suppress(OSError, EOFError, dns.exception.DNSException):
                dns.query.tcp(question, self.address, timeout=1, port=self.port)
                return
            time.sleep(0.05)
        raise AssertionError(f"pdns_server did not come up: {(self.directory / 'pdns.log').read_text()[-800:]}")

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def dig(self, name: str, kind: str) -> list[str]:
        """Return the records it has of one name and type, one text each, sorted; aliases are not followed."""
        question = dns.message.make_query(name, kind)
        question.flags = 0
        answer = dns.query.tcp(question, self.address, timeout=5, port=self.port)
        found = (r for r in answer.answer if r.rdtype.name == kind and r.name == question.question[0].name)
        return sorted(f"{r.name} {r.ttl} IN {kind} {d}" for r in found for d in r)


@contextlib.contextmanager
def running(
    directory: Path,
    *,
    zones: Sequence[Zone],
    address: str = "127.0.0.1",
    secondary: Sequence[str] = (),
    beside: PowerDNSServer | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[PowerDNSServer]:
    """Yield a PowerDNS that is primary for the zones; its key may change those that are updatable.

    Of the zones in ``secondary`` it is told that another server is the primary. With ``beside`` it answers from the database
    of that server, as it stands; ``more`` are further settings.
    """
    server = PowerDNSServer(directory, address, directory / "zones.db" if beside is None else beside.database)
    directory.mkdir(parents=True, exist_ok=True)
    _write(server, more or {})
    if beside is None:
        _fill(server, zones, secondary)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _write(server: PowerDNSServer, more: Mapping[str, str]) -> None:
    here = server.directory
    settings = {
        "launch": "gsqlite3",
        "gsqlite3-database": str(server.database),
        "local-address": server.address,
        "local-port": str(server.port),
        "dnsupdate": "yes",
        "allow-dnsupdate-from": "127.0.0.0/8",
        "socket-dir": str(here),
        "daemon": "no",
        "guardian": "no",
        "disable-syslog": "yes",
        "write-pid": "no",
        "receiver-threads": "1",
        "distributor-threads": "1",
        "api": "yes",
        "api-key": API_KEY,
        "webserver": "yes",
        "webserver-address": server.address,
        "webserver-port": str(server.api_port),
        "webserver-allow-from": "127.0.0.0/8",
        **more,
    }
    (here / "pdns.conf").write_text("".join(f"{k}={v}\n" for k, v in settings.items()))


def _fill(server: PowerDNSServer, zones: Sequence[Zone], secondary: Sequence[str]) -> None:
    here = server.directory
    with contextlib.closing(sqlite3.connect(server.database)) as made:
        made.executescript(SCHEMA.read_text())
    secret = base64.b64encode(secrets.token_bytes(32)).decode()
    server.key_file.write_text(f'key "{KEY_NAME}" {{\n  algorithm hmac-sha256;\n  secret "{secret}";\n}};\n')
    server.key_file.chmod(0o600)
    _tell(server, "import-tsig-key", KEY_NAME, "hmac-sha256", secret)
    _tell(server, "import-tsig-key", _NOBODY, "hmac-sha256", base64.b64encode(secrets.token_bytes(32)).decode())
    for zone in zones:
        path = here / f"{zone.name}.db"
        soa = f"@ IN SOA ns.{zone.name}. root.{zone.name}. 1 3600 600 86400 300"
        path.write_text(
            "\n".join([f"$ORIGIN {zone.name}.", "$TTL 300", soa, "@ IN NS ns.invalid.", *zone.lines]) + "\n"
        )
        _tell(server, "load-zone", zone.name, str(path))
        # Without a key of its own a zone would take updates from anybody here.
        _tell(server, "set-meta", zone.name, "TSIG-ALLOW-DNSUPDATE", KEY_NAME if zone.updatable else _NOBODY)
    with contextlib.closing(sqlite3.connect(server.database)) as made:
        made.executemany(
            "UPDATE domains SET type = 'SLAVE', master = '192.0.2.1' WHERE name = ?", [(z,) for z in secondary]
        )
        made.commit()


def _tell(server: PowerDNSServer, *arguments: str) -> None:
    command = ["pdnsutil", f"--config-dir={server.directory}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=clean_environment())
    assert done.returncode == 0, f"{arguments[0]}: {done.stderr}"
