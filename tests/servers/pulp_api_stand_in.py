"""A stand-in for Pulp's REST API: distributions, publications and repositories of yum content, tasks, pages.

What it cannot show is what Pulp refuses; tests with the real one do.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

ROOT = "/pulp/api/v3/"


@dataclass
class PulpApi:
    """One. Use :meth:`running`.

    Attributes:
        core: pulpcore's version.
        objects: what there is, by its href.
        broken: status and body of every answer, while it is set.
        task: how tasks end.
        asked: method, path without its query, and headers of all that came.
        page: how many objects a page has at most.
    """

    core: str = "3.123.1"
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    broken: tuple[int, bytes] | None = None
    task: str = "completed"
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    page: int = 2
    url: str = ""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def add(self, kind: str, **content: Any) -> str:
        """Add an object: ``distributions``, ``publications`` or ``repositories``; return its href."""
        href = f"{ROOT}{kind}/rpm/rpm/{next(self._numbers):032x}/"
        self.objects[href] = {"pulp_href": href, **content}
        return href

    def distribute(self, base_path: str, **content: Any) -> str:
        """Add a distribution; return its href."""
        whole: dict[str, Any] = {
            "name": base_path, "base_path": base_path, "repository": None, "repository_version": None, "publication": None,
            "content_guard": None, "pulp_labels": {}, "hidden": False, "checkpoint": False,
        }  # fmt: skip
        return self.add("distributions", **{**whole, **content})

    def publish(self, repository: str, number: int) -> str:
        """Add a publication of a version; return its href."""
        version = f"{repository}versions/{number}/"
        return self.add("publications", repository_version=version, pulp_created=f"2026-11-{number:02}T00:00:00Z")

    def at(self, base_path: str) -> dict[str, Any] | None:
        """Return a distribution."""
        return next((o for o in self.objects.values() if o.get("base_path") == base_path), None)

    def changes(self) -> list[tuple[str, str]]:
        """Return what was changed: methods and paths."""
        return [(method, path) for method, path, _ in self.asked if method != "GET"]

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        it = self

        class Handler(BaseHTTPRequestHandler):
            def do(self) -> None:
                path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
                it.asked.append((self.command, path, {k.lower(): v for k, v in self.headers.items()}))
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, said = it.broken or it.answer(self.command, path, query, json.loads(body or b"{}"))
                told = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(told)))
                self.end_headers()
                self.wfile.write(told)

            do_GET = do_POST = do_PATCH = do_DELETE = do  # noqa: N815 - http.server's names

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and what is said."""
        if path == f"{ROOT}status/":
            return 200, {
                "versions": [{"component": "rpm", "version": "3.39.4"}, {"component": "core", "version": self.core}]
            }
        if path == f"{ROOT}tasks/1/":
            return 200, {
                "state": self.task,
                "error": {"description": "it has overlaps"} if self.task == "failed" else None,
            }
        if method == "GET" and path.endswith("/rpm/rpm/"):
            return 200, self._listed(path, query)
        if method == "POST":
            self.add("distributions", **{"pulp_labels": {}, **body})
        elif path not in self.objects:
            return 404, {}
        elif method == "DELETE":
            del self.objects[path]
        elif method == "PATCH":
            self.objects[path] |= body
        else:
            return 200, self.objects[path]
        return 202, {"task": f"{ROOT}tasks/1/"}

    def _listed(self, path: str, query: dict[str, list[str]]) -> dict[str, Any]:
        asked = {k: v[0] for k, v in query.items()}
        found = [o for h, o in self.objects.items() if h.startswith(path)]
        if "base_path__in" in asked:
            found = [o for o in found if o["base_path"] in asked["base_path__in"].split(",")]
        if "pulp_label_select" in asked:
            label, has, value = asked["pulp_label_select"].partition("=")
            found = [o for o in found if label in o["pulp_labels"] and (not has or o["pulp_labels"][label] == value)]
        if "repository" in asked:
            found = [o for o in found if o["repository_version"].startswith(asked["repository"])]
        if "repository_version" in asked:
            found = [o for o in found if o["repository_version"] == asked["repository_version"]]
        if asked.get("ordering") == "-pulp_created":
            found.sort(key=lambda o: str(o["pulp_created"]), reverse=True)
        begin = int(asked.get("offset", "0"))
        page = min(self.page, int(asked["limit"])) if "ordering" not in asked else int(asked["limit"])
        following = None
        if begin + page < len(found) and "ordering" not in asked:
            # Its host is another than the one that was asked.
            following = f"https://pulp.invalid{path}?{urlencode({**asked, 'offset': begin + page})}"
        return {"count": len(found), "next": following, "results": found[begin : begin + page]}
