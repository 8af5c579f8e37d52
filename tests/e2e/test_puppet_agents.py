"""Real Puppet agents, the real ``puppetserver ca`` and a real puppetserver, with members as their CA behind HAProxy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sqlite3
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from bench.bootstraps import Answer, Connection, Made, Place, Requests, bootstrapped
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from muster.authority.ledger.entries import serial_text
from muster.authority.x509.profile import crls_in
from muster.cli.local.plan import ADDRESS, PUPPET_ADMIN
from muster.kernel.files import write_atomically
from tests import scale
from tests.histories.certificates import NONE, Certificates, shared_serials
from tests.histories.history import History
from tests.histories.judge import judged
from tests.servers import local as clusters
from tests.servers import puppetca, puppetserver
from tests.servers.agents import Puppet
from tests.servers.local import Local, say, until

pytestmark = pytest.mark.anyio

_PACE_S = 0.1
_LOOK_S = 0.5


@pytest.fixture(scope="module")
def ca_cluster(needs: Callable[[str], None]) -> Iterator[Local]:
    """Three members that are a Puppet CA, behind HAProxy that spreads connections at random."""
    needs("haproxy")
    with clusters.running(options=["--puppet-ca"], more_ports=("puppetca",)) as local:
        yield local


@pytest.fixture
async def local(ca_cluster: Local) -> Local:
    await until(partial(is_steady, ca_cluster), "every member is ready and up")
    return ca_cluster


@pytest.fixture
def puppet(local: Local, tmp_path: Path, needs: Callable[[str], None]) -> Puppet:
    needs("puppet")
    return Puppet(tmp_path, ADDRESS, local.ports["puppetca"])


async def is_steady(local: Local) -> bool:
    """As :meth:`Local.is_steady`, but for service ``puppet``: one member has a puppetserver, once a test needs it."""
    with contextlib.suppress(OSError, Exception):
        states = [s for s in await local.runtime.servers() if not s.backend.endswith("_panic")]
        if not states or not all(s.status == "UP" for s in states if s.backend != "puppet"):
            return False
        members = (await local.status())["members"]
        return all(m["said"] and not m["said"]["silent"] and m["said"]["state"] == "ready" for m in members)
    return False


# The CA's calls, as agents and administrators make them


@dataclass(frozen=True)
class Bearer:
    """Who has a certificate of the CA, and where its files are, as Puppet lays them out."""

    name: str
    ssl: Path

    @property
    def certificate(self) -> Path:
        return self.ssl / "certs" / f"{self.name}.pem"

    @property
    def key(self) -> Path:
        return self.ssl / "private_keys" / f"{self.name}.pem"

    @property
    def listed(self) -> set[int]:
        """The serials that are revoked in the list this host has on disk."""
        return revoked_in((self.ssl / "crl.pem").read_text())

    @property
    def serial(self) -> int:
        return serial_in(self.certificate.read_bytes())


def place(local: Local) -> Place:
    return Place("127.0.0.1", local.ports["puppetca"], ADDRESS, local.pki / "puppet-ca" / "ca_crt.pem")


async def sign_all_of(local: Local, pattern: str) -> None:
    """Let Foreman put a pattern on the autosign list."""
    answer = await local.ask(f"/puppet/ca/autosign/{pattern}", method="POST", form={})
    assert answer.status == 200, answer


def asked(
    local: Local,
    path: str,
    by: Bearer | None = None,
    *,
    method: str = "GET",
    wish: str | None = None,
    csr: str | None = None,
    member: str | None = None,
) -> tuple[int, str]:
    """Make one call to the CA on a connection of its own: through HAProxy, or on one member.

    ``wish`` is a state for a status, ``csr`` a request to be taken.

    Raises:
        OSError, HTTPException: there was no answer.
    """
    context = ssl.create_default_context(cafile=str(local.pki / "puppet-ca" / "ca_crt.pem"))
    if by is not None:
        context.load_cert_chain(by.certificate, by.key)
    host = "127.0.0.1" if member is None else address_of(local, member)
    body = csr if wish is None else json.dumps({"desired_state": wish})
    connection = HTTPSConnection(ADDRESS, local.ports["puppetca"], timeout=10, context=context)
    with contextlib.closing(connection), socket.create_connection((host, local.ports["puppetca"]), 10) as raw:
        connection.sock = context.wrap_socket(raw, server_hostname=ADDRESS)
        connection.request(method, f"/puppet-ca/v1/{path}", body, {"Content-Type": "application/json"} if body else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def address_of(local: Local, member: str) -> str:
    return f"127.0.0.{11 + local.names.index(member)}"


async def administrator(local: Local) -> Bearer:
    """Return the host that may sign and revoke, with what `muster up` gave it."""
    return Bearer(PUPPET_ADMIN, local.directory / "administrator" / "ssl")


async def revoke(local: Local, name: str, *, member: str | None = None) -> int:
    """Revoke over the CA's own API; return the status."""
    admin = await administrator(local)
    path = f"certificate_status/{name}"
    return (await asyncio.to_thread(asked, local, path, admin, method="PUT", wish="revoked", member=member))[0]


def serial_in(pem: bytes) -> int:
    return x509.load_pem_x509_certificate(pem).serial_number


def revoked_in(pem: str) -> set[int]:
    """Return the serials on the CA's own list."""
    return {entry.serial_number for entry in crls_in(pem)[0]}


def rows(local: Local, query: str, *arguments: object) -> list[Any]:
    """Ask the store's file itself, without a member."""
    with contextlib.closing(sqlite3.connect(f"file:{local.directory / 'store.db'}?mode=ro", uri=True)) as plain:
        return plain.execute(query, arguments).fetchall()


# Agents


async def test_agents_bootstrap_through_any_member_and_a_revoked_one_is_refused_by_all(
    local: Local, puppet: Puppet
) -> None:
    await sign_all_of(local, "*.agents.test")
    names = [f"host{n}.agents.test" for n in range(3)]
    for status, said in await asyncio.gather(*(puppet.bootstrap(n) for n in names)):
        assert status == 0, said
        assert "Completed SSL initialization" in said
    host = Bearer(names[0], puppet.home(names[0]) / "ssl")
    assert asked(local, "expirations", host)[0] == 200
    revoked = await local.cli("ca", "revoke", names[0])
    assert revoked.code == 0, revoked
    for member in local.names:
        status, body = asked(local, "expirations", host, member=member)
        assert (status, body.split(":")[0]) == (403, "Forbidden request")
    bundle = (host.ssl / "certs" / "ca.pem").read_text()
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


async def test_an_agent_whose_list_is_due_has_the_new_one_on_disk_after_its_next_run(
    local: Local, puppet: Puppet
) -> None:
    await sign_all_of(local, "*.lists.test")
    due, not_due = (Bearer(n, puppet.home(n) / "ssl") for n in ("due.lists.test", "fresh.lists.test"))
    puppet.configure(due.name, crl_refresh_interval="1s")
    for status, said in await asyncio.gather(puppet.bootstrap(due.name), puppet.bootstrap(not_due.name)):
        assert status == 0, said
    gone = puppetca.agent("gone.lists.test")
    made = await bootstrapped(place(local), [(gone.name, gone.csr)], 1)
    assert await revoke(local, gone.name) == 204
    serial = serial_in(made.certificates[gone.name])
    assert [serial in host.listed for host in (due, not_due)] == [False, False]

    async def has_it() -> bool:
        # It counts whole seconds since its last look, and a quick run is too early.
        for status, said in await asyncio.gather(puppet.bootstrap(due.name), puppet.bootstrap(not_due.name)):
            assert status == 0, said
        return serial in due.listed

    await until(has_it, "the agent has fetched the list")
    assert (due.ssl / "crl.pem").read_text() == asked(local, "certificate_revocation_list/ca")[1]
    assert serial not in not_due.listed, "by default it looks once a day"


async def test_the_command_line_lists_signs_revokes_cleans_and_generates(
    local: Local, puppet: Puppet, needs: Callable[[str], None]
) -> None:
    needs("puppetserver")
    admin = await administrator(local)
    home = admin.ssl.parent
    config = home / "puppet.conf"
    config.write_text(
        f"[main]\ncertname = {admin.name}\nssldir = {admin.ssl}\nconfdir = {home}\nvardir = {home}/var\n"
        f"server = {ADDRESS}\nca_server = {ADDRESS}\nca_port = {puppet.ca_port}\n"
    )
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


# Many at once, and members that die


@pytest.mark.proof
async def test_of_four_that_ask_for_one_name_at_once_through_the_balancer_one_gets_it(local: Local) -> None:
    await sign_all_of(local, "*.example.net")
    where = place(local)
    before = {name: s.total_sessions for name, s in (await local.servers("puppetca")).items()}
    # Four keys and the same names: four hosts that all believe to be this one.
    four = [Requests("race").take(scale.RACED_NAMES) for _ in range(4)]
    for same in zip(*four, strict=True):
        (name,) = {n for n, _ in same}
        ways = await asyncio.gather(*(Connection.opened(where, where.context()) for _ in same))
        try:
            answers = await asyncio.gather(
                *(way.ask("PUT", f"certificate_request/{name}", pem) for way, (_, pem) in zip(ways, same, strict=True))
            )
            given = await ways[0].ask("GET", f"certificate/{name}")
        finally:
            for way in ways:
                way.close()
        refusal = f"{name} already has a signed certificate; ignoring certificate request".encode()
        assert sorted((a.status, a.body) for a in answers) == [(200, b""), *[(400, refusal)] * 3]
        (winner,) = (pem for answer, (_, pem) in zip(answers, same, strict=True) if answer.status == 200)
        assert key_of(x509.load_pem_x509_certificate(given.body)) == key_of(x509.load_pem_x509_csr(winner))
        assert len(rows(local, "SELECT 1 FROM certificates WHERE certname = ?", name)) == 1
    served = {name: s.total_sessions - before[name] for name, s in (await local.servers("puppetca")).items()}
    assert all(served.values()), served
    signers = {m for (m,) in rows(local, "SELECT member FROM audit WHERE event = 'signed' AND certname LIKE 'race%'")}
    say(
        f"{scale.RACED_NAMES} names, four requests each at once: one certificate each, signed by {len(signers)} members"
    )
    assert len(signers) > 1


async def is_back(local: Local, name: str, killed: int) -> bool:
    """Whether a killed member runs again, answers agents, and has clients from HAProxy."""
    if local.pid_of(name) in (None, killed):
        return False
    with contextlib.suppress(OSError, HTTPException):
        status, _ = await asyncio.to_thread(asked, local, "certificate/ca", member=name)
        return status == 200 and all(s.status == "UP" for s in (await local.servers("puppetca")).values())
    return False


def key_of(signed: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return signed.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass
class Revocations:
    """Administrators that revoke hosts as these get their certificates, through HAProxy, again until it is acknowledged.

    Attributes:
        acknowledged: when each was, by name.
        history: takes down every call.
        unanswered: how many calls had no answer, or another one.
        left: administrators that are not done.
    """

    local: Local
    history: History
    acknowledged: dict[str, float] = field(default_factory=dict)
    unanswered: int = 0
    left: int = 0

    async def of(self, names: Sequence[str], made: Made, over: asyncio.Event) -> None:
        """Revoke these hosts, as far as they come to be, until it is over."""
        self.left += 1
        for name in names:
            while not over.is_set() and name not in made.certificates:
                await asyncio.sleep(_PACE_S)
            while not over.is_set() and name not in self.acknowledged:
                try:
                    with self.history.call("an administrator", "revoke", name) as heard:
                        status = await revoke(self.local, name)
                        if status == 204:
                            self.acknowledged[name] = time.monotonic()
                            heard.ok()
                        elif status in (404, 409):
                            heard.refused()
                except (OSError, HTTPException):
                    pass
                self.unanswered += name not in self.acknowledged
                await asyncio.sleep(_PACE_S)
        self.left -= 1

    async def until_more(self, count: int = 10) -> None:
        """Return when so many more are acknowledged, or there is nobody left to revoke."""
        before = len(self.acknowledged)

        async def more() -> bool:
            return len(self.acknowledged) >= before + count or not self.left

        await until(more, f"{count} more revocations are acknowledged")


@contextlib.contextmanager
def recorded_in(history: History, key: str, operation: str, name: str) -> Iterator[Callable[[Answer], None]]:
    """Take down an agent's call; its name is autosigned."""
    with history.call("an agent", operation, name, (key, True) if operation == "submit" else None) as said:

        def heard(answer: Answer) -> None:
            if operation == "submit" and answer.status == 200:
                said.ok()
            elif operation == "submit" and answer.status == 400:
                said.refused()
            elif operation == "fetch" and answer.status == 404:
                said.ok(NONE)
            elif operation == "fetch" and answer.status == 200:
                found = x509.load_pem_x509_certificate(answer.body)
                said.ok((found.serial_number, key_of(found).hex()))

        yield heard


async def lists_read(local: Local, history: History, member: str, made: Made, over: asyncio.Event) -> None:
    """Read a member's revocation list again and again, and take down what it says of those somebody wants revoked."""
    while not over.is_set():
        begun, known = history.at(), dict(made.certificates)
        with contextlib.suppress(OSError, HTTPException, AssertionError):
            status, text = await asyncio.to_thread(asked, local, "certificate_revocation_list/ca", member=member)
            assert status == 200, text
            listed = revoked_in(text)
            wanted = {c.key for c in history.calls if c.operation == "revoke"}
            for name, pem in known.items():
                if (serial := serial_in(pem)) in listed or name in wanted:
                    history.note(f"a reader of {member}", "listed", name, serial, serial in listed, begun)
        await asyncio.sleep(_LOOK_S)


@pytest.mark.proof
async def test_of_bootstraps_and_revocations_under_killed_members_nothing_acknowledged_is_lost(
    local: Local,
) -> None:
    await sign_all_of(local, "*.example.net")
    await administrator(local)
    requests = Requests("killed").take(scale.BOOTSTRAPS)
    names = [n for n, _ in requests]
    history = History()
    made, revocations, over = Made(), Revocations(local, history), asyncio.Event()
    key = key_of(x509.load_pem_x509_csr(requests[0][1])).hex()
    kills: list[float] = []

    async def kill() -> None:
        for name in local.names:
            # Among acknowledgements, however slow this machine is, and one after another: without any member nobody
            # acknowledges anything.
            await revocations.until_more()
            pid = local.pid_of(name)
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            kills.append(time.monotonic())
            await until(partial(is_back, local, name, pid), f"{name} is back")
        await revocations.until_more()
        over.set()

    begun = time.monotonic()
    # Six hosts and two administrators at a time; every other host is revoked.
    await asyncio.gather(
        bootstrapped(place(local), requests, 6, made=made, tries=40, recorded=partial(recorded_in, history, key)),
        revocations.of(names[0::4], made, over),
        revocations.of(names[2::4], made, over),
        *(lists_read(local, history, member, made, over) for member in local.names),
        kill(),
    )
    took = time.monotonic() - begun
    await until(partial(is_steady, local), "every member is ready and up")
    acknowledged = revocations.acknowledged
    between = [n for n, at in acknowledged.items() if kills[0] < at < kills[-1]]
    say(f"{len(made.certificates)} of {scale.BOOTSTRAPS} bootstrapped in {took:.1f} s, {len(made.failed)} gave up")
    say(
        f"{len(acknowledged)} revocations acknowledged, {len(between)} of them between the first kill and the last; "
        f"calls that were not: {revocations.unanswered}"
    )
    assert made.failed == {}
    assert len(kills) == len(local.names)
    assert between
    given = {name: serial_in(pem) for name, pem in made.certificates.items()}
    assert len(set(given.values())) == len(names)
    listed = {r["name"]: r for r in (await local.cli("ca", "list", "--json")).json}
    assert {n: listed[n]["serial_number"] for n in names} == given
    assert [n for n in acknowledged if listed[n]["state"] != "revoked"] == []
    # Nobody is revoked but whom somebody asked to be: its acknowledgement may have been lost.
    assert {n for n in names if listed[n]["state"] == "revoked"} <= set(names[0::2])
    # Offline: in the store's file, and on the list that any member gives an agent.
    kept = {serial for (serial,) in rows(local, "SELECT serial FROM revocations")}
    assert [n for n in acknowledged if serial_text(given[n]) not in kept] == []
    ca = x509.load_pem_x509_certificates((local.pki / "puppet-ca" / "ca_crt.pem").read_bytes())[0]
    lists = {asked(local, "certificate_revocation_list/ca", member=m)[1] for m in local.names}
    assert len(lists) == 1
    (own,) = crls_in(lists.pop())
    assert own.is_signature_valid(ca.public_key())  # type: ignore[arg-type]
    assert {given[n] for n in acknowledged} <= {entry.serial_number for entry in own}
    assert {serial_text(entry.serial_number) for entry in own} == kept
    # And no answer of all these calls contradicts another.
    begun = history.at()
    for name, found in {r["name"]: r for r in (await local.cli("ca", "list", "--json")).json}.items():
        if name in made.certificates:
            history.note("muster ca list", "state", name, None, found["state"], begun)
    unanswered = sum(c.outcome == "unknown" for c in history.calls)
    say(f"{len(history.calls)} calls judged, {unanswered} of them not answered")
    assert {c.operation for c in history.calls} == {"submit", "fetch", "revoke", "listed", "state"}
    assert [str(f) for f in judged(Certificates(), history.calls)] == []
    assert shared_serials(history.calls) == []
    # That the judge would have seen it: the same calls with one revocation forgotten by the last answer.
    one = next(iter(acknowledged))
    forged = [replace(c, answer="signed") if (c.operation, c.key) == ("state", one) else c for c in history.calls]
    assert [(f.key, f.fault) for f in judged(Certificates(), forged)] == [(one, "revoked and served")]


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


# A puppetserver beside a member


@dataclass(frozen=True)
class Compiler:
    """A real puppetserver with its CA off beside one member, offered as service ``puppet``.

    Attributes:
        member: whose host it is on; this one alone writes the revocation list there.
    """

    server: puppetserver.Puppetserver
    member: str
    crl: Path

    def refuses(self, local: Local, host: Bearer) -> bool:
        """Whether a host's certificate is refused on a new connection to the server itself."""
        context = ssl.create_default_context(cafile=str(local.pki / "puppet-ca" / "ca_crt.pem"))
        context.load_cert_chain(host.certificate, host.key)
        try:
            with (
                socket.create_connection((self.server.address, self.server.port), 5) as raw,
                context.wrap_socket(raw, server_hostname=ADDRESS) as tls,
            ):
                tls.sendall(b"GET /puppet/v3/environments HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                return tls.recv(100) == b""
        except (ssl.SSLError, ConnectionResetError):
            return True


@pytest.fixture(scope="module")
def compiler(
    ca_cluster: Local, tmp_path_factory: pytest.TempPathFactory, needs: Callable[[str], None]
) -> Iterator[Compiler]:
    """The puppetserver of the second member's host; the others have none."""
    needs("puppetserver")
    home = tmp_path_factory.mktemp("compiler")
    crl = home / "ssl" / "crl.pem"
    member = ca_cluster.names[1]
    said = clusters.muster("ca", "issue-member", member, "--output", str(crl.parent), local=ca_cluster)
    assert said.code == 0, said
    manifest = home / "code" / "environments" / "production" / "manifests" / "site.pp"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("notify { 'compiled for the cluster': }\n")
    port = clusters.free_ports(ca_cluster.members, ("puppet",))["puppet"]
    address = address_of(ca_cluster, member)
    with ThreadPoolExecutor(1) as meanwhile:
        # Java needs half a minute to start, and the members' restarts wait more than they work.
        offered = meanwhile.submit(asyncio.run, _offered(ca_cluster, member, port, crl))
        with puppetserver.running(home, certname=member, address=address, port=port, with_ca=False) as server:
            offered.result()
            yield Compiler(server, member, crl)


async def _offered(local: Local, beside: str, port: int, crl: Path) -> None:
    """Have the balancer offer service ``puppet``, and the one member beside its server, and no other process, write a list.

    That member has a cluster file of its own on a host of its own; here, where all read one file, it is what the file
    says while that member starts.
    """
    cluster = yaml.safe_load(local.cluster_file.read_text())
    cluster["services"]["puppet"] = {"listen_port": port, "member_port": port}
    pushing = {**cluster, "authority": {**cluster["authority"], "push_crl": [str(crl)]}}
    others = [n for n in local.names if n != beside]
    for document, members in ((pushing, [beside]), (cluster, others)):
        write_atomically(local.cluster_file, yaml.safe_dump(document), mode=0o600)
        await _restarted(local, members)


async def _restarted(local: Local, members: Sequence[str]) -> None:
    before = {m: local.pid_of(m) for m in members}
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGTERM)

    async def anew() -> bool:
        now = {m: local.pid_of(m) for m in members}
        return all(now[m] not in (None, before[m]) for m in members) and await is_steady(local)

    await until(anew, f"{', '.join(members)} ended and started")


async def test_agents_get_catalogs_through_the_balancer_until_any_member_revokes_them(
    local: Local, puppet: Puppet, compiler: Compiler
) -> None:
    await sign_all_of(local, "*.catalog.test")
    agents = Puppet(puppet.directory, ADDRESS, puppet.ca_port, compiler.server.port)
    revoked, kept = (Bearer(n, agents.home(n) / "ssl") for n in ("node.catalog.test", "kept.catalog.test"))

    async def is_offered() -> bool:
        return {n: s.status for n, s in (await local.servers("puppet")).items()}[compiler.member] == "UP"

    await until(is_offered, "the balancer leads to the puppetserver")
    for status, said in await asyncio.gather(agents.agent(revoked.name), agents.agent(kept.name)):
        assert status in (0, 2), said
        assert "compiled for the cluster" in said
        assert "Applied catalog" in said
    sessions = {n: s.total_sessions for n, s in (await local.servers("puppet")).items()}
    assert sessions.pop(compiler.member) > 0
    assert set(sessions.values()) == {0}, "members without a puppetserver get no agent"
    assert not compiler.refuses(local, revoked)

    # Neither the member that is asked nor a command line knows of the file: only the beat of the member beside it does.
    assert "push_crl" not in yaml.safe_load(local.cluster_file.read_text())["authority"]
    begun = time.monotonic()
    assert await revoke(local, revoked.name, member=local.names[0]) == 204

    async def is_refused() -> bool:
        return await asyncio.to_thread(compiler.refuses, local, revoked)

    await until(is_refused, "the puppetserver refuses the revoked node")
    say(
        f"a compile-only puppetserver refused a node {time.monotonic() - begun:.2f} s after that was revoked on another "
        "member"
    )
    assert revoked.serial in revoked_in(compiler.crl.read_text())
    assert compiler.crl.read_text() == asked(local, "certificate_revocation_list/ca", member=local.names[0])[1]
    (status, said), (other, also) = await asyncio.gather(agents.agent(revoked.name), agents.agent(kept.name))
    assert status not in (0, 2), said
    assert "Applied catalog" not in said
    assert other in (0, 2), also
    assert "compiled for the cluster" in also


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
