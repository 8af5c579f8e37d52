"""The Puppet CA on a socket: a listener of its own beside the member's, with TLS as agents know it."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from prometheus_client import CollectorRegistry

from muster.authority import api, own
from muster.authority.authority import PuppetCA
from muster.authority.own import OwnFiles
from muster.authority.x509 import csr, profile
from muster.cluster.file import Authority, own_certname
from muster.cluster.sections import Edge as Limits
from muster.edge import health
from muster.edge import server as edge_server
from muster.edge.application import Application, Mounted
from muster.edge.authorise import Callers, Gate
from muster.edge.feature import Features
from muster.edge.health import Health
from muster.edge.metrics import EdgeMetrics
from muster.edge.server import Server
from muster.kernel.rings import LogRings
from muster.kernel.secrets import Secret
from muster.pki.context import server_context
from muster.store.engine import opened
from tests.servers import puppetca
from tests.servers.client import Answer, Connection, Place, request

pytestmark = pytest.mark.anyio

V1 = "/puppet-ca/v1"
MEMBER, CLUSTER = "proxy01.example.net", "puppet.example.net"


class Listening:
    """A member's two listeners, and calls to them."""

    def __init__(self, directory: Path, ca: PuppetCA, server: Server, files: OwnFiles) -> None:
        self.directory = directory
        self.ca = ca
        self.server = server
        self.files = files

    def place(self, name: str) -> Place:
        port = next(one.port for one in self.server.listeners if one.name == name)
        assert port is not None
        return Place("127.0.0.1", port)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        by: Path | None = None,
        listener: str = "puppetca",
        named: str = CLUSTER,
        body: bytes = b"",
    ) -> Answer:
        context = ssl.create_default_context(cafile=str(self.files.ca))
        if by is not None:
            context.load_cert_chain(by)

        def call() -> Answer:
            with Connection(self.place(listener), tls=context, server_name=named) as connection:
                connection.send(request(method, path, {"Connection": "close"}, body))
                return connection.answer(method)

        return await asyncio.to_thread(call)

    async def enrol(self, name: str, new: puppetca.NewCA | None = None) -> Path:
        """Have a host enrol, or get its certificate from another CA; return a file of certificate and key."""
        host = puppetca.agent(name)
        if new is None:
            put = await self.ask("PUT", f"{V1}/certificate_request/{name}", body=host.csr)
            assert put.status == 200, put
            pem = (await self.ask("GET", f"{V1}/certificate/{name}")).body
        else:
            made = profile.signed_leaf(
                csr.read(host.csr), new.issuer, new.key, serial=1, now=datetime.now(UTC), ttl=timedelta(days=1)
            )
            pem = made.public_bytes(Encoding.PEM)
        path = self.directory / f"{name}.pem"
        path.write_bytes(pem + puppetca.key_pem(host.key))
        return path


def application(mounts: list[Mounted], *, foreman: bool) -> Application:
    return Application(
        gate=Gate(Callers()),
        features=Features({}),
        mounts=mounts,
        limits=Limits(),
        rings=LogRings(10, 5, MEMBER),
        metrics=EdgeMetrics(CollectorRegistry()),
        foreman=foreman,
    )


@pytest.fixture
async def listening(url: str, tmp_path: Path) -> AsyncIterator[Listening]:
    settings = Authority(autosign=("all",), requests_per_minute=0)
    files = OwnFiles(tmp_path / "own")
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened(Secret(url)))
        await puppetca.begin(store, tmp_path / "home", settings=settings)
        ca = await stack.enter_async_context(puppetca.member(store, tmp_path / "home", settings))
        assert await own.ensured(ca, files, member=MEMBER, names=[CLUSTER])
        context = server_context(files.certificate, files.key, [files.ca])
        usual = application(
            [Mounted(health.MOUNT, Health(MEMBER, frozenset({"smartproxy"}), starting=""))], foreman=True
        )
        limits = Limits(idle_timeout_s=5, stop_timeout_s=2)
        server = await stack.enter_async_context(edge_server.opened(usual, limits, EdgeMetrics(CollectorRegistry())))
        server.listen("https", "127.0.0.1", 0, server_context(files.certificate, files.key, [files.ca]))
        server.listen("puppetca", "127.0.0.1", 0, context, application([Mounted(api.MOUNT, ca)], foreman=False))
        yield Listening(tmp_path, ca, server, files)


async def test_each_listener_answers_its_own(listening: Listening) -> None:
    bundle = await listening.ask("GET", f"{V1}/certificate/ca")
    assert (bundle.status, bundle.text) == (200, listening.ca.chain_pem)
    assert (await listening.ask("GET", f"{V1}/certificate/ca", listener="https")).status in (404, 503)
    assert (await listening.ask("GET", "/health/live", listener="https")).status == 200
    assert (await listening.ask("GET", "/health/live")).status == 404
    # Foreman's prefixes mean nothing here; on its own listener a feature that is lacking says so.
    assert (await listening.ask("GET", "/dns/")).status == 404
    assert (await listening.ask("GET", "/dns/", listener="https")).status == 503


async def test_a_member_shows_a_certificate_of_the_ca_with_all_names(listening: Listening) -> None:
    for name in (CLUSTER, MEMBER):
        assert (await listening.ask("GET", "/status/v1/simple", named=name)).text == "running"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        await listening.ask("GET", "/status/v1/simple", named="other.example.net")


async def test_a_host_enrols_and_is_known_by_its_certificate(listening: Listening) -> None:
    host = await listening.enrol("agent01.example.net")
    assert (await listening.ask("GET", f"{V1}/expirations", by=host)).status == 200
    assert (await listening.ask("GET", f"{V1}/expirations")).status == 403
    assert (await listening.ask("GET", f"{V1}/certificate_statuses/all", by=host)).status == 403


async def test_a_revoked_host_is_refused_on_a_connection_that_is_open_already(listening: Listening) -> None:
    host = await listening.enrol("agent01.example.net")
    context = ssl.create_default_context(cafile=str(listening.files.ca))
    context.load_cert_chain(host)

    def connected() -> Connection:
        return Connection(listening.place("puppetca"), tls=context, server_name=CLUSTER)

    connection = await asyncio.to_thread(connected)

    def call() -> int:
        connection.send(request("GET", f"{V1}/expirations"))
        return connection.answer().status

    try:
        assert await asyncio.to_thread(call) == 200
        await listening.ca.certificates.revoke("agent01.example.net", actor="test")
        assert await asyncio.to_thread(call) == 403
    finally:
        connection.close()
    assert (await listening.ask("GET", f"{V1}/certificate/ca", by=host)).status == 403
    assert (await listening.ask("GET", f"{V1}/certificate/ca")).status == 200


async def test_another_cas_certificate_ends_the_handshake(listening: Listening) -> None:
    host = await listening.enrol("agent01.example.net", puppetca.new_ca("Puppet CA: other"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await listening.ask("GET", f"{V1}/certificate/ca", by=host)


async def test_garbage_and_bad_paths_are_answered_and_do_no_harm(listening: Listening) -> None:
    put = await listening.ask("PUT", f"{V1}/certificate_request/a.example.net", body=b"\x00\xff" * 1000)
    assert put.status == 400
    assert (await listening.ask("GET", "/../../etc/passwd")).status == 400
    assert (await listening.ask("GET", f"{V1}/certificate/%zz")).status == 400
    assert (await listening.ask("GET", f"{V1}/certificate/ca")).status == 200


async def test_a_new_certificate_is_presented_on_its_own_listener_only(listening: Listening) -> None:
    def shown(name: str) -> int:
        context = ssl.create_default_context(cafile=str(listening.files.ca))
        with Connection(listening.place(name), tls=context, server_name=CLUSTER) as connection:
            assert isinstance(connection.socket, ssl.SSLSocket)
            der = connection.socket.getpeercert(binary_form=True)
            assert der is not None
            return x509.load_der_x509_certificate(der).serial_number

    before = {name: await asyncio.to_thread(shown, name) for name in ("https", "puppetca")}
    files = OwnFiles(listening.directory / "new")
    assert await own.ensured(listening.ca, files, member=MEMBER, names=[CLUSTER])
    assert not await own.ensured(listening.ca, files, member=MEMBER, names=[CLUSTER])
    listening.server.present("puppetca", server_context(files.certificate, files.key, [files.ca]))
    assert await asyncio.to_thread(shown, "https") == before["https"]
    assert await asyncio.to_thread(shown, "puppetca") != before["puppetca"]


async def test_a_members_certificate_is_made_anew_for_another_name_and_when_a_file_is_damaged(
    listening: Listening,
) -> None:
    files = listening.files

    def names() -> set[str]:
        found = x509.load_pem_x509_certificate(files.certificate.read_bytes())
        return set(
            found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
                x509.DNSName
            )
        )

    async def again(*wanted: str) -> bool:
        return await own.ensured(listening.ca, files, member=MEMBER, names=wanted)

    assert not await again(CLUSTER)
    assert await again(CLUSTER, "alias.example.net")
    assert names() == {MEMBER, CLUSTER, "alias.example.net", own_certname(MEMBER)}
    # Fewer names are still served by the one with more.
    assert not await again(CLUSTER)
    files.key.write_bytes(puppetca.key_pem(puppetca.new_ca("Puppet CA: other").key))
    assert await again(CLUSTER)
    files.certificate.write_text("junk")
    assert await again(CLUSTER)
    assert files.key.stat().st_mode & 0o777 == 0o600


async def test_draining_closes_connections_of_both_applications(listening: Listening) -> None:
    host = await listening.enrol("agent01.example.net")
    context = ssl.create_default_context(cafile=str(listening.files.ca))
    context.load_cert_chain(host)

    def closes(name: str, path: str) -> bool:
        with Connection(listening.place(name), tls=context, server_name=CLUSTER) as connection:
            connection.send(request("GET", path))
            return connection.answer().headers.get("connection") == "close"

    paths = {"puppetca": f"{V1}/certificate/ca", "https": "/health/live"}
    for draining in (False, True, False):
        listening.server.drain(draining)
        assert {await asyncio.to_thread(closes, name, path) for name, path in paths.items()} == {draining}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    structlog.reset_defaults()
