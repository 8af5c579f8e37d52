"""Stand-ins for the APIs of NetBox and phpIPAM, made from their documentation, over plain HTTP on a loopback address.

They are neither: what those refuse, and how they word it, these do not know. They show what the providers ask, and that they
read what the documentation says is answered.
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
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

TOKEN = "0123456789abcdef0123456789abcdef01234567"
USER, PASSWORD = "foreman", "phpipam-stand-in"


class Answering(Protocol):
    """What a stand-in answers."""

    url: str
    broken: tuple[int, bytes] | None
    slow_s: float

    def answer(
        self, method: str, path: str, query: dict[str, str], content: dict[str, Any], headers: Any
    ) -> tuple[int, Any]:
        """Return status and content of one call; None: an empty body."""


@dataclass
class NetBox:
    """VRFs, prefixes and addresses, in pages.

    Attributes:
        broken: status and body of every answer, while it is set.
        slow_s: how long each answer takes.
        minds_duplicates: whether an address that is there is refused, as by ENFORCE_GLOBAL_UNIQUE.
        authorization: what every call has to show.
    """

    vrfs: list[dict[str, Any]] = field(default_factory=list)
    prefixes: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[dict[str, Any]] = field(default_factory=list)
    broken: tuple[int, bytes] | None = None
    slow_s: float = 0.0
    minds_duplicates: bool = False
    authorization: str = f"Token {TOKEN}"
    url: str = ""
    most: int = 3
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_vrf(self, name: str, description: str = "") -> dict[str, Any]:
        self.vrfs.append({"id": next(self._numbers), "name": name, "description": description})
        return self.vrfs[-1]

    def add_prefix(self, prefix: str, vrf: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        one = {"id": next(self._numbers), "prefix": prefix, "vrf": vrf, "description": "", "status": "active", **more}
        self.prefixes.append(one)
        return one

    def add_address(self, address: str, vrf: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        self.addresses.append({"id": next(self._numbers), "address": address, "vrf": vrf, **more})
        return self.addresses[-1]

    def answer(
        self, method: str, path: str, query: dict[str, str], content: dict[str, Any], headers: Any
    ) -> tuple[int, Any]:
        if headers.get("Authorization") != self.authorization:
            return 403, {"detail": "Invalid token"}
        with self._lock:
            match (method, *path.removeprefix("/api/ipam/").strip("/").split("/")):
                case ("GET", "vrfs"):
                    return 200, self._page(self.vrfs, query, "name")
                case ("GET", "prefixes"):
                    return 200, self._page(self.prefixes, query, "prefix", "status")
                case ("GET", "prefixes", number, "available-ips"):
                    return 200, self._available(int(number), int(query["limit"]))
                case ("GET", "ip-addresses"):
                    wanted = query.get("address")
                    some = [a for a in self.addresses if wanted in (None, a["address"].partition("/")[0])]
                    return 200, self._page(some, query)
                case ("POST", "ip-addresses"):
                    return self._created(content)
                case ("DELETE", "ip-addresses", number):
                    left = [a for a in self.addresses if a["id"] != int(number)]
                    if len(left) == len(self.addresses):
                        return 404, {"detail": "Not found."}
                    self.addresses = left
                    return 204, None
        return 404, {"detail": "Not found."}

    def _page(self, found: list[dict[str, Any]], query: dict[str, str], *filters: str) -> dict[str, Any]:
        for name in filters:
            found = [one for one in found if query.get(name, one[name]) == one[name]]
        if "vrf_id" in query:
            found = [one for one in found if one["vrf"] is not None and str(one["vrf"]["id"]) == query["vrf_id"]]
        offset = int(query.get("offset", 0))
        size = min(int(query["limit"]), self.most)
        return {"count": len(found), "next": "https://elsewhere.example.com/", "results": found[offset : offset + size]}

    def _available(self, number: int, limit: int) -> list[dict[str, Any]]:
        one = next(p for p in self.prefixes if p["id"] == number)
        used = {str(ip_interface(a["address"]).ip) for a in self.addresses if a["vrf"] == one["vrf"]}
        network = ip_network(one["prefix"])
        hosts = network.hosts() if network.version == 4 else iter(network)
        free = (ip for ip in hosts if str(ip) not in used)
        told = itertools.islice(free, min(limit, 1000))
        return [
            {"family": 4, "address": f"{ip}/{network.prefixlen}", "vrf": one["vrf"], "description": ""} for ip in told
        ]

    def _created(self, content: dict[str, Any]) -> tuple[int, Any]:
        vrf = next((v for v in self.vrfs if v["id"] == content.get("vrf")), None)
        if self.minds_duplicates and any(
            a["address"] == content["address"] and a["vrf"] == vrf for a in self.addresses
        ):
            return 400, {"address": [f"Duplicate IP address found in global table: {content['address']}"]}
        return 201, self.add_address(content["address"], vrf, description=content["description"])


@dataclass
class PhpIPAM:
    """Sections, subnets and addresses; ids are texts.

    Attributes:
        broken: status and body of every answer, while it is set.
        slow_s: how long each answer takes.
        token: what calls have to show; changed, they have to fetch another one.
        logins: how often a token was fetched.
    """

    sections: list[dict[str, Any]] = field(default_factory=list)
    subnets: list[dict[str, Any]] = field(default_factory=list)
    addresses: list[dict[str, Any]] = field(default_factory=list)
    broken: tuple[int, bytes] | None = None
    slow_s: float = 0.0
    token: str = ".J1e9ipFZkPE6EvIRAqEf9hp"
    logins: int = 0
    url: str = ""
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add_section(self, name: str) -> dict[str, Any]:
        self.sections.append({"id": str(next(self._numbers)), "name": name, "description": None})
        return self.sections[-1]

    def add_subnet(self, subnet: str, section: dict[str, Any], **more: Any) -> dict[str, Any]:
        address, _, mask = subnet.partition("/")
        self.subnets.append(
            {
                "id": str(next(self._numbers)), "subnet": address, "mask": mask, "sectionId": section["id"],
                "description": "", "isFolder": "0", **more,
            }
        )  # fmt: skip
        return self.subnets[-1]

    def add_address(self, ip: str, subnet: dict[str, Any], **more: Any) -> dict[str, Any]:
        self.addresses.append({"id": str(next(self._numbers)), "ip": ip, "subnetId": subnet["id"], **more})
        return self.addresses[-1]

    def answer(
        self, method: str, path: str, query: dict[str, str], content: dict[str, Any], headers: Any
    ) -> tuple[int, Any]:
        words = path.removeprefix(f"/api/{USER}/").strip("/").split("/")
        with self._lock:
            if (method, words) == ("POST", ["user"]):
                basic = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                if headers.get("Authorization") != f"Basic {basic}":
                    return 500, {"code": 500, "success": False, "message": "Invalid username or password"}
                self.logins += 1
                return self._data({"token": self.token, "expires": "2037-01-01 00:00:00"})
            if headers.get("token") != self.token:
                return 403, {"code": 403, "success": False, "message": "Invalid token"}
            match (method, *words):
                case ("GET", "sections"):
                    return self._data(self.sections)
                case ("GET", "sections", number, "subnets"):
                    return self._data([s for s in self.subnets if s["sectionId"] == number])
                case ("GET", "subnets", "cidr", address, mask):
                    return self._data([s for s in self.subnets if (s["subnet"], s["mask"]) == (address, mask)])
                case ("GET", "subnets", number, "first_free"):
                    return self._first_free(number)
                case ("GET", "subnets", number, "addresses"):
                    return self._data([a for a in self.addresses if a["subnetId"] == number])
                case ("GET", "subnets", number, "addresses", ip):
                    return self._data([a for a in self.addresses if (a["subnetId"], a["ip"]) == (number, ip)])
                case ("POST", "addresses"):
                    if any((a["subnetId"], a["ip"]) == (content["subnetId"], content["ip"]) for a in self.addresses):
                        return 409, {"code": 409, "success": False, "message": "IP address already exists"}
                    self.addresses.append({"id": str(next(self._numbers)), **content})
                    return 201, {"code": 201, "success": True, "message": "Address created"}
                case ("DELETE", "addresses", ip, number):
                    self.addresses = [a for a in self.addresses if (a["subnetId"], a["ip"]) != (number, ip)]
                    return 200, {"code": 200, "success": True, "message": "Address deleted"}
        return 400, {"code": 400, "success": False, "message": "Invalid identifier"}

    def _first_free(self, number: str) -> tuple[int, Any]:
        one = next(s for s in self.subnets if s["id"] == number)
        network = ip_network(f"{one['subnet']}/{one['mask']}")
        used = {ip_address(a["ip"]) for a in self.addresses if a["subnetId"] == number}
        # Of IPv6 it tells the network's own address first.
        hosts = network.hosts() if network.version == 4 else iter(network)
        free = next((str(ip) for ip in hosts if ip not in used), None)
        if free is None:
            return 404, {"code": 404, "success": False, "message": "No free addresses found"}
        return self._data(free)

    def _data(self, found: Any) -> tuple[int, Any]:
        if not found:
            return 404, {"code": 404, "success": False, "message": "Nothing found"}
        return 200, {"code": 200, "success": True, "data": found, "time": 0.01}


@contextlib.contextmanager
def serving(api: Answering) -> Iterator[None]:
    """Have a stand-in answer at its ``url`` until the block ends."""

    class Calls(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

        def _served(self) -> None:
            url = urlsplit(self.path)
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            time.sleep(api.slow_s)
            if api.broken is not None:
                status, body = api.broken
            else:
                query = dict(parse_qsl(url.query, keep_blank_values=True))
                content = json.loads(raw) if raw else {}
                status, told = api.answer(self.command, unquote(url.path), query, content, self.headers)
                body = b"" if told is None else json.dumps(told).encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                if 300 <= status < 400:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.send_header("Content-Type", "application/json")
                if status != 204:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST = do_DELETE = _served  # noqa: N815 - the library's names

    with ThreadingHTTPServer(("127.0.0.1", 0), Calls) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            api.url = f"http://127.0.0.1:{server.server_address[1]}"
            yield
        finally:
            server.shutdown()
            thread.join()
