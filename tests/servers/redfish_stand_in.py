"""A stand-in for BMCs that no emulator plays: a Redfish service of one machine, of which answers can be changed.

It is made from the schemas (DSP0268) and what the recordings show, and proves nothing about any maker's BMC.
"""

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

from tests.servers import certificates

USER, PASSWORD = "admin", "secret"
_SYSTEM, _MANAGER = "/redfish/v1/Systems/1", "/redfish/v1/Managers/1"
_NICS = f"{_MANAGER}/EthernetInterfaces"
ALL = ("On", "ForceOff", "GracefulShutdown", "ForceRestart", "GracefulRestart", "PushPowerButton")


@dataclass
class RedfishStandIn:
    """Attributes:
    resources: what is answered to GET, by path.
    raw: bodies that are sent in place of it.
    leads: where GET of a path is led to.
    etag: of the machine; a PATCH without it is 412 then.
    changes: every POST and PATCH, as method, path, body.
    shown: Authorization headers that came, by path.
    hold: GET of paths that is not answered before :attr:`released`.
    """

    address: str
    port: int
    ca: Path
    etag: str | None = None
    raw: dict[str, bytes] = field(default_factory=dict)
    leads: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str, Any]] = field(default_factory=list)
    shown: list[tuple[str, str | None]] = field(default_factory=list)
    hold: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def system(self) -> dict[str, Any]:
        return self.resources[_SYSTEM]

    @property
    def manager(self) -> dict[str, Any]:
        return self.resources[_MANAGER]

    def anew(self, allowed: tuple[str, ...] = ALL) -> None:
        """Be as at the beginning, with a machine that can be switched in these ways."""
        self.etag = None
        for kept in (self.raw, self.leads, self.changes, self.shown, self.hold):
            kept.clear()
        self.resources = {
            "/redfish/v1/": {
                "@odata.id": "/redfish/v1/", "Id": "RootService", "Name": "Root Service", "RedfishVersion": "1.6.0",
                "Systems": {"@odata.id": "/redfish/v1/Systems"}, "Managers": {"@odata.id": "/redfish/v1/Managers"},
            },
            "/redfish/v1/Systems": _collection("/redfish/v1/Systems", _SYSTEM),
            "/redfish/v1/Managers": _collection("/redfish/v1/Managers", _MANAGER),
            _NICS: _collection(_NICS, f"{_NICS}/1"),
            _SYSTEM: {
                "@odata.id": _SYSTEM, "Id": "1", "Name": "machine", "PowerState": "On", "IndicatorLED": "Off",
                "Manufacturer": "Contoso", "Model": "3500RX", "SerialNumber": "437XR1138R2", "AssetTag": "Chicago-45Z-2381",
                "Boot": {
                    "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "None",
                    "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Cd", "Hdd", "BiosSetup"],
                },
                "Actions": {"#ComputerSystem.Reset": {
                    "target": f"{_SYSTEM}/Actions/ComputerSystem.Reset", "ResetType@Redfish.AllowableValues": list(allowed),
                }},
            },
            _MANAGER: {
                "@odata.id": _MANAGER, "Id": "1", "Name": "bmc", "UUID": "58893887-8974-2487-2389-841168418919",
                "FirmwareVersion": "1.45.455b66-rev4",
                "EthernetInterfaces": {"@odata.id": _NICS},
                "Actions": {"#Manager.Reset": {
                    "target": f"{_MANAGER}/Actions/Manager.Reset",
                    "ResetType@Redfish.AllowableValues": ["ForceRestart", "GracefulRestart"],
                }},
            },
            f"{_NICS}/1": {
                "@odata.id": f"{_NICS}/1", "Id": "1", "Name": "nic", "MACAddress": "E1:E2:E3:E4:E5:E6",
                "IPv4Addresses": [{
                    "Address": "127.0.0.1", "SubnetMask": "255.255.255.0", "AddressOrigin": "DHCP", "Gateway": "127.0.0.254",
                }],
                "VLAN": {"VLANEnable": True, "VLANId": 101},
            },
        }  # fmt: skip

    def change(self, method: str, path: str, body: Any) -> None:
        self.changes.append((method, path, body))
        kind = body.get("ResetType") if isinstance(body, dict) else None
        if kind is not None and path.startswith(_SYSTEM):
            self.system["PowerState"] = "Off" if kind in ("ForceOff", "GracefulShutdown") else "On"
        elif method == "PATCH":
            self.system.update({k: v for k, v in body.items() if k != "Boot"})


def _collection(path: str, *members: str) -> dict[str, Any]:
    return {"@odata.id": path, "Name": "all", "Members": [{"@odata.id": m} for m in members]}


@contextlib.contextmanager
def running(directory: Path, *, port: int, address: str = "127.0.7.12") -> Iterator[RedfishStandIn]:
    """Serve until the block ends."""
    directory.mkdir(parents=True, exist_ok=True)
    stand_in = RedfishStandIn(address, port, certificates.at_an_address(directory, address))
    stand_in.anew()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.rstrip("/") if self.path != "/redfish/v1/" else self.path
            path = "/redfish/v1/" if path == "/redfish/v1" else path
            if path in stand_in.hold:
                stand_in.released.wait(60)
            if path in stand_in.leads:
                self._answer(307, b"", ("Location", stand_in.leads[path]))
            elif path != "/redfish/v1/" and not self._is_known():
                self._answer(401, b"{}")
            elif path in stand_in.raw:
                self._answer(200, stand_in.raw[path])
            elif path in stand_in.resources:
                tag = [("ETag", stand_in.etag)] if stand_in.etag and path == _SYSTEM else []
                self._answer(200, json.dumps(stand_in.resources[path]).encode(), *tag)
            else:
                self._answer(404, b"{}")

        def do_PATCH(self) -> None:
            self._change()

        def do_POST(self) -> None:
            self._change()

        def _change(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
            if not self._is_known():
                self._answer(401, b"{}")
            elif self.command == "PATCH" and stand_in.etag and self.headers.get("If-Match") != stand_in.etag:
                self._answer(412, b"{}")
            else:
                stand_in.change(self.command, self.path, body)
                self._answer(204, b"")

        def _is_known(self) -> bool:
            given = self.headers.get("Authorization")
            stand_in.shown.append((self.path, given))
            return given == "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()

        def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in (("Content-Type", "application/json"), ("Content-Length", str(len(body))), *headers):
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer((address, port), Answering)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "cert.pem", directory / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        stand_in.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
