"""A Foreman's API, said by a TLS server of our own: its status, HTTP Basic, and its rule of the name it is asked by.

A stand-in: the routes of Smart Proxies are made after Foreman's published documentation of its API.
"""

from __future__ import annotations

import base64
import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest, write
from tests.servers.certificates import NOW
from tests.servers.listener import Listener

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
        proxies: the Smart Proxies it knows, by number.
        taxonomies: organisations and locations, by kind.
        asks: returns the features that a Smart Proxy at a URL has; None: it cannot be reached.
        changes: what it was told to change.
        name: by which it knows itself.
    """

    directory: Path
    ca: ClusterCA
    version: str = "3.19.0"
    token: str = TOKEN
    raw: tuple[int, str] | None = None
    asked: list[str] = field(default_factory=list)
    server_names: set[str | None] = field(default_factory=set)
    port: int = 0
    proxies: dict[int, dict[str, Any]] = field(default_factory=dict)
    taxonomies: dict[str, dict[str, int]] = field(default_factory=lambda: {"organizations": {}, "locations": {}})
    asks: Callable[[str], dict[str, list[str]] | None] = lambda _: {}
    changes: list[tuple[str, str]] = field(default_factory=list)
    name: str = NAME
    _server: Listener | None = None

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
        if host != f"{self.name}:{self.port}":
            return 403, "Blocked host"
        if authorization != f"Basic {basic(self.token)}":
            return 401, json.dumps({"error": {"message": f"Unable to authenticate user {USER}"}})
        if self.raw is not None:
            return self.raw
        if path.startswith("/api/smart_proxies") or path.split("?")[0] in ("/api/organizations", "/api/locations"):
            return self._listed(path)
        if path != "/api/v2/status":
            return 404, json.dumps({"error": {"message": "Resource not found"}})
        return 200, json.dumps({"result": "ok", "status": 200, "version": self.version, "api_version": 2})

    def _listed(self, path: str) -> tuple[int, str]:
        parts = urlsplit(path)
        asked = parse_qs(parts.query)
        if parts.path == "/api/smart_proxies":
            first, size = (int(asked[k][0]) for k in ("page", "per_page"))
            rows = list(self.proxies.values())[(first - 1) * size : first * size]
            # A list says nothing of organisations.
            short = [{k: v for k, v in row.items() if k not in self.taxonomies} for row in rows]
            return 200, json.dumps({"total": len(self.proxies), "page": first, "per_page": size, "results": short})
        kind = parts.path.removeprefix("/api/")
        if kind in self.taxonomies:
            name = asked["search"][0].removeprefix('name="').removesuffix('"')
            rows = [{"id": n, "name": k.rpartition("/")[2], "title": k} for k, n in self.taxonomies[kind].items()]
            found = [row for row in rows if row["name"] == name]
            return 200, json.dumps({"results": found})
        row = self.proxies.get(int(parts.path.rpartition("/")[2]))
        return (200, json.dumps(row)) if row is not None else (404, json.dumps({"error": {"message": "not found"}}))

    def change(self, method: str, path: str, host: str, authorization: str, body: bytes) -> tuple[int, str]:
        refused = self.answer("/api/v2/status", host, authorization)
        if refused[0] != 200:
            return refused
        self.changes.append((method, path))
        given = json.loads(body or b"{}").get("smart_proxy", {})
        if (method, path) == ("POST", "/api/smart_proxies"):
            if any(p["name"] == given["name"] or p["url"] == given["url"] for p in self.proxies.values()):
                return 422, json.dumps({"error": {"id": None, "full_messages": ["Name has already been taken"]}})
            number = max(self.proxies, default=0) + 1
            row = {"id": number, "name": given["name"], "url": given["url"]}
            for kind in self.taxonomies:
                ids = given.get(f"{kind.removesuffix('s')}_ids", [])
                row[kind] = [
                    {"id": n, "name": k.rpartition("/")[2], "title": k}
                    for k, n in self.taxonomies[kind].items()
                    if n in ids
                ]
        elif method == "PUT":
            number = int(path.split("/")[3])
            row = {**self.proxies[number], **given}
        else:
            return 404, json.dumps({"error": {"message": "not found"}})
        features = self.asks(row["url"])
        if features is None:
            words = "Unable to communicate with the Smart Proxy: ERF12-2530: connection refused"
            return 422, json.dumps({"error": {"id": number, "errors": {"base": [words]}, "full_messages": [words]}})
        row["features"] = [{"id": n, "name": k, "capabilities": c} for n, (k, c) in enumerate(features.items(), 1)]
        self.proxies[number] = row
        return 201 if method == "POST" else 200, json.dumps(row)

    def start(self) -> None:
        """Answer, on the same port as before."""
        foreman = self

        class Talk(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                foreman.asked.append(self.path)
                said = self.headers.get("Host", ""), self.headers.get("Authorization", "")
                status, body = foreman.answer(self.path, *said)
                self._say(status, body)

            def do_POST(self) -> None:
                said = self.headers.get("Host", ""), self.headers.get("Authorization", "")
                given = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self._say(*foreman.change(self.command, self.path, *said, given))

            def do_PUT(self) -> None:
                self.do_POST()

            def _say(self, status: int, body: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body.encode())))
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        server = Listener(("127.0.0.1", self.port), Talk, self._context)
        self.port = server.server_address[1]
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
