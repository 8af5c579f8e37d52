"""A real member on a loopback address of its own, with its CA, in a thread with the loop it has in production."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from anyio.from_thread import BlockingPortal, start_blocking_portal
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from muster.app.member import MemberOptions, MemberProcess, member_opened
from muster.cli.demo.bind import free_port
from muster.edge.authorise import Names
from muster.kernel.files import write_atomically
from muster.pki import bundles
from muster.pki.authority import ClusterCA, ca_paths
from muster.pki.bundles import Bundle, BundlePaths, BundleRequest, KeyKind
from muster.pki.profile import new_key
from tests.servers.client import Answer, Place, ask, tls_client

CLUSTER_ADDRESS = "proxy.example.com"
TRUSTED = "foreman.example.com"
_numbers = itertools.count(1)


@dataclass(frozen=True)
class FixedNames:
    """A resolver that knows what it is told; an unknown address or name raises OSError."""

    by_address: Mapping[str, str] = field(default_factory=dict)
    by_name: Mapping[str, Sequence[str]] = field(default_factory=dict)

    async def reverse(self, address: str) -> str:
        if address not in self.by_address:
            raise OSError(f"no name for {address}")
        return self.by_address[address]

    async def forward(self, name: str) -> Sequence[str]:
        if name not in self.by_name:
            raise OSError(f"no address for {name}")
        return self.by_name[name]


def certificate(
    ca_directory: Path,
    path: Path,
    subject: x509.Name,
    *,
    dns_names: Sequence[str] = (),
    key_kind: KeyKind = "ec-p256",
    expired: bool = False,
) -> Path:
    """Write a client certificate of any subject, with its key, and return the path; for what ClusterCA never issues."""
    ca_pem, ca_key = ca_paths(ca_directory)
    issuer = x509.load_pem_x509_certificate(ca_pem.read_bytes())
    signer: Any = load_pem_private_key(ca_key.read_bytes(), password=None)
    key = new_key(key_kind)
    end = datetime.now(UTC) + timedelta(days=-1 if expired else 30)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=60))
        .not_valid_after(end)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    if dns_names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(n) for n in dns_names]), critical=False
        )
    signed = builder.sign(signer, hashes.SHA256())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_atomically(path, signed.public_bytes(Encoding.PEM) + key_pem, mode=0o600)
    return path


@dataclass
class Member:
    """A member with everything it needs. Use :func:`running`; it can be stopped and started again.

    Attributes:
        access_lines: what it wrote to its access log.
    """

    directory: Path
    name: str
    https: Place
    http: Place
    authority: ClusterCA
    key_kind: KeyKind
    names: Names | None
    access_lines: list[str] = field(default_factory=list)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _opened: MemberProcess | None = None
    _portal: BlockingPortal | None = None
    _clients: dict[str, Path] = field(default_factory=dict)

    @property
    def pki(self) -> Path:
        return self.directory / "pki"

    @property
    def ca(self) -> Path:
        return ca_paths(self.authority.directory)[0]

    @property
    def cluster_file(self) -> Path:
        return self.directory / "cluster.yaml"

    @property
    def process(self) -> MemberProcess:
        """The member's inside; call it with :meth:`tell`, for it lives on another thread."""
        assert self._opened is not None, f"{self.name} is stopped"
        return self._opened

    def start(self) -> None:
        """Return when it listens; an answer to a real question is part of that."""
        options = MemberOptions(self.cluster_file, self.name, self.pki)
        with contextlib.ExitStack() as stack:
            portal = stack.enter_context(
                start_blocking_portal(backend_options={"use_uvloop": True}, name=f"member {self.name}")
            )
            opened = member_opened(options, names=self.names, access_log=self.access_lines.append)
            self._opened = stack.enter_context(portal.wrap_async_context_manager(opened))
            self._portal = portal
            assert ask(self.https, "GET", "/health/ready", tls=self.tls()).status == 200
            self._running = stack.pop_all()

    def stop(self) -> None:
        self._running.close()
        self._opened = self._portal = None

    def issue(self) -> Bundle:
        """Return a new bundle for this member; :func:`muster.pki.bundles.write` makes it the one it serves with."""
        request = BundleRequest("member", self.name, (CLUSTER_ADDRESS,), (self.https.address,), self.key_kind)
        return self.authority.issue(request, now=datetime.now(UTC))

    def other_member(self, name: str) -> BundlePaths:
        """Return the bundle of another member of the same cluster."""
        bundle = self.authority.issue(BundleRequest("member", name), now=datetime.now(UTC))
        return bundles.write(bundle, self.pki)

    def client(self, name: str = TRUSTED) -> Path:
        """Return a file with certificate and key of a client this cluster's CA knows."""
        if name not in self._clients:
            bundle = self.authority.issue(BundleRequest("client", name), now=datetime.now(UTC))
            path = self.directory / f"client-{name}.pem"
            write_atomically(path, bundle.certificate_pem + bundle.key_pem.reveal(), mode=0o600)
            self._clients[name] = path
        return self._clients[name]

    def tls(self, name: str | None = None) -> ssl.SSLContext:
        """Return a client's context, with the certificate of ``name`` when given."""
        return tls_client(self.ca, self.client(name) if name else None)

    def ask(self, method: str, path: str, *, name: str | None = TRUSTED, body: bytes = b"") -> Answer:
        """Make one call over TLS on a connection of its own."""
        return ask(self.https, method, path, tls=self.tls(name), body=body)

    def tell(self, call: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, or await a coroutine function, on the member's loop."""
        assert self._portal is not None, f"{self.name} is stopped"
        return self._portal.call(call, *arguments)


def made(
    directory: Path,
    *,
    features: Mapping[str, Any] | None = None,
    edge: Mapping[str, Any] | None = None,
    balancers: Sequence[str] = (),
    foreman: Mapping[str, Any] | None = None,
    names: Names | None = None,
    key_kind: KeyKind = "ec-p256",
    **sections: Any,
) -> Member:
    """Return a member that is not started: CA, bundle and cluster file are written."""
    number = next(_numbers)
    address = f"127.0.1.{number}"
    https, http = Place(address, free_port(address)), Place(address, free_port(address))
    authority = ClusterCA.create(directory / "ca", "wire", now=datetime.now(UTC))
    member = Member(directory, f"proxy{number:02}.example.com", https, http, authority, key_kind, names)
    off = {"enabled": False}
    content = {
        "schema": 1,
        "cluster": "wire",
        "address": CLUSTER_ADDRESS,
        "store": {"url": f"sqlite:///{directory / 'store.db'}"},
        "foreman": {"version": "5.0", "trusted_hosts": [TRUSTED]} if foreman is None else dict(foreman),
        "members": [{"id": number, "name": member.name, "address": address}],
        "balancers": [{"name": f"lb{i}", "address": a} for i, a in enumerate(balancers)],
        "services": {
            **dict.fromkeys(("http", "https", "puppet", "puppetca"), off),
            "smartproxy": {"member_port": https.port},
            "anaconda": {"member_port": http.port},
        },
        "features": dict(features or {}),
        "edge": {"drain_s": 0.2, "stop_timeout_s": 5, **(edge or {})},
        **sections,
    }
    write_atomically(member.cluster_file, yaml.safe_dump(content, sort_keys=False))
    bundles.write(member.issue(), member.pki)
    return member


def together(
    directory: Path,
    contents: Sequence[Callable[[str], Mapping[str, Any] | None]],
    *services: str,
    balancer: str | None = None,
    balance: str = "leastconn",
    foreman: Mapping[str, Any] | None = None,
) -> tuple[list[Member], dict[str, int]]:
    """Return members of one cluster, none started, and the ports of the services, the same on all of them.

    ``contents`` return the section ``content`` of each, given its address: here it may differ from member to member. At
    ``balancer``, an address, one may run (its bundle is in the first member's directory), which balances in that way.
    ``foreman`` adds to that section.
    """
    numbers = [next(_numbers) for _ in contents]
    addresses = [f"127.0.1.{n}" for n in numbers]
    ports = {name: free_port(addresses[0]) for name in ("smartproxy", "anaconda", *services)}
    authority = ClusterCA.create(directory / "ca", "together", now=datetime.now(UTC))
    found = [
        Member(
            directory / str(n), f"proxy{n:02}.example.com", Place(a, ports["smartproxy"]), Place(a, ports["anaconda"]),
            authority, "ec-p256", None,
        )
        for n, a in zip(numbers, addresses, strict=True)
    ]  # fmt: skip
    off = {name: {"enabled": False} for name in {"http", "https", "puppet", "puppetca"} - ports.keys()}
    cluster = {
        "schema": 1,
        "cluster": "together",
        "address": CLUSTER_ADDRESS,
        "store": {"url": f"sqlite:///{directory / 'store.db'}"},
        "foreman": {"version": "5.0", "trusted_hosts": [TRUSTED], **(foreman or {})},
        "members": [{"id": n, "name": m.name, "address": a} for n, m, a in zip(numbers, found, addresses, strict=True)],
        "services": {**off, **{n: {"member_port": p, "listen_port": p, "balance": balance} for n, p in ports.items()}},
        "balancers": [{"name": "lb", "address": balancer, "bind": balancer}] if balancer else [],
        "edge": {"drain_s": 0, "stop_timeout_s": 5},
    }
    for member, content in zip(found, contents, strict=True):
        member.directory.mkdir()
        write_atomically(member.cluster_file, yaml.safe_dump({**cluster, "content": content(member.https.address)}))
        bundles.write(member.issue(), member.pki)
    if balancer:
        bundle = authority.issue(BundleRequest("balancer", "balancer"), now=datetime.now(UTC))
        bundles.write(bundle, found[0].pki)
    return found, ports


@contextlib.contextmanager
def running(directory: Path, **settings: Any) -> Iterator[Member]:
    """Yield a member that answers; settings as for :func:`made`."""
    member = made(directory, **settings)
    member.start()
    try:
        yield member
    finally:
        member.stop()
