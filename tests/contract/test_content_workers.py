"""Workers: several processes answer a member's ports of content, and one that goes is nobody's loss but its own calls'."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from muster.app.duties import workers
from muster.app.line import Line
from muster.cli.demo.bind import free_port
from muster.kernel.secrets import Secret
from muster.pki import bundles
from tests.servers import member, puppetca
from tests.servers.client import Answer, Connection, Place, ask, request, tls_client
from tests.servers.member import Member

PIECE = b"x" * 65536
PIECES = 64


@dataclass
class Backend:
    """A stand-in for Pulp: one small file, and a large one that comes as it is let.

    Attributes:
        user: as whom the last caller came.
    """

    port: int = 0
    user: str | None = None
    go_on: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def backend() -> Iterator[Backend]:
    it = Backend()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            slow = self.path.endswith("/slow")
            it.user = self.headers["Remote-User"]
            self.send_response(200)
            self.send_header("Content-Length", str(len(PIECE) * PIECES if slow else 2))
            self.end_headers()
            with contextlib.suppress(OSError):
                if not slow:
                    self.wfile.write(b"ok")
                    return
                self.wfile.write(PIECE)
                assert it.go_on.wait(60)
                for _ in range(PIECES - 1):
                    self.wfile.write(PIECE)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.port = server.server_address[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield it
    it.go_on.set()
    server.shutdown()
    server.server_close()


@dataclass
class Site:
    member: Member
    https: Place
    backend: Backend

    def get(self, path: str = "/pulp/content/small", name: str | None = None) -> Answer:
        return ask(self.https, "GET", path, tls=self.member.tls(name))

    def pids(self) -> list[int]:
        """Return those of the workers that serve."""
        found = self.member.process.workers
        assert found is not None
        return [p.process.pid for p in found._places if p.process is not None and p.serving]

    def ready(self) -> dict[str, Any]:
        said: dict[str, Any] = json.loads(self.member.ask("GET", "/health/ready?service=https").body)
        return said


def until(what: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:g} s: {what()}")


def made(
    directory: Path, backend: Backend, *, count: int = 2, ca_file: str | None = None, **more: Any
) -> tuple[Member, Place]:
    url = f"http://127.0.0.1:{backend.port}"
    content: dict[str, Any] = {"services": ["https"], "pulp_content_url": url, "pulp_api_url": url}
    if count > 1:
        content["workers"] = count
    foreman = {"url": "https://foreman.example.com", "trusted_hosts": [member.TRUSTED], "ca_file": ca_file}
    found = member.made(directory, content=content, foreman=foreman, **more)
    place = Place(found.https.address, free_port(found.https.address))
    document = yaml.safe_load(found.cluster_file.read_text())
    document["services"]["https"] = {"member_port": place.port}
    found.cluster_file.write_text(yaml.safe_dump(document))
    return found, place


@pytest.fixture
def site(tmp_path: Path, backend: Backend) -> Iterator[Site]:
    found, place = made(tmp_path, backend)
    found.start()
    try:
        it = Site(found, place, backend)
        until(lambda: len(it.pids()) == 2)
        until(lambda: it.ready()["ready"])
        yield it
    finally:
        found.stop()


@contextlib.contextmanager
def slow(place: Place, tls: ssl.SSLContext) -> Iterator[Connection]:
    """Begin the large file, and leave the rest of it to the block."""
    with Connection(place, tls=tls, timeout_s=60) as connection:
        connection.send(request("GET", "/pulp/content/slow"))
        yield connection


def holder(connection: Connection, pids: list[int]) -> int:
    """Return which of the processes has the other end of a connection."""
    ours, theirs = connection.socket.getsockname(), connection.socket.getpeername()

    def written(place: tuple[str, int]) -> str:
        return f"{socket.inet_aton(place[0])[::-1].hex().upper()}:{place[1]:04X}"

    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    line = re.search(rf"{written(theirs)} \w*{written(ours)} .*", table)
    assert line is not None
    inode = line.group().split()[8]
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(descriptor.readlink()) == f"socket:[{inode}]":
                    return pid
    raise AssertionError(f"nobody of {pids} has {inode}")


def test_workers_share_the_clients_and_are_counted_each(site: Site) -> None:
    def alive(pid: int) -> bool:
        return Path(f"/proc/{pid}").exists()

    pids = site.pids()
    assert os.getpid() not in pids
    tls = site.member.tls()
    with contextlib.ExitStack() as stack:
        kept = [stack.enter_context(Connection(site.https, tls=tls)) for _ in range(40)]
        assert {holder(c, pids) for c in kept} == set(pids)
    for _ in range(20):
        assert site.get().body == b"ok"
    counted = site.member.ask("GET", "/metrics").text
    served = re.findall(r'muster_request_seconds_count{.*route="/pulp/content".*worker="(\d)"} (\d+)', counted)
    assert sum(int(n) for _, n in served) == 20
    assert set(re.findall(r'process_resident_memory_bytes{worker="(\d)"}', counted)) == {"1", "2"}
    assert counted.count("# TYPE muster_request_seconds histogram") == 1
    assert not re.search(r"muster_certificate\w*{.*worker=", counted)
    site.member.stop()
    assert not [pid for pid in pids if alive(pid)]


def test_a_worker_that_is_killed_costs_its_own_calls_alone_and_another_is_started(site: Site) -> None:
    pids, tls = site.pids(), site.member.tls()
    with contextlib.ExitStack() as stack:
        begun = [stack.enter_context(slow(site.https, tls)) for _ in range(12)]
        held = [holder(c, pids) for c in begun]
        assert set(held) == set(pids)
        os.kill(pids[0], signal.SIGKILL)
        # Who comes now is taken by the other, also before anybody noticed.
        assert [site.get().body for _ in range(20)] == [b"ok"] * 20
        site.backend.go_on.set()
        for connection, pid in zip(begun, held, strict=True):
            if pid == pids[0]:
                assert len(connection.remainder()) < len(PIECE) * PIECES
            else:
                assert len(connection.answer().body) == len(PIECE) * PIECES
    until(lambda: len(site.pids()) == 2)
    assert pids[1] in site.pids()
    assert pids[0] not in site.pids()
    assert "A worker ended; another is started" in site.member.ask("GET", "/logs/").text


def test_without_any_worker_clients_wait_for_the_next_and_balancers_hear_why(site: Site) -> None:
    for pid in site.pids():
        os.kill(pid, signal.SIGKILL)
    said = until(lambda: None if site.ready()["ready"] else site.ready())
    assert "no worker serves" in said["reason"]
    assert "signal 9" in said["reason"]
    assert site.get().body == b"ok"
    until(lambda: site.ready()["ready"])


def test_a_worker_that_hangs_is_ended_and_another_started(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_WELL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(workers.Workers, "every_s", 0.2)
    found, place = made(tmp_path, backend)
    found.start()
    try:
        it = Site(found, place, backend)
        pids = until(lambda: it.pids() if len(it.pids()) == 2 else None)
        os.kill(pids[0], signal.SIGSTOP)
        until(lambda: len(it.pids()) == 2 and pids[0] not in it.pids())
        assert "A worker hangs and is ended" in found.ask("GET", "/logs/").text
    finally:
        found.stop()


def test_a_member_that_stops_does_not_wait_for_a_worker_that_hangs(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_WELL_TIMEOUT_S", 0.5)
    found, place = made(tmp_path, backend, edge={"stop_timeout_s": 600})
    found.start()
    it = Site(found, place, backend)
    pids = until(lambda: it.pids() if len(it.pids()) == 2 else None)
    stopping = threading.Thread(target=found.stop, daemon=True)
    os.kill(pids[0], signal.SIGSTOP)
    try:
        stopping.start()
        stopping.join(60)
        assert not stopping.is_alive()
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        stopping.join()


def test_when_all_workers_hang_balancers_hear_so_before_they_are_ended(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_WELL_TIMEOUT_S", 0.5)
    monkeypatch.setattr(workers.Workers, "every_s", 0.2)
    found, place = made(tmp_path, backend)
    found.start()
    try:
        it = Site(found, place, backend)
        pids = until(lambda: it.pids() if len(it.pids()) == 2 else None)
        until(lambda: it.ready()["ready"])
        killed = threading.Event()
        monkeypatch.setattr(workers, "_kill", lambda _: killed.set())
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        said = until(lambda: None if it.ready()["ready"] else it.ready())
        assert "no worker serves: worker 1 of 2 does not answer" in said["reason"]
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        until(lambda: it.ready()["ready"])
        assert it.pids() == pids
    finally:
        monkeypatch.undo()
        found.stop()


def test_a_worker_that_never_comes_to_serve_is_ended_and_another_started(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_STARTING_S", 0.01)
    found, place = made(tmp_path, backend)
    found.start()
    try:
        until(lambda: "A worker does not come to serve and is ended" in found.ask("GET", "/logs/").text)
        assert not Site(found, place, backend).ready()["ready"]
        monkeypatch.setattr(workers, "_STARTING_S", 60.0)
        until(lambda: len(Site(found, place, backend).pids()) == 2)
    finally:
        found.stop()


def test_what_keeps_a_worker_from_serving_is_said_where_an_administrator_looks(site: Site) -> None:
    found = site.member.process.workers
    assert found is not None
    key = bundles.paths(site.member.pki, "member", site.member.name).key
    away = key.with_name("away")
    key.rename(away)
    os.kill(site.pids()[0], signal.SIGKILL)
    until(lambda: [note for note in found.found().notes if "it cannot serve" in note and str(key.name) in note])
    assert site.get().body == b"ok"
    away.rename(key)
    until(lambda: len(site.pids()) == 2)
    assert not found.found().notes


def test_a_bug_in_keeping_a_worker_is_not_its_end(
    tmp_path: Path, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = Line.over
    broken = 2

    async def over(*given: Any) -> Any:
        nonlocal broken
        if broken:
            broken -= 1
            raise RuntimeError("a bug")
        return await begun(*given)

    monkeypatch.setattr(Line, "over", over)
    found, place = made(tmp_path, backend)
    found.start()
    try:
        until(lambda: len(Site(found, place, backend).pids()) == 2)
        assert broken == 0
        assert "Keeping a worker broke" in found.ask("GET", "/logs/").text
    finally:
        found.stop()


def test_a_worker_without_descriptors_rests_until_it_has_some(site: Site) -> None:
    pids, tls = site.pids(), site.member.tls()
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}

    def refused() -> float:
        text = site.member.ask("GET", "/metrics").text
        return sum(
            map(float, re.findall(r'connections_refused_total{.*why="no descriptors left".*} ([0-9.e+]+)', text))
        )

    with contextlib.ExitStack() as stack:
        for pid, (_, hard) in limits.items():
            taken = {int(d.name) for d in Path(f"/proc/{pid}/fd").iterdir()}
            next_free = next(n for n in itertools.count() if n not in taken)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_free, hard))
        waiting = [stack.enter_context(socket.create_connection(site.https)) for _ in range(4)]
        until(refused)
        time.sleep(1)
        # Five times a second each, and not as often as the processor can.
        assert refused() < 200
        for pid, limit in limits.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        for sock in waiting:
            with tls.wrap_socket(sock, server_hostname=site.https.address) as secured:
                secured.sendall(request("GET", "/pulp/content/small", {"Connection": "close"}))
                assert secured.recv(1024).startswith(b"HTTP/1.1 200")
    assert site.pids() == pids


def test_every_worker_shows_the_new_certificate(site: Site) -> None:
    pids, tls = site.pids(), site.member.tls()
    written = bundles.write(site.member.issue(), site.member.pki)
    new = ssl.PEM_cert_to_DER_cert(
        written.certificate.read_text().partition("-----END")[0] + "-----END CERTIFICATE-----\n"
    )
    shown: dict[int, bytes | None] = {}

    def everywhere() -> bool:
        with Connection(site.https, tls=tls) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            shown[holder(connection, pids)] = connection.socket.getpeercert(binary_form=True)
        return all(shown.get(pid) == new for pid in pids)

    until(everywhere)


def test_a_member_that_drains_has_its_workers_close_behind_each_reply(site: Site) -> None:
    pids, tls = site.pids(), site.member.tls()
    connections: dict[int, str | None] = {}

    def everywhere(word: str | None) -> bool:
        with Connection(site.https, tls=tls) as connection:
            pid = holder(connection, pids)
            connection.send(request("GET", "/pulp/content/small"))
            connections[pid] = connection.answer().headers.get("connection")
        return all(connections.get(pid, "") == word for pid in pids)

    until(lambda: everywhere(None))
    standing = site.member.process.standing
    # What stops is not readmitted with the next beat.
    standing.stopping = True
    site.member.tell(standing.drain, "because")
    until(lambda: everywhere("close"))
    standing.stopping = False
    until(lambda: everywhere(None))


def test_who_the_puppet_ca_revoked_is_no_administrator_of_workers_backends_either(
    tmp_path: Path, backend: Backend
) -> None:
    store, home = Secret(f"sqlite:///{tmp_path}/store.db"), tmp_path / "pki" / "puppet-ca"
    trusts, shown = asyncio.run(puppetca.begun_with(store, home, member.TRUSTED))
    (tmp_path / "puppet-ca.pem").write_text(trusts)
    (tmp_path / "foreman.pem").write_bytes(shown)
    found, place = made(tmp_path, backend, authority={}, ca_file=str(tmp_path / "puppet-ca.pem"))
    found.start()
    try:
        tls = tls_client(found.ca, tmp_path / "foreman.pem")
        assert (ask(place, "GET", "/pulp/api/v3/small", tls=tls).status, backend.user) == (200, "admin")
        asyncio.run(puppetca.revoked_by(store, home, member.TRUSTED))
        # As anybody, who may have a password; Pulp's to judge.
        assert (ask(place, "GET", "/pulp/api/v3/small", tls=tls).status, backend.user) == (200, None)
    finally:
        found.stop()


@contextlib.contextmanager
def served(found: Member) -> Iterator[subprocess.Popen[bytes]]:
    """Hold ``muster serve`` running."""
    command = [
        sys.executable, "-m", "muster", "serve", "--cluster", str(found.cluster_file), "--pki", str(found.pki),
        "--member", found.name,
    ]  # fmt: skip
    with (found.directory / "said").open("wb") as said:
        process = subprocess.Popen(command, stderr=said)
    try:
        until(lambda: process.poll() is not None or _answers(found))
        yield process
    finally:
        process.kill()
        process.wait()


def _answers(found: Member) -> bool:
    with contextlib.suppress(OSError):
        return bool(json.loads(found.ask("GET", "/health/ready?service=https").body)["ready"])
    return False


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("count", [1, 2])
def test_a_member_that_is_stopped_finishes_what_it_sends(tmp_path: Path, backend: Backend, count: int) -> None:
    found, place = made(tmp_path, backend, count=count, edge={"drain_s": 0})
    with served(found) as process, slow(place, found.tls()) as connection:
        process.send_signal(signal.SIGTERM)
        # The socket is closed before the last reply ends.
        until(lambda: not _connects(place))
        assert process.poll() is None
        backend.go_on.set()
        assert len(connection.answer().body) == len(PIECE) * PIECES
        assert process.wait(30) == 0
    assert "Finished GET /pulp/content/slow with 200" in (found.directory / "said").read_text()


def test_workers_whose_member_is_killed_end_by_themselves(tmp_path: Path, backend: Backend) -> None:
    found, place = made(tmp_path, backend)
    with served(found) as process:
        pids = children(process.pid)
        assert len(pids) == 2
        process.kill()
        process.wait()
        until(lambda: not [pid for pid in pids if Path(f"/proc/{pid}").exists()])
        assert not _connects(place)
        with served(found):
            assert ask(place, "GET", "/pulp/content/small", tls=found.tls()).body == b"ok"


def _connects(place: Place) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(place, 5):
        return True
    return False
