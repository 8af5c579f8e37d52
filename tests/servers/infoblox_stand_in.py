"""A stand-in for Infoblox' web API, made from its documentation: networks, addresses, hosts, leases, DNS records, in pages.

It is no Infoblox: what a grid refuses, and how it words it, it does not know. It shows what the provider asks, and that it
reads what the documentation says is answered.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

USERNAME, PASSWORD = "foreman", "infoblox-stand-in"
_ROOT = "/wapi/v2.0/"
_PAGE = 2


@dataclass
class Grid:
    """One. Use :func:`running`.

    Attributes:
        objects: what there is, by kind.
        broken: status and body of every answer, while it is set.
        slow_s: how long each answer takes.
        asked: method, kind and query of all that came.
        restarts: how often DHCP was restarted.
    """

    objects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    broken: tuple[int, bytes] | None = None
    slow_s: float = 0.0
    asked: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    restarts: int = 0
    url: str = ""
    _pages: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, kind: str, **content: Any) -> dict[str, Any]:
        """Add an object."""
        content["_ref"] = f"{kind}/ZG5z{next(self._numbers)}:for people, any text/default"
        self.objects.setdefault(kind, []).append(content)
        return content

    def answer(self, method: str, path: str, query: dict[str, str], content: dict[str, Any]) -> tuple[int, Any]:
        """Return status and answer of one call."""
        with self._lock:
            kind = path.partition("/")[0]
            self.asked.append((method, kind, query))
            if method == "GET":
                return 200, self._page(kind, query)
            if method == "DELETE":
                return self._deleted(kind, path)
            if query.get("_function") == "restartservices":
                self.restarts += 1
                return 200, {}
            return self._created(kind, content)

    def _page(self, kind: str, query: dict[str, str]) -> dict[str, Any]:
        if "_page_id" in query:
            left = self._pages.pop(query["_page_id"])
        else:
            wanted = {k: v for k, v in query.items() if not k.startswith("_")}
            fields = query["_return_fields"].split(",")
            left = [
                {"_ref": one["_ref"], **{f: one[f] for f in fields if f in one}}
                for one in self._all(kind)
                if all(str(one.get(k, "default" if k.endswith("view") else None)) == v for k, v in wanted.items())
            ]
        page, left = left[:_PAGE], left[_PAGE:]
        if not left:
            return {"result": page}
        number = f"page{next(self._numbers)}"
        self._pages[number] = left
        return {"result": page, "next_page_id": number}

    def _all(self, kind: str) -> list[dict[str, Any]]:
        networks = [IPv4Network(n["network"]) for n in self.objects.get("network", [])]

        def network(ip: str) -> str:
            return str(next((n for n in networks if IPv4Address(ip) in n), None))

        if kind == "record:host_ipv4addr":
            return [
                {**a, "_ref": f"{kind}/ZG5z:x", "host": h["name"], "network": network(a["ipv4addr"])}
                for h in self.objects.get("record:host", [])
                for a in h["ipv4addrs"]
            ]
        if kind == "record:host":
            return [{**h, "ipv4addr": h["ipv4addrs"][0]["ipv4addr"]} for h in self.objects.get(kind, [])]
        if kind == "ipv4address":
            used = [one["ipv4addr"] for k in ("fixedaddress", "record:host_ipv4addr") for one in self._all(k)]
            used += [one["address"] for one in self.objects.get("lease", []) if one["binding_state"] == "ACTIVE"]
            return [
                {"_ref": "ipv4address/Li5z:x", "ip_address": str(ip), "network": str(n),
                 "status": "USED" if str(ip) in used or ip in (n[0], n[-1]) else "UNUSED"}
                for n in networks for ip in n
            ]  # fmt: skip
        found = self.objects.get(kind, [])
        return [{**one, "network": network(one["ipv4addr"])} if kind == "fixedaddress" else one for one in found]

    def _deleted(self, kind: str, path: str) -> tuple[int, Any]:
        for one in self.objects.get(kind, []):
            if one["_ref"].startswith(f"{path}:"):
                self.objects[kind].remove(one)
                return 200, one["_ref"]
        return 404, {"Error": "AdmConDataNotFoundError", "code": "Client.Ibap.Data.NotFound", "text": "not found"}

    def _created(self, kind: str, content: dict[str, Any]) -> tuple[int, Any]:
        if kind.startswith("record:") and kind != "record:host":
            zones = [zone["fqdn"] for zone in self.objects.get("zone_auth", [])]
            if not any(f".{content['name']}".endswith(f".{zone}") for zone in zones):
                return 400, {
                    "Error": "AdmConDataError", "code": "Client.Ibap.Data",
                    "text": "The action is not allowed. A parent was not found.",
                }  # fmt: skip
            if any({**one, "_ref": ""} == {**content, "_ref": ""} for one in self.objects.get(kind, [])):
                text = f"The record '{content['name']}' already exists."
                return 400, {"Error": "AdmConDataError", "code": "Client.Ibap.Data.Conflict", "text": text}
        same = [one for one in self.objects.get(kind, []) if kind == "record:host" and one["name"] == content["name"]]
        if same:
            text = f"The record '{content['name']}' already exists."
            return 400, {"Error": "AdmConDataError", "code": "Client.Ibap.Data.Conflict", "text": text}
        return 201, self.add(kind, **content)["_ref"]


@contextlib.contextmanager
def running() -> Iterator[Grid]:
    """Yield a grid that answers on a loopback address, over plain HTTP."""
    grid = Grid()
    grid.add("grid", name="Infoblox")
    grid.add("networkview", name="default")
    grid.add("view", name="default")

    class Calls(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def _served(self) -> None:
            length = int(self.headers.get("Content-Length", "0"))
            content = json.loads(self.rfile.read(length) or b"{}")
            time.sleep(grid.slow_s)
            parts = urlsplit(self.path)
            expected = base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()
            if grid.broken is not None:
                status, body = grid.broken
            elif self.headers.get("Authorization") != f"Basic {expected}":
                status, body = 401, b"<html>Authorization Required</html>"
            else:
                path = unquote(parts.path.removeprefix(_ROOT))
                status, answer = grid.answer(self.command, path, dict(parse_qsl(parts.query)), content)
                body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _served  # noqa: N815 - the library's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Calls) as server:
        grid.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield grid
        finally:
            server.shutdown()
            thread.join()
