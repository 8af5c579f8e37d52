"""Real Puppet agents, the real ``puppetserver ca`` and a real puppetserver, with members as their CA behind HAProxy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from http.client import HTTPSConnection
from pathlib import Path

import pytest
import yaml
from bench.bootstraps import Connection, Place, Requests, bootstrapped
from cryptography import x509

from muster.authority.authority import crls_in
from muster.cli.local import ADDRESS, PUPPET_ADMIN
from tests.servers import local as clusters
from tests.servers import puppetserver
from tests.servers.agents import Puppet
from tests.servers.local import Local, say, until

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def ca_cluster(needs: Callable[[str], None]) -> Iterator[Local]:
    """Three members that are a Puppet CA, behind HAProxy that spreads connections at random."""
    needs("haproxy")
    with clusters.running(options=["--puppet-ca"], more_ports=("puppetca",)) as local:
        yield local


@pytest.fixture
async def local(ca_cluster: Local) -> Local:
    await until(ca_cluster.is_steady, "every member is ready and up")
    return ca_cluster


@pytest.fixture
def puppet(local: Local, tmp_path: Path, needs: Callable[[str], None]) -> Puppet:
    needs("puppet")
    return Puppet(tmp_path, ADDRESS, local.ports["puppetca"])


def place(local: Local) -> Place:
    return Place("127.0.0.1", local.ports["puppetca"], ADDRESS, local.pki / "puppet-ca" / "ca_crt.pem")


async def sign_all_of(local: Local, pattern: str) -> None:
    """Let Foreman put a pattern on the autosign list."""
    answer = await local.ask(f"/puppet/ca/autosign/{pattern}", method="POST", form={})
    assert answer.status == 200, answer


def asked(
    local: Local, path: str, certificate: Path, key: Path, *, method: str = "GET", member: str | None = None
) -> tuple[int, str]:
    """Make one call to the CA with a client certificate."""
    context = ssl.create_default_context(cafile=str(local.pki / "puppet-ca" / "ca_crt.pem"))
    context.load_cert_chain(certificate, key)
    host = "127.0.0.1" if member is None else f"127.0.0.{11 + local.names.index(member)}"
    connection = HTTPSConnection(ADDRESS, local.ports["puppetca"], timeout=10, context=context)
    raw = socket.create_connection((host, local.ports["puppetca"]), 10)
    connection.sock = context.wrap_socket(raw, server_hostname=ADDRESS)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


async def test_agents_bootstrap_through_any_member_and_a_revoked_one_is_refused_by_all(
    local: Local, puppet: Puppet
) -> None:
    await sign_all_of(local, "*.agents.test")
    names = [f"host{n}.agents.test" for n in range(3)]
    for status, said in await asyncio.gather(*(puppet.bootstrap(n) for n in names)):
        assert status == 0, said
        assert "Completed SSL initialization" in said
    home = puppet.home(names[0]) / "ssl"
    files = (home / "certs" / f"{names[0]}.pem", home / "private_keys" / f"{names[0]}.pem")
    assert asked(local, "/puppet-ca/v1/expirations", *files)[0] == 200
    revoked = await local.cli("ca", "revoke", names[0])
    assert revoked.code == 0, revoked
    for member in local.names:
        status, body = asked(local, "/puppet-ca/v1/expirations", *files, member=member)
        assert (status, body.split(":")[0]) == (403, "Forbidden request")
    bundle = (home / "certs" / "ca.pem").read_text()
    assert bundle == (local.pki / "puppet-ca" / "ca_crt.pem").read_text(), "the bundle's bytes are the fingerprint"


async def test_an_agent_that_nobody_lets_through_waits_until_it_is_signed(local: Local, puppet: Puppet) -> None:
    status, said = await puppet.bootstrap("waits.other.test")
    assert status != 0
    assert "has not been signed yet" in said
    listed = await local.cli("ca", "list", "--state", "requested", "--json")
    assert "waits.other.test" in [r["name"] for r in listed.json]
    foreman = await local.ask("/puppet/ca/waits.other.test", method="POST", form={})
    assert foreman.status == 200, foreman
    status, said = await puppet.bootstrap("waits.other.test")
    assert status == 0, said
    found = (await local.ask("/puppet/ca")).json["waits.other.test"]
    assert found["state"] == "valid"
    assert found["serial"] > 1 << 64


async def test_the_command_line_lists_signs_revokes_cleans_and_generates(
    local: Local, puppet: Puppet, needs: Callable[[str], None]
) -> None:
    needs("puppetserver")
    config = await administrator(local, puppet)
    status, said = await puppet.bootstrap("asked.cli.test")
    assert status != 0
    for arguments, expected in (
        (("list",), "asked.cli.test"),
        (("sign", "--certname", "asked.cli.test"), "Successfully signed certificate request for asked.cli.test"),
        (("list", "--all"), "Signed Certificates"),
        (("revoke", "--certname", "asked.cli.test"), "Certificate for asked.cli.test has been revoked"),
        (("clean", "--certname", "asked.cli.test"), "Cleaned files related to asked.cli.test"),
        (("generate", "--certname", "made.cli.test"), "Successfully saved certificate for made.cli.test"),
    ):
        status, said = await puppet.command(*arguments, config=config)
        assert (status, expected in said) == (0, True), said
    assert (await local.cli("ca", "show", "asked.cli.test", "--json")).json["state"] == "none"


async def administrator(local: Local, puppet: Puppet) -> Path:
    """Return the configuration of a host that may sign, as ``authority.administrators`` lets it."""
    name = PUPPET_ADMIN
    await sign_all_of(local, name)
    status, said = await puppet.bootstrap(name)
    assert status == 0, said
    config = puppet.home(name) / "puppet.conf"
    config.write_text(
        f"[main]\ncertname = {name}\nssldir = {config.parent}/ssl\nconfdir = {config.parent}\n"
        f"vardir = {config.parent}/var\nserver = {ADDRESS}\nca_server = {ADDRESS}\nca_port = {puppet.ca_port}\n"
    )
    return config


async def test_of_five_hundred_bootstraps_under_killed_members_nothing_acknowledged_is_lost(local: Local) -> None:
    await sign_all_of(local, "*.example.net")
    requests = Requests("killed").take(500)
    names = [n for n, _ in requests]

    async def kill() -> None:
        for name in local.names:
            await asyncio.sleep(2.0)
            if (pid := local.pid_of(name)) is not None:
                os.kill(pid, signal.SIGKILL)

    begun = time.monotonic()
    made, _ = await asyncio.gather(bootstrapped(place(local), requests, 6, tries=40), kill())
    say(f"{len(made.certificates)} of 500 bootstrapped in {time.monotonic() - begun:.1f} s, {len(made.failed)} gave up")
    await until(local.is_steady, "every member is ready and up")
    assert made.failed == {}
    serials = {x509.load_pem_x509_certificate(pem).serial_number for pem in made.certificates.values()}
    assert len(serials) == len(names)
    revoked = names[:40]
    said = await local.cli("ca", "clean", *revoked)
    assert said.code == 0, said
    listed = {r["name"]: r for r in (await local.cli("ca", "list", "--json")).json}
    for name in names[40:]:
        given = x509.load_pem_x509_certificate(made.certificates[name])
        assert listed[name]["serial_number"] == given.serial_number, name
    connection = await Connection.opened(place(local), place(local).context())
    answer = await connection.ask("GET", "certificate_revocation_list/ca")
    connection.close()
    own = crls_in(answer.body.decode())[0]
    lost = [
        n for n in revoked
        if own.get_revoked_certificate_by_serial_number(
            x509.load_pem_x509_certificate(made.certificates[n]).serial_number) is None
    ]  # fmt: skip
    assert lost == []


async def test_without_its_store_the_ca_serves_its_bundle_and_list_and_signs_again_by_itself(
    needs: Callable[[str], None],
) -> None:
    needs("haproxy")
    needs("postgresql")
    from tests.servers import postgresql

    with (
        postgresql.running() as server,
        clusters.running(
            members=2, store_url=server.fresh_database(), options=["--puppet-ca"], more_ports=("puppetca",)
        ) as local,
    ):
        where = place(local)
        server.stop()

        async def calls() -> dict[str, int]:
            connection = await Connection.opened(where, where.context())
            try:
                pem = Requests("down").take(1)[0][1]
                return {
                    "bundle": (await connection.ask("GET", "certificate/ca")).status,
                    "list": (await connection.ask("GET", "certificate_revocation_list/ca")).status,
                    "request": (await connection.ask("PUT", "certificate_request/down000000.example.net", pem)).status,
                }
            finally:
                connection.close()

        assert await calls() == {"bundle": 200, "list": 200, "request": 503}
        server.start()

        async def takes_again() -> bool:
            try:
                return (await calls())["request"] == 200
            except OSError:
                return False

        await until(takes_again, "requests are taken again")


@pytest.fixture(scope="module")
def compiler(
    ca_cluster: Local, tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]
) -> Iterator[puppetserver.Puppetserver]:
    """A real puppetserver with its CA off, whose host certificate is ours."""
    needs("puppetserver")
    home = tmp_path_factory.mktemp("compiler")
    said = clusters.muster("ca", "issue-member", "proxy01", "--output", str(home / "ssl"), local=ca_cluster)
    assert said.code == 0, said
    # Each member writes the list there; on hosts of their own only the one beside this puppetserver would.
    cluster = yaml.safe_load(ca_cluster.cluster_file.read_text())
    cluster["authority"]["push_crl"] = [str(home / "ssl" / "crl.pem")]
    ca_cluster.cluster_file.write_text(yaml.safe_dump(cluster))
    for name in ca_cluster.names:
        pid = ca_cluster.pid_of(name)
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
    with puppetserver.running(home, certname=ca_cluster.names[0], with_ca=False) as server:
        yield server


async def test_a_puppetserver_without_a_ca_serves_catalogs_and_honours_our_list(
    local: Local, puppet: Puppet, compiler: puppetserver.Puppetserver
) -> None:
    await sign_all_of(local, "*.catalog.test")
    here = Puppet(puppet.directory, ADDRESS, puppet.ca_port, {"compiler.test": compiler.address})
    name = "node.catalog.test"
    status, said = await here.bootstrap(name)
    assert status == 0, said
    server = ["--server", local.names[0], "--serverport", str(compiler.port)]
    here = Puppet(puppet.directory, ADDRESS, puppet.ca_port, {local.names[0]: compiler.address})
    status, said = await here.agent(name, *server)
    assert status in (0, 2), said
    assert "Applied catalog" in said
    revoked = await local.cli("ca", "revoke", name)
    assert revoked.code == 0, revoked
    home = here.home(name) / "ssl"
    context = ssl.create_default_context(cafile=str(local.pki / "puppet-ca" / "ca_crt.pem"))
    context.load_cert_chain(home / "certs" / f"{name}.pem", home / "private_keys" / f"{name}.pem")

    async def is_refused() -> bool:
        return await asyncio.to_thread(_refuses, compiler, context, local.names[0])

    begun = time.monotonic()
    await until(is_refused, "the puppetserver refuses the revoked node")
    say(f"a compile-only puppetserver refused a revoked node {time.monotonic() - begun:.1f} s after that was revoked")


def _refuses(server: puppetserver.Puppetserver, context: ssl.SSLContext, name: str) -> bool:
    try:
        with (
            socket.create_connection((server.address, server.port), 5) as raw,
            context.wrap_socket(raw, server_hostname=name) as tls,
        ):
            tls.sendall(b"GET /puppet/v3/environments HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            return tls.recv(100) == b""
    except (ssl.SSLError, ConnectionResetError):
        return True


async def test_metrics_say_which_list_each_member_serves_and_when_things_end(local: Local) -> None:
    wanted = ("muster_puppet_ca_expiry_timestamp_seconds", "muster_puppet_ca_crl_expiry_timestamp_seconds")

    async def number(name: str) -> float:
        lines = (await local.ask("/metrics", name)).text.splitlines()
        found = {k: float(v) for k, _, v in (x.rpartition(" ") for x in lines if not x.startswith("#"))}
        assert all(found[k] > time.time() + 86_400 for k in wanted)
        return found["muster_puppet_ca_crl_number"]

    async def agree() -> bool:
        return len({await number(n) for n in local.names}) == 1

    await until(agree, "every member serves the same list")
