"""A Foreman's API, said by a TLS server of our own: its status, HTTP Basic, and its rule of the name it is asked by."""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers.certificates import NOW

# The one name that every host resolves.
NAME = "localhost"
USER, TOKEN = "muster", "q1w2e3r4t5y6u7i8o9p0-A"


def basic(token: str) -> str:
    """Return what HTTP Basic shows of a token."""
    return base64.b64encode(f"{USER}:{token}".encode()).decode()


@dataclass
class Foreman:
    """A Foreman whose answers tests may change while it runs; :meth:`start` and :meth:`stop` it at will.

    Attributes:
        token: of the user that may ask.
        raw: status and body that stand for the usual answer.
        asked: the paths that were asked for, in order.
        server_names: the names clients asked for in TLS.
    """

    directory: Path
    ca: ClusterCA
    version: str = "3.19.0"
    token: str = TOKEN
    raw: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    server_names: set[str | None] = field(default_factory=set)
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    def __post_init__(self) -> None:
        bundle = write(self.ca.issue(BundleRequest("member", NAME), now=NOW), self.directory)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(bundle.certificate, bundle.key)
        self._context.sni_callback = lambda _, name, __: self.server_names.add(name)

    @property
    def url(self) -> str:
        return f"https://{NAME}:{self.port}"

    @property
    def token_file(self) -> Path:
        """A file with the token that may ask, for its owner alone."""
        path = self.directory / "foreman.token"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(f"{TOKEN}\nfor /version\n")
        return path

    def settings(self) -> dict[str, Any]:
        """Return the section ``foreman`` of who asks it."""
        return {"url": self.url, "api_user": USER, "api_token_file": str(self.token_file)}

    def answer(self, path: str, host: str, authorization: str) -> tuple[int, str]:
        if host != f"{NAME}:{self.port}":
            return 403, "Blocked host"
        if authorization != f"Basic {basic(self.token)}":
            return 401, json.dumps({"error": {"message": f"Unable to authenticate user {USER}"}})
        if self.raw is not None:
            return self.raw
        if path != "/api/v2/status":
            return 404, json.dumps({"error": {"message": "Resource not found"}})
        return 200, json.dumps({"result": "ok", "status": 200, "version": self.version, "api_version": 2})

    def start(self) -> None:
        """Answer, on the same port as before."""
        foreman = self

        class Talk(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                foreman.asked.append(self.path)
                said = self.headers.get("Host", ""), self.headers.get("Authorization", "")
                status, body = foreman.answer(self.path, *said)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

        server = Listener(("127.0.0.1", self.port), Talk)
        self.port = server.server_address[1]
        # In the handshake's own thread: one client must not hold up the others.
        server.socket = self._context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.05,), name="foreman", daemon=True).start()
        self._server = server

    def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()


@contextlib.contextmanager
def running(directory: Path, *, ca: ClusterCA | None = None, **said: Any) -> Iterator[Foreman]:
    """Yield a Foreman that answers, with a certificate of a CA of its own unless one is given."""
    directory.mkdir(exist_ok=True)
    foreman = Foreman(directory, ca or ClusterCA.create(directory / "ca", "foreman's", now=NOW), **said)
    foreman.start()
    try:
        yield foreman
    finally:
        foreman.stop()
