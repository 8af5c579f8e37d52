"""Who may call what, asked of a real member: by default, by certificate, and when certificates stop counting."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from muster.app.duties.authority import PuppetCAKept
from muster.kernel.files import write_atomically
from muster.kernel.secrets import Secret
from muster.observed.parity import compared
from muster.pki.trust import RevocationLists, Trust
from tests.contract.test_edge import until
from tests.servers import member as members
from tests.servers import puppetca
from tests.servers.certificates import CA
from tests.servers.client import Answer, Connection, ask, request, tls_client
from tests.servers.member import TRUSTED, FixedNames, Member

MEMORY = {"provider": "memory", "memory": {"zones": ["example.com"]}}
URL = f"https://{TRUSTED}"
CREATE = b"fqdn=a.example.com&value=192.0.2.7&type=A"
PROTECTED = (
    ("POST", "/dns/", CREATE),
    ("DELETE", "/dns/a.example.com/A", b""),
    ("GET", "/logs/", b""),
    ("GET", "/v2/features", b""),
)
# Every address of this host has the trusted host's name: what follows is refused all the same.
NAMES = FixedNames({f"127.0.0.{n}": TRUSTED for n in range(1, 9)}, {TRUSTED: [f"127.0.0.{n}" for n in range(1, 9)]})


@pytest.fixture
def theirs(tmp_path: Path) -> CA:
    """Another CA than the cluster's, such as the Puppet CA, whose certificate lies in ``theirs.pem``."""
    ca = CA("theirs")
    (tmp_path / "theirs.pem").write_bytes(ca.pem)
    return ca


def called(member: Member, client: Path | None, method: str = "GET", path: str = "/v2/features") -> Answer:
    return ask(member.https, method, path, tls=tls_client(member.ca, client))


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def notes(member: Member) -> list[str]:
    found = json.loads(ask(member.https, "GET", "/health/ready?service=smartproxy", tls=member.tls()).body)
    return list(found.get("notes", []))


# ------------------------------------------------------------------ by default


@pytest.mark.parametrize("foreman", [{}, {"url": URL}, {"trusted_hosts": []}], ids=["nothing", "url", "nobody"])
def test_by_default_nobody_changes_anything_without_a_certificate(foreman: dict[str, object], tmp_path: Path) -> None:
    with members.running(tmp_path, features={"dns": MEMORY}, foreman=foreman, names=NAMES) as member:
        for method, path, body in PROTECTED:
            plain = ask(member.http, method, path, body=body)
            assert (plain.status, path) in {(403, path), (503, path)}
            assert ask(member.https, method, path, tls=member.tls(), body=body).status == 403
        assert "served over https only" in ask(member.http, "POST", "/dns/", body=CREATE).text
        # What a balancer, a monitoring and a Foreman that only looks ask is answered.
        for path in ("/version", "/features", "/health/ready?service=smartproxy"):
            assert ask(member.http, "GET", path).status == 200


def test_a_feature_that_was_opened_to_http_still_asks_for_a_caller_with_a_name(tmp_path: Path) -> None:
    dns = {**MEMORY, "enabled": True}
    with members.running(tmp_path / "a", features={"dns": dns}, foreman={"url": URL}, names=NAMES) as member:
        answer = ask(member.http, "POST", "/dns/", body=CREATE)
        assert answer.status == 403
        assert "names nobody who may do so over plain HTTP" in answer.text
    with members.running(tmp_path / "b", features={"dns": dns}, names=NAMES) as member:
        assert ask(member.http, "POST", "/dns/", body=CREATE, source="127.0.0.2").status == 200
        assert ask(member.http, "POST", "/dns/", body=CREATE, source="127.0.0.99").status == 403


def test_of_a_ca_that_gives_every_host_a_certificate_only_foreman_counts(tmp_path: Path, theirs: CA) -> None:
    foreman = {"url": URL, "ca_file": str(tmp_path / "theirs.pem")}
    agent, host = (written(tmp_path / f"{n}.pem", theirs.bundle(n)) for n in ("agent.example.com", TRUSTED))
    with members.running(tmp_path, features={"dns": MEMORY}, foreman=foreman) as member:
        for method, path, body in PROTECTED:
            assert ask(member.https, method, path, tls=tls_client(member.ca, agent), body=body).status == 403
            assert ask(member.https, method, path, tls=tls_client(member.ca, host), body=body).status == 200
        assert called(member, agent, path="/metrics").status == 403
        assert called(member, host, path="/metrics").status == 200
        assert called(member, member.client("prometheus.example.com"), path="/metrics").status == 200
        # A member itself, so that members can be compared; not whoever else the cluster's CA knows.
        assert called(member, member.client(member.name)).status == 200
        assert called(member, member.client("prometheus.example.com")).status == 403


def test_the_page_is_for_operators_over_https_and_for_no_managed_host(tmp_path: Path, theirs: CA) -> None:
    foreman = {"url": URL, "ca_file": str(tmp_path / "theirs.pem")}
    agent, host = (written(tmp_path / f"{n}.pem", theirs.bundle(n)) for n in ("agent.example.com", TRUSTED))
    with members.running(tmp_path, foreman=foreman) as member:
        page = called(member, host, path="/cluster/")
        assert page.status == 200
        assert member.name.split(".")[0] in page.text
        style = re.search(r"/cluster/static/[0-9a-f]+/page\.css", page.text)
        assert style is not None
        for path in ("/cluster/", "/cluster", "/cluster/?level=WARN&text=x", style[0]):
            # A browser's own, of whatever name, and Foreman's.
            for one in (member.client("anna"), host):
                assert called(member, one, path=path).status == 200
            for other in (agent, None):
                assert called(member, other, path=path).status == 403
            assert ask(member.http, "GET", path).status == 403
        assert called(member, agent, path="/cluster/live").status == 403
        assert called(member, agent, path="/cluster/rings.json").status == 403
        assert "smartproxy" in called(member, member.client("anna"), path="/cluster/rings.json").text
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            assert called(member, host, method, "/cluster/").status == 404


def test_of_a_ca_above_the_clusters_nobody_counts_as_one_of_us(tmp_path: Path, theirs: CA) -> None:
    member = members.made(tmp_path, features={"dns": MEMORY}, foreman={})
    agent = written(tmp_path / "agent.pem", theirs.bundle("agent.example.com"))
    # As an adopted CA's file is: the CA, then who issued it.
    below = CA("below")
    below.certificate = theirs.issue("below", key=below.key)
    write_atomically(member.pki / "members" / member.name / "ca.pem", member.ca.read_bytes() + below.pem + theirs.pem)
    member.start()
    try:
        for path in ("/v2/features", "/metrics"):
            assert called(member, agent, path=path).status == 403
            assert called(member, member.client("somebody.example.com"), path=path).status == 200
    finally:
        member.stop()


def test_an_older_member_beside_differs_in_what_it_answers_over_plain_http_alone(tmp_path: Path) -> None:
    # An older member had every feature on both listeners where nobody said otherwise.
    older = {"dns": {**MEMORY, "enabled": True}, "logs": {"enabled": True}}
    with (
        members.running(tmp_path / "older", features=older) as old,
        members.running(tmp_path / "newer", features={"dns": MEMORY}) as new,
    ):
        facts = {kind: json.loads(called(m, m.client()).body) for kind, m in (("old", old), ("new", new))}
        assert [d.field for d in compared(facts, ())] == ["dns.http_enabled", "logs.http_enabled"]
        for member in (old, new):
            assert ask(member.https, "POST", "/dns/", tls=member.tls(TRUSTED), body=CREATE).status == 200


# ------------------------------------------------------------------ certificates that stop counting


class Kept:
    """A connection that stays open, and asks again."""

    def __init__(self, member: Member, client: Path) -> None:
        self._connection = Connection(member.https, tls=tls_client(member.ca, client))

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def ask(self, path: str = "/v2/features") -> Answer:
        self._connection.send(request("GET", path))
        return self._connection.answer()


@pytest.fixture
def proxy(tmp_path: Path, theirs: CA) -> Iterator[Member]:
    """A member that trusts Foreman by a certificate of the other CA, whose revocation list it follows."""
    (tmp_path / "crl.pem").write_bytes(theirs.list(1))
    foreman = {
        "trusted_hosts": [TRUSTED],
        "ca_file": str(tmp_path / "theirs.pem"),
        "crl_file": str(tmp_path / "crl.pem"),
    }
    with members.running(tmp_path, foreman=foreman) as member:
        yield member


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_ends_on_kept_connections_and_resumed_sessions(
    version: ssl.TLSVersion, proxy: Member, tmp_path: Path, theirs: CA
) -> None:
    end = (datetime.now(UTC) + timedelta(seconds=4)).replace(microsecond=0)
    client = written(tmp_path / "short.pem", theirs.bundle(TRUSTED, ends=end))
    tls = tls_client(proxy.ca, client)
    tls.minimum_version = tls.maximum_version = version
    with Connection(proxy.https, tls=tls) as first, Kept(proxy, client) as kept:
        first.send(request("GET", "/v2/features"))
        assert first.answer().status == 200
        assert kept.ask().status == 200
        session = first.socket.session  # type: ignore[attr-defined]
        time.sleep(max(0.0, (end - datetime.now(UTC)).total_seconds()) + 1.1)
        refused = kept.ask()
        assert refused.status == 403
        assert refused.text.startswith(f"The certificate of CN={TRUSTED} ended on ")
        assert refused.headers["connection"] == "close"
        with Connection(proxy.https, tls=tls, session=session) as resumed:
            assert resumed.socket.session_reused  # type: ignore[attr-defined]
            resumed.send(request("GET", "/v2/features"))
            assert resumed.answer().status == 403


def test_a_removed_ca_is_trusted_no_longer_on_kept_connections(proxy: Member, tmp_path: Path, theirs: CA) -> None:
    client = written(tmp_path / "foreman.pem", theirs.bundle(TRUSTED))
    with Kept(proxy, client) as kept, Kept(proxy, proxy.client()) as ours:
        assert kept.ask().status == ours.ask().status == 200
        (tmp_path / "crl.pem").write_bytes(theirs.list(1) + CA("next").list(1))
        (tmp_path / "theirs.pem").write_bytes(CA("next").pem)
        until("the CA is trusted no longer", lambda: "trusted no longer" in _text_of(proxy, kept))
        assert ours.ask().status == 200


def _text_of(proxy: Member, kept: Kept) -> str:
    try:
        return kept.ask().text
    except OSError:
        # Closed with the refusal, which an earlier look has seen.
        return ""


def test_a_revocation_list_of_another_ca_is_followed(proxy: Member, tmp_path: Path, theirs: CA) -> None:
    client = written(tmp_path / "foreman.pem", theirs.bundle(TRUSTED, serial=77))
    with Kept(proxy, client) as kept:
        assert kept.ask().status == 200
        (tmp_path / "crl.pem").write_bytes(b"garbage")
        until("the note", lambda: any("a new revocation list was refused" in n for n in notes(proxy)))
        assert kept.ask().status == 200
        ended = datetime.now(UTC) - timedelta(hours=1)
        (tmp_path / "crl.pem").write_bytes(theirs.list(77, ends=ended))
        until("the revocation", lambda: kept.ask().status == 403)
        assert "is revoked" in kept.ask().text
        # Not on open routes: whoever has no certificate may ask them, too.
        assert kept.ask("/version").status == 200
        assert any(f"the revocation list {tmp_path / 'crl.pem'} ended on" in n for n in notes(proxy))


def test_a_member_does_not_start_on_a_revocation_list_it_cannot_read(tmp_path: Path, theirs: CA) -> None:
    foreman = {"ca_file": str(tmp_path / "theirs.pem"), "crl_file": str(tmp_path / "absent.pem")}
    with pytest.raises(Exception, match=r"absent\.pem"), members.running(tmp_path, foreman=foreman):
        pass


def test_nobody_is_let_in_before_the_revocation_list_is_read(
    tmp_path: Path, theirs: CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "crl.pem").write_bytes(theirs.list(1))
    foreman = {"ca_file": str(tmp_path / "theirs.pem"), "crl_file": str(tmp_path / "crl.pem"), "url": URL}
    member, listened = members.made(tmp_path, foreman=foreman), []
    read = RevocationLists.read

    def reading(path: Path, trust: Trust) -> RevocationLists:
        with socket.socket() as s:
            listened.append(s.connect_ex((member.https.address, member.https.port)) == 0)
        return read(path, trust)

    monkeypatch.setattr(RevocationLists, "read", reading)
    member.start()
    member.stop()
    assert listened == [False]


def test_a_connection_has_a_greatest_age(tmp_path: Path) -> None:
    with members.running(tmp_path, edge={"connection_age_s": 1.0}) as member, Kept(member, member.client()) as kept:
        assert "connection" not in kept.ask().headers
        time.sleep(1.1)
        last = kept.ask()
        assert (last.status, last.headers["connection"]) == (200, "close")


# ------------------------------------------------------------------ the Puppet CA that the members are


def test_who_the_puppet_ca_revoked_is_refused_on_every_port_at_once(tmp_path: Path) -> None:
    home = tmp_path / "pki" / "puppet-ca"
    store = Secret(f"sqlite:///{tmp_path}/store.db")
    chain = tmp_path / "puppet-ca.pem"

    trusts, shown = asyncio.run(puppetca.begun_with(store, home, TRUSTED))
    chain.write_text(trusts)
    client = written(tmp_path / "foreman.pem", shown)
    foreman = {"trusted_hosts": [TRUSTED], "ca_file": str(chain)}
    with members.running(tmp_path, foreman=foreman, authority={}) as member, Kept(member, client) as kept:
        assert kept.ask().status == 200
        asyncio.run(puppetca.revoked_by(store, home, TRUSTED))
        answer = kept.ask()
        assert answer.status == 403
        assert "is revoked" in answer.text
        assert called(member, client).status == 403
        assert called(member, client, path="/metrics").status == 403


def test_the_puppet_ca_s_key_is_let_go_when_no_call_can_come_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session of a token or of a signer process ends with it: a member that stops signs what it has taken."""
    listening: list[bool] = []
    closed = PuppetCAKept.close

    async def close(kept: PuppetCAKept) -> None:
        listening.extend(one.sock.fileno() != -1 for one in member.process.server.listeners)
        await closed(kept)

    monkeypatch.setattr(PuppetCAKept, "close", close)
    with members.running(tmp_path, authority={}) as member:
        pass
    assert listening
    assert not any(listening)
