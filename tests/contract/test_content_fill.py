"""What one member's backend lacks, another's has: three members, each before a backend of its own (a stand-in)."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from muster.cli.demo.bind import free_port
from muster.edge import ranges
from muster.kernel.files import write_atomically
from muster.pki import bundles
from tests.servers import member
from tests.servers.client import Answer, Place, ask, tls_client
from tests.servers.member import Member

FILE = b"a package " * 1000
NAME = "/pulp/content/r/repodata/" + "ab" * 32 + "-primary.xml.gz"


@dataclass
class Backend:
    """A stand-in for Pulp.

    Attributes:
        files: what it has, by path.
        asked: what it was asked for clients: method, path, headers (names in lower case).
        status: of every answer, while it is set.
        answers: it takes requests and answers none while this is not set.
        breaks: after so many bytes of a body it hangs up.
    """

    address: str
    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    status: int | None = None
    breaks: int | None = None
    answers: threading.Event = field(default_factory=threading.Event)
    server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        it = self
        it.answers.set()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do(self) -> None:
                sent = {k.lower(): v for k, v in self.headers.items()}
                # Members ask for themselves, too: whether it is there, and what repositories have.
                if not sent.get("x-forwarded-for", "127.0.1.").startswith("127.0.1."):
                    it.asked.append((self.command, self.path, sent))
                    it.answers.wait(30)
                file = it.files.get(self.path)
                status = it.status or (200 if file is not None else 404)
                if self.path == "/pulp/content/":
                    status = 200
                body = file if status == 200 and file is not None else b"said"
                found = ranges.asked(sent.get("range"), len(body)) if status == 200 else None
                if found is not None:
                    status, whole = 206, body
                    body = body[found[0] : found[1] + 1]
                self.send_response(status)
                if found is not None:
                    self.send_header("Content-Range", f"bytes {found[0]}-{found[1]}/{len(whole)}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    if self.command != "HEAD":
                        self.wfile.write(body[: it.breaks])
                        self.close_connection = it.breaks is not None

            do_GET = do_HEAD = do  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            allow_reuse_address = True
            daemon_threads = True

        self.server = Server((self.address, self.port), Handler)
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.answers.set()
        if self.server is not None:
            self.server.shutdown()
            self.server.server_close()
            self.server = None


@dataclass
class Cluster:
    members: list[Member]
    backends: list[Backend]
    port: int
    plain: int

    def get(self, at: int, path: str, *, method: str = "GET", name: str | None = None, **more: Any) -> Answer:
        found = self.members[at]
        return ask(Place(found.https.address, self.port), method, path, tls=found.tls(name), **more)

    def asked(self) -> list[list[str]]:
        """Return which backend was asked for what, for clients."""
        return [[path for _, path, _ in b.asked] for b in self.backends]

    def until_known(self) -> None:
        """Return when every member knows who else is ready."""
        deadline = time.monotonic() + 30
        for path in ("/pulp/content/known-by-0", "/pulp/content/known-by-1", "/pulp/content/known-by-2"):
            at = int(path[-1])
            while time.monotonic() < deadline:
                for backend in self.backends:
                    backend.asked.clear()
                if self.get(at, path).status == 404 and all(path in asked for asked in self.asked()):
                    break
                time.sleep(0.1)
            else:
                raise AssertionError(f"member {at} never asked all others")
        # What was asked before they all knew may still be on its way.
        seen = None
        while seen != (seen := [len(asked) for asked in self.asked()]):
            time.sleep(0.5)
        for backend in self.backends:
            backend.asked.clear()


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two workers"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    def content(address: str) -> dict[str, Any]:
        url = f"http://{address}:{port}"
        return {
            "pulp_content_url": url, "pulp_api_url": url, "workers": request.param,
            "first_byte_timeout_s": 10, "hold_s": 2, "fill_after_s": 0.3,
        }  # fmt: skip

    port = free_port()
    members, ports = member.together(tmp_path_factory.mktemp("fill"), [content] * 3, "https", "http")
    backends = [Backend(m.https.address, port) for m in members]
    with contextlib.ExitStack() as stack:
        for backend in backends:
            backend.start()
            stack.callback(backend.stop)
        for one in members:
            one.start()
            stack.callback(one.stop)
        yield Cluster(members, backends, ports["https"], ports["http"])


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    """The cluster as it was, every backend empty and well."""
    for backend in running.backends:
        backend.files.clear()
        backend.status = backend.breaks = None
        backend.answers.set()
        if backend.server is None:
            backend.start()
    running.until_known()
    return running


def test_what_one_backend_has_every_member_serves(cluster: Cluster) -> None:
    cluster.backends[1].files[NAME] = FILE
    for at in range(3):
        got = cluster.get(at, NAME)
        assert (got.status, got.body, got.headers["etag"]) == (200, FILE, f'"sha256:{"ab" * 32}"')
    plain = ask(Place(cluster.members[0].https.address, cluster.plain), "GET", NAME)
    assert (plain.status, plain.body) == (200, FILE)


def test_head_a_part_and_a_condition_are_answered_as_if_it_were_here(cluster: Cluster) -> None:
    cluster.backends[2].files[NAME] = FILE
    head = cluster.get(0, NAME, method="HEAD")
    assert (head.status, head.headers["content-length"]) == (200, str(len(FILE)))
    tag = f'"sha256:{"ab" * 32}"'
    for condition in ({}, {"If-Range": tag}):
        part = cluster.get(0, NAME, headers={"Range": "bytes=10-19", **condition})
        assert (part.status, part.body) == (206, FILE[10:20])
        assert part.headers["content-range"] == f"bytes 10-19/{len(FILE)}"
    assert cluster.get(0, NAME, headers={"Range": "bytes=10-19", "If-Range": '"foreign"'}).status == 200
    assert cluster.get(0, NAME, headers={"If-None-Match": tag}).status == 304
    repomd = "/pulp/content/r/repodata/repomd.xml"
    cluster.backends[2].files[repomd] = b"<repomd/>"
    assert (cluster.get(0, repomd).status, cluster.get(0, repomd).body) == (200, b"<repomd/>")


def test_what_nobody_has_is_404_and_everybody_was_asked_once(cluster: Cluster) -> None:
    got = cluster.get(0, "/pulp/content/r/none")
    assert (got.status, got.body) == (404, b"said")
    assert cluster.asked() == [["/pulp/content/r/none"]] * 3


def test_what_is_here_is_asked_of_nobody_else(cluster: Cluster) -> None:
    cluster.backends[0].files["/pulp/content/r/here"] = b"here"
    assert cluster.get(0, "/pulp/content/r/here").body == b"here"
    assert cluster.asked() == [["/pulp/content/r/here"], [], []]


@pytest.mark.parametrize("status", [301, 403, 416])
def test_what_the_own_backend_says_of_what_it_has_is_said(cluster: Cluster, status: int) -> None:
    cluster.backends[0].status = status
    cluster.backends[1].files[NAME] = FILE
    assert cluster.get(0, NAME).status == status
    assert cluster.asked()[1:] == [[], []]


@pytest.mark.parametrize("fault", ["500", "503", "away", "silent"])
def test_a_backend_that_is_not_well_costs_nobody_what_another_has(cluster: Cluster, fault: str) -> None:
    cluster.backends[1].files[NAME] = FILE
    if fault == "away":
        cluster.backends[0].stop()
    elif fault == "silent":
        cluster.backends[0].answers.clear()
    else:
        cluster.backends[0].status = int(fault)
    for _ in range(6):
        got = cluster.get(0, NAME)
        assert (got.status, got.body) == (200, FILE)


def test_a_backend_that_was_silent_is_asked_first_again_when_it_answers(cluster: Cluster) -> None:
    cluster.backends[1].files[NAME] = FILE
    cluster.backends[0].answers.clear()
    for _ in range(4):
        assert cluster.get(0, NAME).body == FILE
    cluster.backends[0].answers.set()
    cluster.backends[0].files[NAME] = b"own"
    deadline = time.monotonic() + 30
    while cluster.get(0, NAME).body != b"own":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for _ in range(4):
        assert cluster.get(0, NAME).body == b"own"


def test_who_cannot_be_asked_makes_it_503_and_not_404(cluster: Cluster) -> None:
    cluster.backends[1].status = 500
    began = time.monotonic()
    got = cluster.get(0, "/pulp/content/r/none")
    assert (got.status, "answers 50" in got.text) == (503, True)
    assert got.headers["retry-after"]
    assert time.monotonic() - began > 1, "it was held"
    # Who comes back meanwhile has it.
    threading.Timer(0.5, lambda: setattr(cluster.backends[1], "status", None)).start()
    cluster.backends[1].files["/pulp/content/r/none"] = b"after all"
    assert cluster.get(0, "/pulp/content/r/none").body == b"after all"


def test_the_backend_hears_who_the_client_is_wherever_it_stands(cluster: Cluster) -> None:
    cluster.backends[1].files[NAME] = FILE
    name = "web01.example.com"
    assert cluster.get(0, NAME, name=name).status == 200
    shown = unquote(cluster.backends[1].asked[-1][2]["x-client-cert"])
    assert shown.split() == cluster.members[0].client(name).read_text().partition("-----BEGIN PRIVATE")[0].split()
    assert cluster.backends[1].asked[-1][2]["x-forwarded-for"] == "127.0.0.1"
    assert cluster.get(0, NAME).status == 200
    assert "x-client-cert" not in cluster.backends[1].asked[-1][2], "nobody's certificate, not the asking member's"


FORGED = {
    "X-Muster-Fill": "1",
    "X-Muster-Client-Address": "192.0.2.1",
    "X-Muster-Client-Certificate": "AAAA",
    "X_Muster_Client_Certificate": "AAAA",
}


@pytest.mark.parametrize("name", [None, "web01.example.com", member.TRUSTED])
def test_only_a_member_is_believed_to_ask_for_somebody_else(cluster: Cluster, name: str | None) -> None:
    cluster.backends[1].files[NAME] = FILE
    got = cluster.get(0, NAME, name=name, headers=FORGED)
    assert got.status == 200, "it is filled like any other's"
    for backend in cluster.backends[:2]:
        sent = backend.asked[-1][2]
        assert sent["x-forwarded-for"] == "127.0.0.1"
        assert ("x-client-cert" in sent) == (name is not None)
        assert "AAAA" not in sent.get("x-client-cert", "")
        assert not [header for header in sent if "muster" in header]


def test_a_members_question_goes_no_further_and_is_not_held(cluster: Cluster) -> None:
    asker, asked = cluster.members[1], cluster.members[0]
    paths = bundles.paths(asker.pki, "member", asker.name)
    both = asker.directory / "asker.pem"
    write_atomically(both, paths.certificate.read_bytes() + paths.key.read_bytes(), mode=0o600)
    tls = tls_client(asker.ca, both)
    place = Place(asked.https.address, cluster.port)
    cluster.backends[1].files[NAME] = FILE
    told = {"X-Muster-Fill": "1", "X-Muster-Client-Address": "192.0.2.1"}
    assert ask(place, "GET", NAME, tls=tls, headers=told).status == 404
    assert cluster.asked() == [[NAME], [], []]
    assert cluster.backends[0].asked[0][2]["x-forwarded-for"] == "192.0.2.1"
    cluster.backends[0].status = 503
    assert ask(place, "GET", NAME, tls=tls, headers=told).status == 503
    for wrong in ({"X-Muster-Client-Certificate": "no base64"}, {"X-Muster-Client-Address": "nowhere"}):
        assert ask(place, "GET", NAME, tls=tls, headers={**told, **wrong}).status == 400


@pytest.mark.parametrize("part", [None, "bytes=100-8999", "bytes=-6000"])
def test_what_breaks_off_goes_on_at_who_has_the_same_bytes(cluster: Cluster, part: str | None) -> None:
    for backend in cluster.backends[:2]:
        backend.files[NAME] = FILE
    cluster.backends[0].breaks = 3000
    got = cluster.get(0, NAME, headers={"Range": part} if part else {})
    wanted = {None: FILE, "bytes=100-8999": FILE[100:9000], "bytes=-6000": FILE[-6000:]}[part]
    assert (got.status, got.body) == (206 if part else 200, wanted)
    assert got.headers["content-length"] == str(len(wanted))


def test_what_breaks_off_everywhere_is_cut_and_never_mixed_with_something_else(cluster: Cluster) -> None:
    def is_cut(path: str) -> bool:
        # What was not sent yet is lost with the connection, status and all.
        with contextlib.suppress(ConnectionError):
            got = cluster.get(0, path).body
            assert FILE.startswith(got)
            return len(got) < len(FILE)
        return True

    cluster.backends[0].files[NAME] = FILE
    cluster.backends[0].breaks = 3000
    # Of another length, so it cannot be the same.
    cluster.backends[1].files[NAME] = FILE + b"more"
    assert is_cut(NAME)
    package = "/pulp/content/r/Packages/a/alpha-1.0-1.noarch.rpm"
    for backend in cluster.backends[:2]:
        backend.files[package] = FILE
    assert is_cut(package), "its name says nothing of its bytes"


def test_what_another_member_refuses_a_third_may_give(cluster: Cluster) -> None:
    cluster.backends[1].status = 403
    cluster.backends[2].files[NAME] = FILE
    assert cluster.get(0, NAME).body == FILE
    cluster.backends[2].files.clear()
    assert cluster.get(0, NAME).status == 403, "it is somewhere, and not for everybody"


def test_what_another_member_cannot_give_for_images_a_third_may(cluster: Cluster) -> None:
    blob = f"/pulp/container/r/blobs/sha256:{'cd' * 32}"
    cluster.backends[1].status = 503
    cluster.backends[2].files[blob] = FILE
    for at in (0, 1, 2):
        assert cluster.get(at, blob).body == FILE
    cluster.backends[2].files.clear()
    got = cluster.get(0, blob)
    assert (got.status, got.headers["retry-after"]) == (429, "5")


def test_writing_is_asked_of_the_own_backend_alone(cluster: Cluster) -> None:
    assert cluster.get(0, "/pulp/api/v3/none").status == 404
    assert cluster.asked() == [["/pulp/api/v3/none"], [], []]


def test_what_came_of_it_is_counted(cluster: Cluster) -> None:
    def counted(outcome: str) -> float:
        text = cluster.members[2].ask("GET", "/metrics").text
        found = re.findall(rf'muster_content_fills_total{{outcome="{outcome}"[^}}]*}} ([0-9.e+]+)', text)
        return sum(map(float, found))

    before = counted("sibling"), counted("nobody")
    cluster.backends[0].files[NAME] = FILE
    assert cluster.get(2, NAME).status == 200
    assert cluster.get(2, "/pulp/content/r/none").status == 404
    assert (counted("sibling"), counted("nobody")) == (before[0] + 1, before[1] + 1)


def test_a_member_that_is_gone_is_asked_no_longer(cluster: Cluster) -> None:
    gone = cluster.members[2]
    gone.stop()
    try:
        with contextlib.suppress(OSError), socket.create_connection((gone.https.address, cluster.port), 1):
            raise AssertionError("it listens")
        deadline = time.monotonic() + 30
        # Held and 503 at first: nobody knows yet that it is gone.
        while (got := cluster.get(0, "/pulp/content/r/none")).status != 404:
            assert got.status == 503
            assert time.monotonic() < deadline
    finally:
        gone.start()


@pytest.mark.parametrize("count", [1, 2], ids=["alone", "two workers"])
def test_a_member_that_is_added_to_the_only_one_is_asked_and_believed(tmp_path: Path, count: int) -> None:
    def content(address: str) -> dict[str, Any]:
        url = f"http://{address}:{port}"
        return {"pulp_content_url": url, "pulp_api_url": url, "workers": count, "hold_s": 2}

    port = free_port()
    (first, second), ports = member.together(tmp_path, [content] * 2, "https", "http")
    both = yaml.safe_load(first.cluster_file.read_text())
    write_atomically(first.cluster_file, yaml.safe_dump({**both, "members": both["members"][:1]}))
    backends = [Backend(m.https.address, port) for m in (first, second)]
    with contextlib.ExitStack() as stack:
        for backend in backends:
            backend.start()
            stack.callback(backend.stop)
        first.start()
        stack.callback(first.stop)
        cluster = Cluster([first, second], backends, ports["https"], ports["http"])
        backends[1].files[NAME] = FILE
        deadline = time.monotonic() + 30
        while cluster.get(0, "/pulp/content/").status != 200:
            assert time.monotonic() < deadline
        assert cluster.get(0, NAME).status == 404
        write_atomically(first.cluster_file, yaml.safe_dump(both))
        second.start()
        stack.callback(second.stop)
        while cluster.get(0, NAME).status != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        # The other way round the host is heard of, too.
        name = "web01.example.com"
        while True:
            backends[0].asked.clear()
            assert cluster.get(1, "/pulp/content/r/none", name=name).status == 404
            if backends[0].asked:
                break
            assert time.monotonic() < deadline
            time.sleep(0.1)
        shown = unquote(backends[0].asked[0][2]["x-client-cert"])
        assert shown.split() == second.client(name).read_text().partition("-----BEGIN PRIVATE")[0].split()
