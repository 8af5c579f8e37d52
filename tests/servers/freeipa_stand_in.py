"""A stand-in for FreeIPA's JSON API, made from its documentation: a session by Kerberos, then hosts in a dictionary.

It is no FreeIPA: what that refuses, and how it words it, it does not know. Who is let in has a ticket of a real KDC, which
Debian's python3-gssapi accepts; that part is real.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import secrets
import ssl
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from muster.kernel.process import clean_environment
from tests.servers.certificates import CA, named
from tests.servers.samba import IPA_ADDRESS, REALM, SambaServer

_ACCEPT = """
import base64, sys, gssapi
context = gssapi.SecurityContext(usage="accept")
context.step(base64.b64decode(sys.stdin.read()))
print(context.initiator_name)
"""


@dataclass
class FreeIPA:
    """One. Use :func:`running`.

    Attributes:
        hosts: what it has, by name.
        sessions: who is logged in, by cookie.
        asked: method, arguments and options of all that came.
        has_dns: whether it can remove DNS records.
        refusal: code and message of every answer about hosts, while it is set.
    """

    settings: dict[str, Any]
    hosts: dict[str, dict[str, Any]] = field(default_factory=dict)
    sessions: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, list[str], dict[str, Any]]] = field(default_factory=list)
    has_dns: bool = True
    refusal: tuple[int, str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, method: str, names: list[str], options: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self.asked.append((method, names, options))
            if method == "ping":
                return _result({"summary": "IPA server version 0.0.0"})
            if self.refusal is not None:
                return _error(*self.refusal)
            return self._of_host(method, names[0], options)

    def _of_host(self, method: str, name: str, options: dict[str, Any]) -> dict[str, Any]:
        if method == "host_add":
            if name in self.hosts:
                return _error(4002, f'host with name "{name}" already exists')
            self.hosts[name] = {"has_keytab": False}
        elif name not in self.hosts:
            return _error(4001, f"{name}: host not found")
        host = self.hosts[name]
        if method == "host_del":
            if options["updatedns"] and not self.has_dns:
                return _error(4001, "DNS zone not found")
            del self.hosts[name]
            return _result({"result": {"failed": []}, "value": [name], "summary": f'Deleted host "{name}"'})
        if method == "host_disable":
            host["has_keytab"] = False
            return _result({"result": True, "value": name, "summary": f'Disabled host "{name}"'})
        said = dict(pair.split("=", 1) for pair in options.get("setattr", ()))
        if method == "host_mod" and not options.get("random") and host.get("userclass") == said.get("userclass"):
            return _error(4202, "no modifications to be performed")
        host.update(said)
        told = {"fqdn": [name], "has_keytab": host["has_keytab"], "has_password": "password" in host}
        if "userclass" in host:
            told["userclass"] = [host["userclass"]]
        if options.get("random"):
            if host["has_keytab"]:
                return _error(4311, "cannot set a password on an enrolled host")
            host["password"] = told["randompassword"] = secrets.token_urlsafe(16)
            told["has_password"] = True
        return _result({"result": told, "value": name, "summary": None})


def _result(result: dict[str, Any]) -> dict[str, Any]:
    return {"result": result, "error": None, "id": 0, "principal": f"muster@{REALM}", "version": "0.0.0"}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"result": None, "error": {"code": code, "message": message, "name": "x", "data": {}}, "id": 0}


def another_ca() -> bytes:
    return CA("another").pem


def _bundle(ca: CA) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address(IPA_ADDRESS))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(named("ipa.ad.example.test"))
        .issuer_name(ca.name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(ca.key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM) + pem


@contextlib.contextmanager
def running(directory: Path, domain: SambaServer) -> Iterator[FreeIPA]:
    """Yield one whose users have tickets of a domain's KDC."""
    ca = CA("IPA")
    (directory / "ca.crt").write_bytes(ca.pem)
    (directory / "ipa.pem").write_bytes(_bundle(ca))
    environment = {**domain.environment, "KRB5_KTNAME": str(domain.keytab("http"))}

    def who(token: str) -> str | None:
        done = subprocess.run(
            ["/usr/bin/python3", "-I", "-c", _ACCEPT], input=token, capture_output=True, text=True, timeout=30,
            check=False, env=clean_environment(environment),
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else None

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"] or 0))
            if self.headers["Referer"] != f"{url}/ipa":
                self._say(400, b"")
            elif self.path == "/ipa/session/login_kerberos":
                self._login()
            else:
                self._call(content)

        def _login(self) -> None:
            kind, _, token = (self.headers["Authorization"] or "").partition(" ")
            name = who(token) if kind == "Negotiate" else None
            if name is None:
                self._say(401, b"", ("WWW-Authenticate", "Negotiate"))
                return
            cookie = secrets.token_hex(16)
            ipa.sessions[cookie] = name
            self._say(200, b"", ("Set-Cookie", f"ipa_session={cookie}; path=/ipa; httponly; secure;"))

        def _call(self, content: bytes) -> None:
            cookie = (self.headers["Cookie"] or "").removeprefix("ipa_session=")
            if cookie not in ipa.sessions or self.path != "/ipa/session/json":
                self._say(401, b"")
                return
            asked = json.loads(content)
            self._say(200, json.dumps(ipa.answer(asked["method"], *asked["params"])).encode())

        def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
            self.send_response(status)
            for name, value in (*headers, ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer((IPA_ADDRESS, 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "ipa.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = f"https://{IPA_ADDRESS}:{server.server_address[1]}"
    (directory / "default.conf").write_text(f"[global]\nbasedn = x\nrealm = {REALM}\nxmlrpc_uri = {url}/ipa/xml\n")
    ipa = FreeIPA(
        {
            "keytab_path": str(domain.keytab()), "principal": "muster", "krb5_config": str(domain.krb5_conf),
            "ipa_config": str(directory / "default.conf"), "ca_file": str(directory / "ca.crt"),
        }
    )  # fmt: skip
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield ipa
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
