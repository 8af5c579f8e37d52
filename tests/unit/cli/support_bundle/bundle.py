"""A cluster whose every place holds a secret, members that tell some, and a bundle unpacked."""

from __future__ import annotations

import contextlib
import http.server
import json
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from click.testing import CliRunner, Result

from muster.cli import muster
from muster.pki.authority import ClusterCA
from muster.pki.bundles import paths
from muster.pki.context import server_context

CLUSTER = """\
# Ask carol; her password: planted-comment
schema: 1
cluster: demo
address: proxy.corp.test
store: {{url: "{store}"}}
foreman: {{url: "https://foreman.corp.test", trusted_hosts: [foreman.corp.test]}}
members:
- {{id: 1, name: gandalf.corp.test, address: 127.0.0.11}}
- {{id: 2, name: proxy02.corp.test, address: 127.0.0.12}}
balancers: [{{name: lb01, address: 127.0.0.13, bind: 127.0.0.13}}]
services:
  puppetca: {{enabled: false}}
  puppet: {{enabled: false}}
  smartproxy: {{member_port: {port}}}
features:
  dns: {{provider: nsupdate, nsupdate: {{server: 10.20.30.40, key_name: k.corp.test, key_secret: cGxhbnRlZC1rZXk=}}}}
"""
PLANTED = (
    "planted-comment", "planted-store", "cGxhbnRlZC1rZXk", "planted-env", "planted-bearer", "planted-query",
    "planted-cookie", "planted-label", "planted-json", "planted-basic", "cGxhbnRlZA", "planted-url",
    "PLANTEDKEY", "planted-in-force",
)  # fmt: skip
_RECORDS = [
    "asked https://u:planted-url@pulp.corp.test/x from 10.20.30.41",
    "sent Authorization: Bearer planted-bearer",
    "Finished GET /register?token=planted-query with 200",
    "Cookie: session=planted-cookie",
    'got {"password": "planted-json", "host": "web7.corp.test"} of 52:54:00:12:34:56',
    "Basic cGxhbnRlZDpwbGFudGVkLWJhc2lj was refused",
    "-----BEGIN PRIVATE KEY-----\nPLANTEDKEY\n-----END PRIVATE KEY-----",
    "the key cGxhbnRlZC1rZXk= is refused by 10.20.30.40",
]


def answers() -> dict[str, bytes]:
    logs = [
        {"timestamp": 1.0 + n, "level": "INFO", "message": m, "member": "gandalf.corp.test"}
        for n, m in enumerate(_RECORDS)
    ]
    metrics = 'muster_x{url="https://pulp.corp.test/?token=planted-label",member="gandalf"} 1\n'
    return {
        "/logs/": json.dumps({"info": {"size": 9}, "logs": logs}).encode(),
        "/metrics/": metrics.encode(),
    }


@contextlib.contextmanager
def made(directory: Path, *, store: str = "") -> Iterator[Path]:
    """Hold a cluster of two members, the first of which answers, and yield its file."""
    pki = directory / "pki"
    ca = ClusterCA.create(pki, "demo", now=datetime.now(UTC))
    file = directory / "cluster.yaml"
    server = _Server(("127.0.0.11", 0), _Member)
    url = store or f"sqlite:///{directory / 'store.db'}"
    file.write_text(CLUSTER.format(store=url, port=server.server_address[1]))
    where = ["--cluster", str(file), "--pki", str(pki)]
    issued = CliRunner().invoke(
        muster, ["certs", "issue", "--all", "--balancer", "--client", "foreman.corp.test", *where]
    )
    assert issued.exit_code == 0, (issued.output, issued.exception)
    own = paths(pki, "member", "gandalf.corp.test")
    context = server_context(own.certificate, own.key, [pki / "ca.pem"])
    server.socket = context.wrap_socket(server.socket, server_side=True)
    assert ca is not None
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield file
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Who only looks at a port, and goes, is none."""


class _Member(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = answers().get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


def bundled(file: Path, *options: str, run: Path | None = None, given: str | None = None) -> Result:
    where = ["--cluster", str(file), "--run", str(run or file.parent / "run")]
    return CliRunner().invoke(muster, ["support-bundle", *where, *options], input=given, standalone_mode=False)


def unpacked(archive: Path) -> dict[str, str]:
    with tarfile.open(archive) as tar:
        found = {}
        for entry in tar:
            content = tar.extractfile(entry)
            assert content is not None
            found[entry.name.removeprefix("muster-support/")] = content.read().decode()
        return found
