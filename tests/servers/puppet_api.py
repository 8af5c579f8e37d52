"""A small stand-in for a puppetserver's HTTP API over mutual TLS: certificates, environments and classes as it is told.

For the recorded conversations, in which the server's side is known word for word; what a real one does is asked of a real
one (``tests/servers/puppetserver.py``).
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundlePaths, BundleRequest

_STATUSES = "/puppet-ca/v1/certificate_statuses/"
_STATUS = "/puppet-ca/v1/certificate_status/"
_ENVIRONMENTS = "/puppet/v3/environments"
_CLASSES = "/puppet/v3/environment_classes"
_HEALTH = "/status/v1/simple/"


class Said(NamedTuple):
    """An answer; ``content`` is a text, or a value to be sent as JSON."""

    status: int
    content: Any = ""


class Asked(NamedTuple):
    """A call that arrived; the member's own looks at whether the server is there are left out."""

    method: str
    path: str
    document: Any

    @classmethod
    def of(cls, method: str, path: str, body: str) -> Asked:
        """Return the call with its JSON read: blanks in it mean nothing."""
        return cls(method, path, json.loads(body) if body else None)


@dataclass
class PuppetAPI:
    """What the server has; tests may change it while it runs.

    Attributes:
        certificates: what it says of each certname, by certname; ``state`` is ``requested``, ``signed`` or ``revoked``.
        issued: what a certificate has besides its name and state once it is signed.
        module_paths: the environments, by name.
        manifests: the ``files`` of each environment's classes; an ETag goes with them.
        failures: answers that stand for the usual ones, by path with query.
        asked: the calls so far.
        client: the certificate it lets in.
    """

    url: str
    client: BundlePaths
    certificates: dict[str, dict[str, Any]] = field(default_factory=dict)
    issued: Mapping[str, Any] = field(default_factory=dict)
    module_paths: dict[str, list[str]] = field(default_factory=dict)
    manifests: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    failures: dict[str, Said] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, str]:
        """What the settings of a provider ``puppetserver`` say of it."""
        return {
            "url": self.url,
            "certificate": str(self.client.certificate),
            "key": str(self.client.key),
            "ca": str(self.client.ca),
        }

    def answer(self, method: str, target: str, body: str, etag: str | None) -> Said:
        asked = urlsplit(target)
        if target in self.failures:
            return self.failures[target]
        if asked.path.startswith(_HEALTH):
            return Said(200, "running")
        if asked.path.startswith(_STATUSES):
            return Said(200, [{"name": n, **s} for n, s in sorted(self.certificates.items())])
        if asked.path.startswith(_STATUS):
            return self._changed(method, unquote(asked.path.removeprefix(_STATUS)), body)
        if asked.path == _ENVIRONMENTS:
            found = {n: {"settings": {"modulepath": paths}} for n, paths in self.module_paths.items()}
            return Said(200, {"environments": found})
        if asked.path == _CLASSES:
            (name,) = parse_qs(asked.query)["environment"]
            if name not in self.manifests:
                return Said(404, f"Could not find environment '{name}'")
            return Said(304) if etag == _etag(name) else Said(200, {"name": name, "files": self.manifests[name]})
        return Said(404, "there is no such call")

    def _changed(self, method: str, name: str, body: str) -> Said:
        known = self.certificates.get(name)
        if method == "DELETE":
            return Said(204) if self.certificates.pop(name, None) else Said(404, "Resource not found.")
        wished = json.loads(body)["desired_state"]
        if known is None:
            return Said(404, "Invalid certificate subject.")
        if wished == "signed":
            if known["state"] != "requested":
                return Said(409, f"Cannot sign certificate for host {name} without a certificate request")
            self.certificates[name] = {**known, "state": "signed", **self.issued}
        elif known["state"] == "requested":
            return Said(409, f"Cannot revoke certificate for host {name} without a signed certificate")
        else:
            self.certificates[name] = {**known, "state": "revoked"}
        return Said(204)


def _etag(environment: str) -> str:
    return f"etag-{environment}"


@contextlib.contextmanager
def running(directory: Path, *, client: str, address: str = "127.0.0.1") -> Iterator[PuppetAPI]:
    """Yield a server that listens, with a CA of its own; ``client`` is the name it gives a certificate to."""
    ca = ClusterCA.create(directory / "ca", "puppet", now=datetime.now(UTC))

    def issued(kind: Any, name: str) -> BundlePaths:
        bundle = ca.issue(BundleRequest(kind, name, (), (address,)), now=datetime.now(UTC))
        return bundles.write(bundle, directory / "pki")

    own = issued("member", "puppet.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.certificate, own.key)
    context.load_verify_locations(own.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    with _Listener((address, 0), _Talk) as server:
        server.api = PuppetAPI(f"https://{address}:{server.server_port}", issued("member", client))
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="puppet api")
        thread.start()
        try:
            yield server.api
        finally:
            server.shutdown()
            thread.join()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    api: PuppetAPI

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away in the middle is its own affair.
        pass


class _Talk(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Listener

    def _answer(self) -> None:
        api = self.server.api
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        if not self.path.startswith(_HEALTH) and not self.path.endswith("environment=-"):
            api.asked.append(Asked.of(self.command, self.path, body))
        said = api.answer(self.command, self.path, body, self.headers.get("If-None-Match"))
        is_text = isinstance(said.content, str)
        sent = (said.content if is_text else json.dumps(said.content)).encode()
        self.send_response(said.status)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        if self.path.startswith(_CLASSES) and said.status in (200, 304):
            self.send_header("Etag", _etag(parse_qs(urlsplit(self.path).query)["environment"][0]))
        if said.status not in (204, 304):
            self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        if said.status not in (204, 304):
            self.wfile.write(sent)

    def do_GET(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_DELETE(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass
