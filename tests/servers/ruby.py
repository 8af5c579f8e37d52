"""What a Ruby Smart Proxy says of itself, said by a TLS server of our own: three routes and its rule of trust."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from muster.cluster.sections import Foreman
from muster.pki.bundles import BundlePaths
from tests.servers.client import Place
from tests.servers.listener import Listener


def feature(state: str = "running", **settings: Any) -> dict[str, Any]:
    """As the packages of the Ruby proxy have it: over HTTPS only."""
    on = state == "running"
    return {"http_enabled": False, "https_enabled": on, "settings": settings, "state": state, "capabilities": []}


@dataclass
class RubyProxy:
    """A proxy whose features tests may change while it runs.

    Attributes:
        trusted: common name that may ask ``/v2/features``.
        raw: answers that stand for the usual ones, by path: status and body.
        server_names: the names clients asked for in TLS.
    """

    place: Place
    trusted: str
    version: str = Foreman().told_version
    features: dict[str, dict[str, Any]] = field(default_factory=dict)
    raw: dict[str, tuple[int, str]] = field(default_factory=dict)
    server_names: set[str | None] = field(default_factory=set)

    def answer(self, path: str, client: str | None) -> tuple[int, str]:
        running = sorted(n for n, f in self.features.items() if f["state"] == "running")
        if path in self.raw:
            return self.raw[path]
        if path == "/version":
            return 200, json.dumps({"version": self.version, "modules": dict.fromkeys(running, self.version)})
        if path == "/features":
            return 200, json.dumps(running)
        if path != "/v2/features":
            return 404, "Requested url was not found"
        if client != self.trusted:
            return (
                403,
                f"Untrusted client {client} attempted to access /features. Check :trusted_hosts: in settings.yml",
            )
        return 200, json.dumps(self.features)


@contextlib.contextmanager
def running(proxy: RubyProxy, bundle: BundlePaths, ca: Path) -> Iterator[RubyProxy]:
    """Serve the proxy's answers under the bundle's certificate."""

    class Talk(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            subject = dict(pair[0] for pair in (self.connection.getpeercert() or {}).get("subject", ()))
            status, body = proxy.answer(self.path, subject.get("commonName"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle.certificate, bundle.key)
    context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.sni_callback = lambda _, name, __: proxy.server_names.add(name)
    with Listener(proxy.place, Talk, context) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="ruby proxy")
        thread.start()
        try:
            yield proxy
        finally:
            server.shutdown()
            thread.join()
