"""What members answer on the ports of content, in front of a backend that says what it was asked (a stand-in)."""

from __future__ import annotations

import hashlib
import json
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
from tests.servers import member
from tests.servers.client import Answer, Connection, Place, ask, request
from tests.servers.member import Member

PRIMARY = b"packages of the repository\n" * 400
PRIMARY_NAME = f"{hashlib.sha256(PRIMARY).hexdigest()}-primary.xml.gz"
REPOMD = b"<repomd/>\n"
BIG = 64 << 20


@dataclass
class Backend:
    """A stand-in for Pulp, Foreman and a registry: files, and what it was asked."""

    port: int = 0
    asked: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    location: str = ""
    raw: bytes = b""
    written: int = 0


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    it = Backend()
    it.files = {
        f"/pulp/content/r/repodata/{PRIMARY_NAME}": PRIMARY,
        "/pulp/content/r/repodata/repomd.xml": REPOMD,
        "/pulp/content/r/a+b~1%2B2.rpm": b"rpm",
        "/pulp/content/": b"ok",
        "/v2/": b"{}",
        "/rhsm/status": b"{}",
    }

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                while size := int(self.rfile.readline().strip(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            path = self.path.partition("?")[0]
            # A member asks for itself, too, what the repositories have that clients ask for.
            if not self.headers.get("X-Forwarded-For", "").startswith("127.0.1."):
                it.asked.append((self.command, self.path, dict(self.headers.items()), body))
            if path.endswith("/endless"):
                self.send_response(200)
                self.send_header("Content-Length", str(BIG))
                self.end_headers()
                try:
                    for _ in range(BIG >> 16):
                        self.wfile.write(b"x" * 65536)
                        it.written += 65536
                except OSError:
                    pass
                return
            if path.endswith("/cut"):
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b"x" * 500)
                self.close_connection = True
                return
            if path.endswith("/moved"):
                self.send_response(301)
                self.send_header("Location", it.location or "moved/")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path.endswith("/raw"):
                self.wfile.write(it.raw)
                self.close_connection = True
                return
            file = it.files.get(path)
            if self.command == "POST":
                file = body
            status, part = (404, b"not here") if file is None else (200, file)
            self.send_response_only(206 if status == 200 and "Range" in self.headers else status)
            if status == 200 and "Range" in self.headers:
                first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(part)}")
                part = part[int(first) : int(last) + 1]
            self.send_header("ETag", f'"{time.time_ns():x}"')
            self.send_header("Last-Modified", "Sat, 28 Nov 2026 10:00:00 GMT")
            self.send_header("X-PULP-ARTIFACT-SIZE", str(len(part)))
            self.send_header("Connection", "keep-alive")
            self.send_header("Content-Type", "application/gzip")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(part)

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815 - http.server's names

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    it.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield it
    server.shutdown()
    server.server_close()


@dataclass
class Site:
    member: Member
    backend: Backend
    https: Place
    http: Place
    rhsm: Place
    docker: Place
    pub: Path

    def ask(self, path: str, *, method: str = "GET", name: str | None = None, **more: Any) -> Answer:
        return ask(self.https, method, path, tls=self.member.tls(name), **more)

    def calls(self) -> list[tuple[str, str, dict[str, str], bytes]]:
        """Return what the backend was asked for clients; the member's own questions are for nobody. Names in lower case."""
        asked = [(m, p, {k.lower(): v for k, v in sent.items()}, body) for m, p, sent, body in self.backend.asked]
        return [a for a in asked if "x-forwarded-for" in a[2]]

    def asked(self) -> tuple[str, str, dict[str, str], bytes]:
        return self.calls()[-1]


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two workers"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, backend: Backend) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("content")
    pub = directory / "pub"
    pub.mkdir()
    (pub / "site-tools-latest.noarch.rpm").write_bytes(b"consumer" * 1000)
    (pub / "out").symlink_to("/etc/passwd")
    (pub / "in").symlink_to("site-tools-latest.noarch.rpm")
    url = f"http://127.0.0.1:{backend.port}"
    content = {
        "services": ["https", "http", "rhsm", "docker"],
        "pulp_content_url": url, "pulp_api_url": url, "registry_url": url, "pub": str(pub),
        "first_byte_timeout_s": 5, "stall_timeout_s": 5, "workers": request.param,
    }  # fmt: skip
    made = member.made(
        directory, content=content, foreman={"url": url, "trusted_hosts": [member.TRUSTED]}, generation="seed"
    )
    document = yaml.safe_load(made.cluster_file.read_text())
    address = made.https.address
    ports = {n: free_port(address) for n in ("https", "http", "rhsm", "docker")}
    off = {"enabled": False}
    document["services"] |= {**{n: {"member_port": p} for n, p in ports.items()}, "amqp": off}
    made.cluster_file.write_text(yaml.safe_dump(document))
    made.start()
    try:
        place = {n: Place(address, p) for n, p in ports.items()}
        yield Site(made, backend, place["https"], place["http"], place["rhsm"], place["docker"], pub)
    finally:
        made.stop()


def test_a_file_passes_with_the_digest_for_its_validator(site: Site) -> None:
    got = site.ask(f"/pulp/content/r/repodata/{PRIMARY_NAME}")
    assert (got.status, got.body) == (200, PRIMARY)
    assert got.headers["etag"] == f'"sha256:{PRIMARY_NAME[:64]}"'
    assert got.headers["content-length"] == str(len(PRIMARY))
    assert "last-modified" not in got.headers
    assert got.headers["content-type"] == "application/gzip"


TAG = f'"sha256:{PRIMARY_NAME[:64]}"'
PRIMARY_PATH = f"/pulp/content/r/repodata/{PRIMARY_NAME}"


@pytest.mark.parametrize("field", [TAG, f"W/{TAG}", f'"other", {TAG}', "*"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_has_the_bytes_is_told_so(site: Site, field: str, method: str) -> None:
    got = site.ask(PRIMARY_PATH, method=method, headers={"If-None-Match": field})
    assert (got.status, got.body, got.headers["etag"]) == (304, b"", TAG)
    # Who may have them is the backend's to say, so it was asked.
    assert site.asked()[1] == PRIMARY_PATH


def test_a_validator_of_a_backend_is_nobodys(site: Site) -> None:
    got = site.ask(
        PRIMARY_PATH, headers={"If-None-Match": '"1-2"', "If-Modified-Since": "Sun, 29 Nov 2026 10:00:00 GMT"}
    )
    assert (got.status, got.body) == (200, PRIMARY)
    assert not site.asked()[2].keys() & {"if-none-match", "if-modified-since"}


def test_a_head_says_what_a_get_would(site: Site) -> None:
    got, whole = site.ask(PRIMARY_PATH, method="HEAD"), site.ask(PRIMARY_PATH)
    same = ("etag", "content-length", "content-type", "x-pulp-artifact-size")
    assert (got.status, got.body) == (200, b"")
    assert [got.headers[n] for n in same] == [whole.headers[n] for n in same]


@pytest.mark.parametrize(
    ("condition", "status"),
    [(None, 206), (TAG, 206), (f"W/{TAG}", 200), ('"foreign"', 200), ("Sat, 28 Nov 2026 10:00:00 GMT", 200)],
)
def test_a_part_is_given_where_it_is_of_the_same_bytes(site: Site, condition: str | None, status: int) -> None:
    wanted = {"Range": "bytes=10-19", **({"If-Range": condition} if condition else {})}
    got = site.ask(PRIMARY_PATH, headers=wanted)
    assert (got.status, got.body) == ((206, PRIMARY[10:20]) if status == 206 else (200, PRIMARY))
    assert got.headers["etag"] == TAG


@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        (f"If-None-Match: {TAG}\r\nRange: bytes=0-1", 304),
        (f'If-None-Match: {TAG}\r\nIf-None-Match: "other"', 304),
        ('If-Match: "other"', 412),
        ('If-Match: "other"\r\nRange: bytes=0-1', 412),
        (f'If-Match: "other"\r\nIf-Match: {TAG}\r\nRange: bytes=0-1', 206),
        (f"If-Match: W/{TAG}", 412),
        ("If-Match: *", 200),
        ("If-Range: *\r\nRange: bytes=0-1", 200),
        (f'If-Range: "other", {TAG}\r\nRange: bytes=0-1', 200),
        ("Range: bytes=0-1\r\nRange: bytes=2-3", 200),
    ],
)
def test_conditions_are_heeded_in_their_order(site: Site, conditions: str, status: int) -> None:
    with Connection(site.https, tls=site.member.tls()) as connection:
        connection.send(f"GET {PRIMARY_PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{conditions}\r\n\r\n".encode())
        assert connection.answer().status == status


@pytest.mark.parametrize("path", ["/pulp/content/r/repodata/repomd.xml", "/pulp/content/r/a+b~1%2B2.rpm"])
def test_what_a_client_has_elsewhere_from_is_no_match(site: Site, path: str) -> None:
    got = site.ask(path, headers={"If-Match": '"a"', "Range": "bytes=0-1"})
    assert (got.status, got.body) == (412, b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_metadata_without_a_digest_in_its_name_tells_its_own(site: Site, method: str) -> None:
    path = "/pulp/content/r/repodata/repomd.xml"
    got = site.ask(path, method=method)
    tag = f'"sha256:{hashlib.sha256(REPOMD).hexdigest()}"'
    assert (got.status, got.headers["etag"], got.headers["content-length"]) == (200, tag, str(len(REPOMD)))
    assert got.body == (REPOMD if method == "GET" else b"")
    assert site.ask(path, method=method, headers={"If-None-Match": tag}).status == 304


def test_a_path_goes_on_as_it_came(site: Site) -> None:
    assert site.ask("/pulp/content/r/a+b~1%2B2.rpm?x=%20y&z").body == b"rpm"
    assert site.asked()[1] == "/pulp/content/r/a+b~1%2B2.rpm?x=%20y&z"


@pytest.mark.parametrize("old", ["repos", "isos", "deb"])
def test_what_pulp_2_called_its_paths_leads_to_todays(site: Site, old: str) -> None:
    assert site.ask(f"/pulp/{old}/r/repodata/repomd.xml").body == REPOMD


@pytest.mark.parametrize(
    "path",
    [
        "/pulp/content/../api/v3/users/", "/pulp/content/r/..", "/pulp/content/./r", "/pulp/content/%2e%2e/x",
        "/pulp/content/r%2Frepodata", "/pulp/content/r%5Cx", "/pulp/content/a%00b", "/pulp/content/a%0d%0ab",
        "/pulp/content/%zz", "/pulp/content/a\\b", "/pulp/content/ä", "/v2/%2e%2e/x", "/pub/%2e%2e/x", "/pub/../x",
        "//pulp/content/r/repodata/repomd.xml", "/pulp//content/r/repodata/repomd.xml", "//pub/in", "/rhsm/..;/x",
    ],
)  # fmt: skip
def test_what_may_be_read_two_ways_is_refused(site: Site, path: str) -> None:
    before = site.calls()
    assert site.ask(path).status == 400
    assert len(site.calls()) == len(before)


def test_a_long_path_and_an_absolute_one_are_answered_clearly(site: Site) -> None:
    assert site.ask("/pulp/content/" + "a" * 5000).status == 400
    assert site.ask("http://elsewhere.example.com/pulp/content/r/repodata/repomd.xml").status in (200, 400, 404)
    assert all(a[1].startswith("/") for a in site.backend.asked)


@pytest.mark.parametrize(
    "path", ["/", "/api/v2/hosts", "/unattended/provision", "/pulp/contentious", "/pulp", "/features"]
)
def test_every_other_path_is_unknown(site: Site, path: str) -> None:
    assert site.ask(path).status == 404


def test_each_port_has_its_own_places(site: Site) -> None:
    found = {
        (name, path): ask(place, "GET", path, tls=tls).status
        for name, place, tls in (
            ("http", site.http, None), ("rhsm", site.rhsm, site.member.tls()), ("docker", site.docker, site.member.tls()),
        )
        for path in ("/pulp/content/r/repodata/repomd.xml", "/rhsm/status", "/v2/", "/pulp/api/v3/status/")
    }  # fmt: skip
    # The API has no such file here: 404 either way.
    assert [k for k, v in found.items() if v == 200] == [
        ("http", "/pulp/content/r/repodata/repomd.xml"), ("rhsm", "/rhsm/status"), ("docker", "/v2/"),
    ]  # fmt: skip
    assert set(found.values()) == {200, 404}


def test_the_client_s_certificate_is_handed_over_as_each_backend_reads_it(site: Site) -> None:
    site.ask(PRIMARY_PATH, name="host.example.com")
    shown = unquote(site.asked()[2]["x-client-cert"])
    assert shown == site.member.client("host.example.com").read_text().partition("-----BEGIN PRIVATE")[0]
    site.ask("/rhsm/status", name="host.example.com")
    assert site.asked()[2]["x_rhsm_ssl_client_cert"] == shown.strip().replace("\n", " ")


@pytest.mark.parametrize(
    "name",
    [
        "X-Client-Cert", "x_client_cert", "X-RHSM-SSL-CLIENT-CERT", "X_RHSM_SSL_CLIENT_CERT", "SSL_CLIENT_CERT",
        "SSL-Client-Verify", "Remote-User", "REMOTE_USER", "X-Remote-User", "X-Forwarded-For", "Forwarded", "X-Real-IP",
        "X-Forwarded-Proto", "X-Forwarded-Host", "X-Muster-Hop",
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", [PRIMARY_PATH, "/rhsm/status", "/pulp/api/v3/status/", "/v2/"])
def test_nobody_says_himself_who_he_is(site: Site, name: str, path: str) -> None:
    site.ask(path, headers={name: "forged"})
    assert "forged" not in site.asked()[2].values()


def test_headers_of_one_connection_stay_there(site: Site) -> None:
    site.ask("/rhsm/status", headers={"Connection": "close, X-Mine", "X-Mine": "1", "TE": "trailers", "Upgrade": "h2c"})
    assert not {"x-mine", "te", "upgrade"} & site.asked()[2].keys()


@pytest.mark.parametrize(("name", "user"), [(member.TRUSTED, "admin"), ("host.example.com", None), (None, None)])
def test_only_trusted_hosts_are_pulps_administrator(site: Site, name: str | None, user: str | None) -> None:
    site.ask("/pulp/api/v3/status/", name=name, headers={"Authorization": "Basic eDp5"})
    sent = site.asked()[2]
    assert (sent.get("remote-user"), sent["authorization"]) == (user, "Basic eDp5")


def test_the_registry_of_pulp_is_for_the_gateway_of_the_host(site: Site) -> None:
    assert site.ask("/pulpcore_registry/v2/", name=member.TRUSTED).status == 403
    assert site.ask("/pulpcore_registry/v2/", name=site.member.name).status == 200
    assert site.asked()[1:2] == ("/v2/",)
    assert site.ask("//pulpcore_registry/v2/", name=site.member.name).status == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_is_passed_on(site: Site, chunked: bool) -> None:
    body = b"consumer" * 20_000
    with Connection(site.https, tls=site.member.tls()) as connection:
        head = "POST /rhsm/consumers?owner=x HTTP/1.1\r\nHost: proxy.example.com\r\nContent-Type: application/json\r\n"
        if chunked:
            framed = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in (body[:70_000], body[70_000:])) + b"0\r\n\r\n"
            connection.send(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + framed)
        else:
            connection.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        got = connection.answer()
    assert (got.status, got.body) == (200, body)
    method, path, sent, arrived = site.asked()
    assert (method, path, arrived, sent["content-type"]) == (
        "POST",
        "/rhsm/consumers?owner=x",
        body,
        "application/json",
    )


def test_a_slow_reader_holds_the_backend_up_and_no_memory(site: Site) -> None:
    site.backend.written = 0
    with Connection(site.http) as connection:
        connection.send(b"GET /pulp/content/endless HTTP/1.1\r\nHost: x\r\n\r\n")
        # As much as lies on the way; then the backend waits for the reader, however long it is looked at.
        held, deadline = -1, time.monotonic() + 20
        while site.backend.written != held or not held:
            assert time.monotonic() < deadline, "the backend goes on"
            held = site.backend.written
            time.sleep(1.0)
        assert held < BIG // 2
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and site.member.process.server.connections:
        time.sleep(0.05)
    # Who has gone away is not fetched for any more.
    assert site.backend.written < BIG


def test_half_an_answer_is_no_whole_one(site: Site) -> None:
    with Connection(site.http) as connection:
        connection.send(b"GET /pulp/content/cut HTTP/1.1\r\nHost: x\r\n\r\n")
        said = connection.remainder()
    assert said.startswith(b"HTTP/1.1 200")
    assert b"Content-Length: 1000" in said
    assert said.count(b"x") < 1000
    messages = [r["message"] for r in json.loads(site.member.ask("GET", "/logs/").body)["logs"]]
    assert any("A reply was cut" in m and "/pulp/content/cut" in m for m in messages)
    # What runs below the edge has nothing to complain of.
    assert not [m for m in messages if "ASGI" in m]


def test_not_modified_may_say_how_long_the_whole_is(site: Site) -> None:
    site.backend.raw = b'HTTP/1.1 304 Not Modified\r\nContent-Length: 500\r\nETag: "x"\r\n\r\n'
    with Connection(site.https, tls=site.member.tls()) as connection:
        for _ in range(2):
            connection.send(b"GET /rhsm/raw HTTP/1.1\r\nHost: x\r\n\r\n")
            got = connection.answer("HEAD")
            assert (got.status, got.headers["etag"], "content-length" in got.headers) == (304, '"x"', False)


@pytest.mark.parametrize(("said", "told"), [(b"", "5"), (b"Retry-After: 77\r\n", "77")])
@pytest.mark.parametrize("path", ["/rhsm/raw", "/pulp/content/raw"])
def test_every_503_says_when_to_come_again(site: Site, path: str, said: bytes, told: str) -> None:
    site.backend.raw = b"HTTP/1.1 503 Busy\r\n" + said + b"Content-Length: 4\r\n\r\nbusy"
    got = site.ask(path)
    assert (got.status, got.headers["retry-after"], got.body) == (503, told, b"busy")


@pytest.mark.parametrize("body", [b"", b"hello", b"x" * 300_000])
def test_who_knows_no_chunks_gets_none(site: Site, body: bytes) -> None:
    site.backend.raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    site.backend.raw += (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    with Connection(site.http) as connection:
        connection.send(b"GET /pulp/content/raw HTTP/1.0\r\n\r\n")
        head, _, got = connection.remainder().partition(b"\r\n\r\n")
    assert b"connection: close" in head
    assert b"transfer-encoding" not in head
    assert got == body


@pytest.mark.parametrize("hosts", ["Host: a\r\nHost: b", "Host: a b", "Host: a/b"])
def test_a_name_asked_for_is_one_name(site: Site, hosts: str) -> None:
    with Connection(site.https, tls=site.member.tls()) as connection:
        connection.send(f"GET /rhsm/status HTTP/1.1\r\n{hosts}\r\nConnection: close\r\n\r\n".encode())
        assert connection.answer().status == 400


def test_a_missing_slash_is_the_backends_to_add(site: Site) -> None:
    got = site.ask("/pulp/content/moved")
    assert (got.status, got.headers["location"]) == (301, "moved/")


@pytest.mark.parametrize(
    ("path", "location", "told"),
    [
        ("/pulp/repos/moved", "{home}/pulp/content/moved/", "/pulp/repos/moved/"),
        ("/rhsm/moved", "{home}/rhsm?x", "/rhsm?x"),
        ("/rhsm/moved", "{home}/users/login", "{home}/users/login"),
        ("/rhsm/moved", "https://elsewhere.example.com/rhsm", "https://elsewhere.example.com/rhsm"),
    ],
)
def test_a_place_of_the_backend_is_told_as_one_of_ours(site: Site, path: str, location: str, told: str) -> None:
    home = f"http://127.0.0.1:{site.backend.port}"
    site.backend.location = location.format(home=home)
    try:
        assert site.ask(path).headers["location"] == told.format(home=home)
    finally:
        site.backend.location = ""


def test_content_fills_no_log_that_foreman_reads_and_is_counted_by_place(site: Site) -> None:
    site.member.access_lines.clear()
    site.ask(PRIMARY_PATH)
    logs = site.member.ask("GET", "/logs/").text
    assert PRIMARY_NAME not in logs
    # Workers write theirs themselves.
    assert site.member.process.workers or any(PRIMARY_NAME in line for line in site.member.access_lines)
    metrics = site.member.ask("GET", "/metrics").text
    assert 'route="/pulp/content",status="200"' in metrics


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "PROPFIND"])
def test_other_methods_are_refused(site: Site, method: str) -> None:
    assert site.ask(PRIMARY_PATH, method=method).status in (400, 405)


RPM = "/pub/site-tools-latest.noarch.rpm"


def test_files_of_pub_are_served_whole_and_in_part(site: Site) -> None:
    body = b"consumer" * 1000
    got = site.ask(RPM)
    assert (got.status, got.body, got.headers["content-type"]) == (200, body, "application/x-rpm")
    assert ask(site.http, "GET", "/pub/in").body == body
    assert site.ask(RPM, method="HEAD").headers["content-length"] == "8000"
    for wanted, first, last in (("bytes=0-3", 0, 4), ("bytes=7990-", 7990, 8000), ("bytes=-5", 7995, 8000)):
        part = site.ask(RPM, headers={"Range": wanted})
        assert (part.status, part.body) == (206, body[first:last])
        assert part.headers["content-range"] == f"bytes {first}-{last - 1}/8000"
    assert site.ask(RPM, headers={"Range": "bytes=8000-"}).status == 416


def test_what_the_smart_proxy_has_below_pub_is_the_same(site: Site) -> None:
    body = b"consumer" * 1000
    for path in (RPM, "/pub/in"):
        assert site.member.ask("GET", path).body == body == ask(site.member.http, "GET", path).body
    head = ask(site.member.http, "HEAD", RPM)
    assert (head.status, head.headers["content-length"]) == (200, "8000")
    assert ask(site.member.http, "GET", RPM, headers={"Range": "bytes=0-3"}).body == b"cons"
    # Plain files and nothing else, also for whoever Foreman trusts; and nothing of what content's own ports have beside.
    for path in ("/pub", "/pub/", "/pub/out", "/pub/nothing", "/pulp/content/"):
        assert site.member.ask("GET", path).status == 404 == ask(site.member.http, "GET", path).status
    assert [site.member.ask(m, RPM).status for m in ("POST", "PUT", "DELETE", "OPTIONS")] == [405] * 4
    assert [site.member.ask("GET", p).status for p in ("/pub/%2e%2e/x", "/pub/../features")] == [400, 400]


@pytest.mark.parametrize("path", ["/pub/in", "/pub/nothing", "/pulp/content/nothing"])
def test_a_body_that_nobody_wants_does_not_reset_the_reply_away(site: Site, path: str) -> None:
    with Connection(site.http) as connection:
        connection.send(request("GET", path, {"Content-Length": "3000000"}))
        # As most clients do, it sends all of it before it looks for an answer.
        for _ in range(30):
            connection.send(bytes(100_000))
            time.sleep(0.005)
        assert connection.answer().status == (200 if path == "/pub/in" else 404)


@pytest.mark.parametrize("path", ["/pub", "/pub/", "/pub/out", "/pub/nothing", "/pub/etc/passwd"])
def test_nothing_else_of_pub_is_served(site: Site, path: str) -> None:
    assert site.ask(path).status == 404


def test_services_are_ready_when_their_backend_has_answered(site: Site) -> None:
    def state(service: str) -> Any:
        return json.loads(site.member.ask("GET", f"/health/ready?service={service}").body)

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not all(state(s)["ready"] for s in ("https", "http", "docker", "rhsm")):
        time.sleep(0.1)
    assert all(state(s)["ready"] for s in ("https", "http", "docker", "rhsm"))


def test_a_backend_that_is_away_costs_its_services_alone_and_a_sentence(tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    made = member.made(tmp_path, content={"services": ["https"], "pulp_content_url": dead})
    port = free_port(made.https.address)
    document = yaml.safe_load(made.cluster_file.read_text())
    document["services"]["https"] = {"member_port": port}
    made.cluster_file.write_text(yaml.safe_dump(document))
    made.start()
    try:
        got = ask(Place(made.https.address, port), "GET", "/pulp/content/x", tls=made.tls())
        assert got.status == 503
        assert got.headers["retry-after"]
        assert "Pulp's content application cannot be reached" in got.text
        said = json.loads(made.ask("GET", "/health/ready?service=https").body)
        assert said["state"] == "unready"
        assert made.ask("GET", "/health/ready?service=smartproxy").status == 200
    finally:
        made.stop()


def short_lived(directory: Path, backend: Backend, *, stop_timeout_s: float) -> tuple[Member, Place]:
    """Return a member that is started and can be stopped, and where it answers over HTTP."""
    url = f"http://127.0.0.1:{backend.port}"
    content = {"services": ["http"], "pulp_content_url": url}
    made = member.made(directory, content=content, edge={"stop_timeout_s": stop_timeout_s})
    port = free_port(made.https.address)
    document = yaml.safe_load(made.cluster_file.read_text())
    document["services"]["http"] = {"member_port": port}
    made.cluster_file.write_text(yaml.safe_dump(document))
    made.start()
    return made, Place(made.https.address, port)


ENDLESS = b"GET /pulp/content/endless HTTP/1.1\r\nHost: x\r\n\r\n"


def test_a_member_that_stops_lets_a_download_end(tmp_path: Path, backend: Backend) -> None:
    made, place = short_lived(tmp_path, backend, stop_timeout_s=60)
    stopping = threading.Thread(target=made.stop)
    try:
        with Connection(place) as connection:
            connection.send(ENDLESS)
            assert connection.socket.recv(12) == b"HTTP/1.1 200"
            stopping.start()
            deadline = time.monotonic() + 20
            # Nobody is let in any more: it stops.
            while accepts(place):
                assert time.monotonic() < deadline, "it does not stop"
                time.sleep(0.05)
            got = sum(map(len, iter(lambda: connection.socket.recv(1 << 20), b"")))
        # The rest of its headers is part of it.
        assert BIG < got < BIG + 1000
    finally:
        if not stopping.ident:
            stopping.start()
        stopping.join()


def accepts(place: Place) -> bool:
    try:
        Connection(place).close()
    except OSError:
        return False
    return True


def test_a_download_that_outlasts_a_stop_is_cut_without_a_complaint(
    tmp_path: Path, backend: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    made, place = short_lived(tmp_path, backend, stop_timeout_s=0.2)
    try:
        with Connection(place) as connection:
            connection.send(ENDLESS)
            assert connection.socket.recv(12) == b"HTTP/1.1 200"
            made.stop()
            assert len(connection.remainder()) < BIG
    finally:
        made.stop()
    said = capfd.readouterr().err
    assert "Calls in flight were cut" in said
    assert "ASGI" not in said
