"""A cluster of one member that is a process of its own, as `muster serve` runs it: a Puppet CA on any store.

It can be killed, armed (``muster.kernel.failpoints``), started anew on what it left, and run with a fault of the tests' own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from sqlalchemy.engine import make_url

from muster.authority.own import host_files
from muster.cli.demo.bind import free_port
from muster.kernel import failpoints
from muster.kernel.secrets import Secret
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from muster.store.engine import Store, opened
from tests.servers import puppetca
from tests.servers.local import Said, environment

MEMBER, CLUSTER, ADMINISTRATOR, FOREMAN = "proxy01.kill.test", "proxy.kill.test", "admin.kill.test", "foreman.kill.test"
PATIENCE_S = 30.0

NoAnswer = (OSError, HTTPException)
"""What a call raises whose outcome is unknown."""


@dataclass
class Served:
    """The member and everything it needs. Use :func:`made`.

    Attributes:
        authority: settings of its Puppet CA.
        features: of its cluster file.
        armed: what its failpoints do.
    """

    directory: Path
    url: str
    authority: dict[str, Any] = field(default_factory=dict)
    features: dict[str, Any] = field(default_factory=dict)
    address: str = "127.0.1.201"
    ports: dict[str, int] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    armed: str = ""

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.yaml"

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def log(self) -> str:
        return (self.directory / "serve.log").read_text("utf-8", "replace")

    @property
    def bundle(self) -> Path:
        """The Puppet CA's."""
        return self.directory / "ca.pem"

    @property
    def administrator(self) -> Path:
        """A file with the certificate and key of who may sign and revoke."""
        return self.directory / "administrator.pem"

    def write_files(self) -> None:
        """Write the cluster's CA, the member's bundle and the cluster file."""
        password = make_url(self.url).password
        place: dict[str, Any] = {"url": self.url}
        if password is not None:
            secret = self.directory / "store.password"
            secret.write_text(f"{password}\n")
            secret.chmod(0o600)
            place = {"url": self.url.replace(f":{password}@", "@"), "password_file": str(secret)}
        self.ports = {name: free_port(self.address) for name in ("smartproxy", "puppetca")}
        ca = ClusterCA.create(self.pki, "kill", now=datetime.now(UTC))
        for request in (BundleRequest("member", MEMBER, (CLUSTER,), (self.address,)), BundleRequest("client", FOREMAN)):
            bundles.write(ca.issue(request, now=datetime.now(UTC)), self.pki)
        content = {
            "schema": 1,
            "cluster": "kill",
            "address": CLUSTER,
            "store": place,
            "foreman": {"trusted_hosts": [FOREMAN]},
            "members": [{"id": 1, "name": MEMBER, "address": self.address}],
            "services": {
                **{s: {"enabled": False} for s in ("http", "https", "puppet", "anaconda")},
                "smartproxy": {"member_port": self.ports["smartproxy"]},
                "puppetca": {"member_port": self.ports["puppetca"]},
            },
            "authority": {"port": self.ports["puppetca"], "requests_per_minute": 0, "administrators": [ADMINISTRATOR]}
            | self.authority,
            "features": self.features,
            "edge": {"drain_s": 0.2, "stop_timeout_s": 2},
        }
        self.cluster_file.write_text(yaml.safe_dump(content))

    async def found(self) -> None:
        """Make the Puppet CA and its administrator."""
        home = self.pki / "puppet-ca"
        async with opened(Secret(self.url)) as store:
            await puppetca.begin(store, home)
            async with puppetca.member(store, home, name="founder") as ca:
                made = await host_files(ca, ADMINISTRATOR, [ADMINISTRATOR])
                self.bundle.write_text(ca.chain_pem)
        self.administrator.write_bytes(made.certificate_pem.encode() + made.key_pem)

    def begin(self, armed: str = "", *, module: str = "muster", also: Mapping[str, str] | None = None) -> None:
        """Start its process; ``armed`` is what its failpoints do, ``module`` what is run, ``also`` more environment."""
        assert self.process is None
        self.armed = armed
        arguments = ["serve", "--cluster", str(self.cluster_file), "--pki", str(self.pki), "--member", MEMBER]
        with (self.directory / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment() | ({failpoints.VARIABLE: armed} if armed else {}) | dict(also or {}),
            )  # fmt: skip

    def start(self, armed: str = "", *, module: str = "muster", also: Mapping[str, str] | None = None) -> None:
        """As :meth:`begin`; return when it answers."""
        self.begin(armed, module=module, also=also)
        assert self.process is not None
        limit = time.monotonic() + PATIENCE_S
        while not self._answers():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < limit, self.log
            time.sleep(0.05)

    def _answers(self) -> bool:
        with contextlib.suppress(*NoAnswer):
            return self.ask("GET", "certificate/ca")[0] == 200 and self.ask_as_foreman("GET", "/version")[0] == 200
        return False

    def died(self) -> None:
        """Return when it has been killed by its failpoint, and only then."""
        assert self.process is not None
        assert self.process.wait(PATIENCE_S) == -signal.SIGKILL, self.log
        self.process = None

    def kill(self) -> None:
        """Kill it if it runs."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE_S)
            self.process = None

    def ask(self, method: str, path: str, *, body: bytes = b"", by: Path | None = None) -> tuple[int, str]:
        """Make one call to the Puppet CA on a connection of its own.

        Raises:
            NoAnswer: there was none.
        """
        context = ssl.create_default_context(cafile=str(self.bundle))
        if by is not None:
            context.load_cert_chain(by)
        return self._asked("puppetca", context, method, f"/puppet-ca/v1/{path}", body, "application/json")

    def ask_as_foreman(self, method: str, path: str, body: bytes = b"", *, form: bool = False) -> tuple[int, str]:
        """Make one call to the smart proxy.

        Raises:
            NoAnswer: there was none.
        """
        client = bundles.paths(self.pki, "client", FOREMAN)
        context = ssl.create_default_context(cafile=str(client.ca))
        context.load_cert_chain(client.certificate, client.key)
        kind = "application/x-www-form-urlencoded" if form else "text/plain"
        return self._asked("smartproxy", context, method, path, body, kind)

    def _asked(
        self, service: str, context: ssl.SSLContext, method: str, path: str, body: bytes, kind: str
    ) -> tuple[int, str]:
        connection = HTTPSConnection(CLUSTER, self.ports[service], timeout=PATIENCE_S, context=context)
        with (
            contextlib.closing(connection),
            socket.create_connection((self.address, self.ports[service]), PATIENCE_S) as raw,
        ):
            connection.sock = context.wrap_socket(raw, server_hostname=CLUSTER)
            headers = {"Content-Type": kind, "Accept": "application/json, text/plain"} if body else {}
            connection.request(method, path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def submit(self, name: str, csr: bytes) -> tuple[int, str]:
        return self.ask("PUT", f"certificate_request/{name}", body=csr)

    def change(self, name: str, state: str) -> tuple[int, str]:
        """Sign or revoke as the administrator does."""
        body = json.dumps({"desired_state": state}).encode()
        return self.ask("PUT", f"certificate_status/{name}", body=body, by=self.administrator)

    def certificate(self, name: str) -> int | None:
        """Return the serial that is given out for a name, None when there is none."""
        status, text = self.ask("GET", f"certificate/{name}")
        assert status in (200, 404), text
        return x509.load_pem_x509_certificate(text.encode()).serial_number if status == 200 else None

    def state(self, name: str) -> str | None:
        """Return ``requested``, ``signed`` or ``revoked``; None when nothing is known under the name."""
        status, text = self.ask("GET", f"certificate_status/{name}", by=self.administrator)
        assert status in (200, 404), text
        return str(json.loads(text)["state"]) if status == 200 else None

    def listed(self) -> set[int]:
        """Return the serials on the revocation list that is served."""
        status, text = self.ask("GET", "certificate_revocation_list/ca")
        assert status == 200, text
        return {r.serial_number for r in x509.load_pem_x509_crl(text.encode())}

    def command(self, *arguments: str, armed: str = "") -> Said:
        """Run `muster` on this cluster."""
        places = {"MUSTER_CLUSTER": str(self.cluster_file), "MUSTER_PKI": str(self.pki)}
        done = subprocess.run(
            [sys.executable, "-m", "muster", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=90, check=False,
            env=environment() | places | ({failpoints.VARIABLE: armed} if armed else {}),
        )  # fmt: skip
        return Said(done.returncode, done.stdout, done.stderr)

    def store(self) -> contextlib.AbstractAsyncContextManager[Store]:
        """Open its store from here."""
        return opened(Secret(self.url))


@contextlib.contextmanager
def made(directory: Path, url: str, *, founded: bool = True, **settings: Any) -> Iterator[Served]:
    """Yield a member that is not started, ``founded`` with its Puppet CA; settings are fields of :class:`Served`.

    What runs at the end is killed.
    """
    served = Served(directory, url, **settings)
    served.write_files()
    if founded:
        asyncio.run(served.found())
    try:
        yield served
    finally:
        served.kill()
        if os.environ.get("MUSTER_E2E_KEEP"):
            sys.stdout.write(served.log if (directory / "serve.log").exists() else "")
