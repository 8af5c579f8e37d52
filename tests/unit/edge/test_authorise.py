from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.cluster.file import ClusterFile
from muster.edge.authorise import Callers, Gate, SystemNames
from muster.edge.request import Peer
from muster.edge.routes import Access
from muster.kernel.clock import FakeClock
from muster.kernel.errors import Denied
from muster.kernel.settings import parse
from muster.pki.trust import RevocationLists, Trust
from tests.servers.certificates import CA
from tests.unit.edge.calls import CLIENT, FOREMAN, FakeNames, peer, request

TRUSTED = Callers(frozenset({FOREMAN}), frozenset(), over_http=True)
NOBODY = Callers(frozenset(), frozenset(), over_http=True)
KNOWN = FakeNames({CLIENT: FOREMAN}, {FOREMAN: [CLIENT]})
NO_CERTIFICATE = Peer(CLIENT)


async def refused(
    gate: Gate, by: Peer, *, scheme: str = "https", access: Access = Access.TRUSTED, path: str = "/features"
) -> str | None:
    """Return the refusal's text, None when the caller was admitted."""
    try:
        await gate.admit(access, request("GET", path, scheme=scheme, by=by))
    except Denied as e:
        return str(e)
    return None


def untrusted(name: str, path: str = "/features") -> str:
    return f"Untrusted client {name} attempted to access {path}. Check :trusted_hosts: in settings.yml"


@pytest.mark.parametrize(
    ("by", "text"),
    [
        (peer(FOREMAN), None),
        (peer("FOREMAN.Example.Com"), None),
        (peer("foreman.example.com/emailAddress=x"), "could not read CN from the client certificate"),
        (peer("foreman.example.com."), "could not read CN from the client certificate"),
        (NO_CERTIFICATE, "could not read client cert from environment"),
        (peer(None), "could not read CN from the client certificate"),
        (peer("/"), "could not read CN from the client certificate"),
        (peer("other.example.com"), untrusted("other.example.com")),
        (peer("Other.Example.Com"), untrusted("other.example.com")),
        (peer("foreman.example.com.evil.test"), untrusted("foreman.example.com.evil.test")),
    ],
)
async def test_over_tls_the_certificates_name_decides(by: Peer, text: str | None) -> None:
    # The resolver would say yes, and every certificate here has foreman's name among its alternative names and its
    # organisation: only the common name counts.
    assert await refused(Gate(TRUSTED, names=KNOWN), by) == text


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (FakeNames({CLIENT: FOREMAN}, {FOREMAN: [CLIENT]}), None),
        (FakeNames({CLIENT: "Foreman.EXAMPLE.com"}, {"Foreman.EXAMPLE.com": ["192.0.2.1", CLIENT]}), None),
        (FakeNames(), f"unable to resolve hostname for ip address {CLIENT}\n\nUnknown host"),
        (
            FakeNames({CLIENT: FOREMAN}),
            f"could not forward verify the remote hostname - {FOREMAN} ({CLIENT})\n\nName or service not known",
        ),
        (
            FakeNames({CLIENT: FOREMAN}, {FOREMAN: ["192.0.2.1"]}),
            f"untrusted client has no matching forward DNS lookup - {FOREMAN} ({CLIENT})",
        ),
        (
            FakeNames({CLIENT: FOREMAN}, {FOREMAN: []}),
            f"untrusted client has no matching forward DNS lookup - {FOREMAN} ({CLIENT})",
        ),
        (
            FakeNames({CLIENT: "Other.example.com"}, {"Other.example.com": [CLIENT]}),
            untrusted("other.example.com"),
        ),
    ],
    ids=["known", "case", "no PTR", "no forward", "another address", "no address", "not in the list"],
)
async def test_over_http_the_name_of_the_address_decides(names: FakeNames, text: str | None) -> None:
    assert await refused(Gate(TRUSTED, names=names), NO_CERTIFICATE, scheme="http") == text


async def test_without_forward_verification_the_reverse_name_is_believed() -> None:
    names = FakeNames({CLIENT: FOREMAN})
    assert await refused(Gate(TRUSTED, forward_verify=False, names=names), NO_CERTIFICATE, scheme="http") is None
    assert names.asked == [CLIENT]


async def test_a_scoped_address_has_no_name_and_is_compared_as_it_is() -> None:
    names = FakeNames()
    by = Peer("fe80::1%eth0")
    scoped = Callers(frozenset({by.address}), frozenset(), over_http=True)
    assert await refused(Gate(scoped, names=names), by, scheme="http") is None
    assert await refused(Gate(TRUSTED, names=names), by, scheme="http") == untrusted("fe80::1%eth0")
    assert names.asked == []


async def test_addresses_match_by_value_however_they_are_written() -> None:
    by = Peer("2001:db8::1")
    names = FakeNames({"2001:db8::1": FOREMAN}, {FOREMAN: ["nonsense", "2001:0db8:0:0::1"]})
    assert await refused(Gate(TRUSTED, names=names), by, scheme="http") is None


async def test_without_a_list_a_certificate_is_enough_over_tls_and_nothing_is_over_http() -> None:
    gate = Gate(Callers(), names=KNOWN)
    assert await refused(gate, peer("anybody.example.com")) is None
    assert await refused(gate, peer(None)) is None
    assert await refused(gate, NO_CERTIFICATE) == "No client SSL certificate supplied"
    # Whatever its address is called: an administrator who wants that says so.
    assert await refused(gate, NO_CERTIFICATE, scheme="http") == (
        "Only clients with a certificate may ask this: foreman.trusted_hosts in the cluster file names nobody who may do "
        "so over plain HTTP"
    )


async def test_an_empty_list_refuses_everybody() -> None:
    gate = Gate(NOBODY, names=KNOWN)
    assert await refused(gate, peer(FOREMAN)) == untrusted(FOREMAN)
    assert await refused(gate, NO_CERTIFICATE, scheme="http") == untrusted(FOREMAN)


async def test_the_path_in_a_refusal_is_relative_to_the_mount() -> None:
    assert await refused(Gate(NOBODY, names=KNOWN), peer(FOREMAN), path="/") == untrusted(FOREMAN, "/")
    root = request("GET", "/puppet/ca")
    root.path = "/"
    root.peer = peer(FOREMAN)
    with pytest.raises(Denied) as refusal:
        await Gate(NOBODY, names=KNOWN).admit(Access.TRUSTED, root)
    assert str(refusal.value) == untrusted(FOREMAN, "")


async def test_a_header_is_no_certificate_and_no_address() -> None:
    headers = {"x-client-cert": "x", "ssl-client-cert": "x", "x-forwarded-for": CLIENT}
    gate = Gate(TRUSTED, names=KNOWN)
    with pytest.raises(Denied, match="could not read client cert from environment"):
        await gate.admit(Access.TRUSTED, request(by=NO_CERTIFICATE, headers=headers))
    with pytest.raises(Denied, match=r"unable to resolve hostname for ip address 127\.0\.0\.1"):
        await gate.admit(Access.TRUSTED, request(by=Peer("127.0.0.1"), headers=headers, scheme="http"))


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_an_open_route_asks_nothing(scheme: str) -> None:
    names = FakeNames()
    assert await refused(Gate(NOBODY, names=names), NO_CERTIFICATE, scheme=scheme, access=Access.OPEN) is None
    assert names.asked == []


@pytest.mark.parametrize(
    ("by", "scheme", "text"),
    [
        (peer("anybody.example.com"), "https", None),
        (Peer("127.0.0.1"), "https", "No client SSL certificate supplied"),
        (Peer("127.0.0.1"), "http", None),
        (Peer("127.9.9.9"), "http", None),
        (Peer("::1"), "http", None),
        (Peer(CLIENT), "http", "Only clients on this host may ask this without TLS"),
        (Peer("fe80::1%eth0"), "http", "Only clients on this host may ask this without TLS"),
    ],
)
async def test_the_cluster_may_ask_with_a_certificate_or_from_this_host(
    by: Peer, scheme: str, text: str | None
) -> None:
    gate = Gate(NOBODY, names=FakeNames())
    assert await refused(gate, by, scheme=scheme, access=Access.CLUSTER) == text


@dataclass
class Resolver:
    """The machine's resolver: it cannot be an argument, and must not ask the network here.

    Attributes:
        asked: every question that reached it, in order.
        silent: hold answers back while set.
    """

    asked: list[str] = field(default_factory=list)
    failure: Exception | None = None
    silent: bool = False
    speak: threading.Event = field(default_factory=threading.Event)

    def gethostbyaddr(self, address: str) -> tuple[str, list[str], list[str]]:
        self._answered(address)
        return (f"host-{address}", [], [address])

    def getaddrinfo(self, name: str, *_: object) -> list[tuple[Any, ...]]:
        self._answered(name)
        return [(2, 1, 6, "", (CLIENT, 0)), (10, 1, 6, "", ("::1", 0, 0, 0))]

    def _answered(self, what: str) -> None:
        self.asked.append(what)
        if self.silent:
            self.speak.wait(30)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Resolver]:
    found = Resolver()
    monkeypatch.setattr(socket, "gethostbyaddr", found.gethostbyaddr)
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    yield found
    found.speak.set()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


async def test_the_resolvers_answers_become_names_and_addresses(resolver: Resolver) -> None:
    names = SystemNames()
    assert await names.reverse(CLIENT) == f"host-{CLIENT}"
    assert await names.forward("a.example.com") == [CLIENT, "::1"]
    assert resolver.asked == [CLIENT, "a.example.com"]


async def test_a_resolver_that_does_not_answer_is_given_up_and_not_waited_for_again(resolver: Resolver) -> None:
    resolver.silent = True
    names = SystemNames(timeout_s=0.01)
    for _ in range(2):
        with pytest.raises(OSError, match=r"the resolver did not answer within 0\.01 s"):
            await names.reverse(CLIENT)
    assert resolver.asked == [CLIENT]


async def test_a_name_the_resolver_cannot_even_read_is_an_oserror(resolver: Resolver) -> None:
    resolver.failure = UnicodeError("label too long")
    with pytest.raises(OSError, match="not a host name: label too long"):
        await SystemNames().forward("a" * 70)


async def test_what_the_resolver_says_is_said_in_its_own_words(resolver: Resolver) -> None:
    resolver.failure = socket.herror(1, "Unknown host")
    names = SystemNames()
    for _ in range(2):
        text = await refused(Gate(TRUSTED, names=names), NO_CERTIFICATE, scheme="http")
        assert text == f"unable to resolve hostname for ip address {CLIENT}\n\nUnknown host"
    assert resolver.asked == [CLIENT]


async def test_while_the_resolver_is_silent_other_threads_go_on(resolver: Resolver) -> None:
    resolver.silent = True
    # Metrics and looks at disks use the loop's own threads: one would be enough for them.
    with ThreadPoolExecutor(1) as own:
        asyncio.get_running_loop().set_default_executor(own)
        names = SystemNames(timeout_s=0.05)
        lost = await asyncio.gather(*(names.reverse(f"192.0.2.{n}") for n in range(100)), return_exceptions=True)
        assert {type(e) for e in lost} == {OSError}
        try:
            async with asyncio.timeout(5):
                assert await asyncio.to_thread(lambda: "done") == "done"
        finally:
            resolver.speak.set()
    assert len(resolver.asked) == names.threads


async def test_one_question_at_a_time_is_asked_once_for_all_who_ask_it(resolver: Resolver) -> None:
    resolver.silent = True
    names = SystemNames()
    first, *others = [asyncio.create_task(names.reverse(CLIENT)) for _ in range(10)]
    await until(lambda: bool(resolver.asked))
    first.cancel()
    resolver.speak.set()
    assert set(await asyncio.gather(*others)) == {f"host-{CLIENT}"}
    assert first.cancelled()
    assert resolver.asked == [CLIENT]


async def test_an_answer_holds_for_a_while_and_a_reverse_one_is_no_forward_one(resolver: Resolver) -> None:
    names = SystemNames(kept_s=60)
    for _ in range(3):
        await names.reverse(CLIENT)
    assert await names.forward(CLIENT) == [CLIENT, "::1"]
    assert resolver.asked == [CLIENT, CLIENT]
    forgetful = SystemNames(kept_s=0)
    for _ in range(3):
        await forgetful.reverse(CLIENT)
    assert len(resolver.asked) == 5


async def test_of_many_answers_the_newest_are_kept(resolver: Resolver) -> None:
    names = SystemNames(kept_s=60, kept=3)
    for address in ("a", "b", "c", "d", "d", "b", "a"):
        await names.reverse(address)
    assert resolver.asked == ["a", "b", "c", "d", "a"]


async def test_a_lookup_for_which_there_is_no_room_fails_like_any_other(resolver: Resolver) -> None:
    resolver.silent = True
    names = SystemNames(threads=1, waiting=1)
    held = [asyncio.create_task(names.reverse(address)) for address in ("192.0.2.1", "192.0.2.2")]
    await until(lambda: bool(resolver.asked))
    text = await refused(Gate(TRUSTED, names=names), NO_CERTIFICATE, scheme="http")
    assert text == f"unable to resolve hostname for ip address {CLIENT}\n\ntoo many lookups wait for the resolver"
    resolver.speak.set()
    assert await asyncio.gather(*held) == ["host-192.0.2.1", "host-192.0.2.2"]
    assert await names.reverse(CLIENT) == f"host-{CLIENT}"


async def test_a_lookup_nobody_waits_for_any_more_is_not_begun(resolver: Resolver) -> None:
    resolver.silent = True
    names = SystemNames(timeout_s=0.01, threads=1)
    for address in ("192.0.2.1", "192.0.2.2"):
        with pytest.raises(OSError, match="did not answer"):
            await names.reverse(address)
    resolver.speak.set()
    await until(lambda: not names._under_way)
    assert resolver.asked == ["192.0.2.1"]
    assert await names.reverse("192.0.2.1") == "host-192.0.2.1"


async def test_a_bug_is_raised_remembered_by_nobody_and_holds_no_thread(resolver: Resolver) -> None:
    resolver.failure = ZeroDivisionError()
    names = SystemNames(threads=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await names.reverse(CLIENT)
    resolver.failure = None
    assert await names.reverse(CLIENT) == f"host-{CLIENT}"


async def test_a_machine_without_another_thread_fails_the_lookup_only(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = SystemNames()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        with pytest.raises(OSError, match="can't start new thread"):
            await names.reverse(CLIENT)
    assert await names.reverse(CLIENT) == f"host-{CLIENT}"
    assert resolver.asked == [CLIENT]


# ------------------------------------------------------------------ judged at every call


OURS, THEIRS = CA("ours"), CA("theirs")
TRUST = Trust((OURS.certificate,), (THEIRS.certificate,))


def shown_by(ca: CA, name: str, *, under: Trust | None = TRUST, serial: int | None = None) -> Peer:
    return Peer(CLIENT, ca.issue(name, serial=serial).public_bytes(Encoding.DER), trust=under)


def cluster(foreman: str, balancer: str = "lb") -> ClusterFile:
    return parse(
        "schema: 1\ncluster: demo\naddress: proxy.example.com\nstore: {url: 'sqlite:////nowhere/x.db'}\n"
        f"foreman: {{{foreman}}}\nmembers:\n- {{id: 1, name: Proxy01.example.com, address: 127.0.0.1}}\n"
        f"balancers:\n- {{name: {balancer}, address: 127.0.0.2}}\n"
    ).parsed(ClusterFile)


URL = f"url: https://{FOREMAN}:8443/x"


@pytest.mark.parametrize(
    ("foreman", "admitted"),
    [
        # Nothing said: the cluster's own CA, whose certificates an administrator gave out one by one.
        ("", {"ours/anybody.example.com", f"ours/{FOREMAN}", "ours/proxy01.example.com"}),
        # Foreman's URL names Foreman; of the cluster's own, members count.
        (URL, {f"ours/{FOREMAN}", f"theirs/{FOREMAN}", "ours/proxy01.example.com"}),
        ("url: 'https://192.0.2.1'", {"ours/anybody.example.com", f"ours/{FOREMAN}", "ours/proxy01.example.com"}),
        # A list is the whole list.
        (f"trusted_hosts: [{FOREMAN}], {URL}", {f"ours/{FOREMAN}", f"theirs/{FOREMAN}"}),
        (f"trusted_hosts: [anybody.example.com], {URL}", {"ours/anybody.example.com", "theirs/anybody.example.com"}),
        ("trusted_hosts: []", set()),
    ],
)
async def test_who_counts_where_nobody_or_somebody_said_so(foreman: str, admitted: set[str]) -> None:
    gate = Gate(Callers.of(cluster(foreman)), names=KNOWN, trust=TRUST)
    found = {
        f"{which}/{name}"
        for which, ca in (("ours", OURS), ("theirs", THEIRS))
        for name in ("anybody.example.com", FOREMAN, "proxy01.example.com")
        if await refused(gate, shown_by(ca, name)) is None
    }
    assert found == admitted


@pytest.mark.parametrize("foreman", ["", URL])
async def test_a_name_that_nobody_wrote_down_counts_for_nothing_over_http(foreman: str) -> None:
    gate = Gate(Callers.of(cluster(foreman)), names=KNOWN, trust=TRUST)
    assert "Only clients with a certificate may ask this" in (await refused(gate, NO_CERTIFICATE, scheme="http") or "")
    named = Gate(Callers.of(cluster(f"trusted_hosts: [{FOREMAN}]")), names=KNOWN, trust=TRUST)
    assert await refused(named, NO_CERTIFICATE, scheme="http") is None


async def test_the_cluster_answers_its_own_and_trusted_hosts_and_no_managed_host() -> None:
    gate = Gate(Callers.of(cluster(URL)), names=KNOWN, trust=TRUST)
    assert await refused(gate, shown_by(OURS, "prometheus.example.com"), access=Access.CLUSTER) is None
    assert await refused(gate, shown_by(THEIRS, FOREMAN), access=Access.CLUSTER) is None
    text = await refused(gate, shown_by(THEIRS, "agent.example.com"), access=Access.CLUSTER)
    assert text is not None
    assert text.startswith("Only hosts in foreman.trusted_hosts")


async def looked(gate: Gate, by: Peer, scheme: str = "https") -> str:
    return await refused(gate, by, scheme=scheme, access=Access.OPERATORS, path="/cluster/") or "admitted"


async def test_the_page_is_for_operators_and_never_for_an_agent() -> None:
    puppet = CA("puppet")

    async def revoked(certificate: x509.Certificate) -> bool:
        return certificate.serial_number == 66

    trust = Trust((OURS.certificate,), (THEIRS.certificate, puppet.certificate))
    gate = Gate(Callers.of(cluster(URL)), names=KNOWN, trust=trust, revoked=revoked)
    # A browser's, a member's, and Foreman's own, of whichever CA.
    assert await looked(gate, shown_by(OURS, "anna", under=trust)) == "admitted"
    assert await looked(gate, shown_by(OURS, "proxy01.example.com", under=trust)) == "admitted"
    assert await looked(gate, shown_by(THEIRS, FOREMAN, under=trust)) == "admitted"
    # Agents: of the Puppet CA, and of Foreman's when that is the same.
    for ca in (puppet, THEIRS):
        text = await looked(gate, shown_by(ca, "agent.example.com", under=trust))
        assert text.startswith("Only hosts in foreman.trusted_hosts")
    unknown = await looked(gate, shown_by(CA("nobody's"), FOREMAN, under=trust))
    assert unknown.startswith("Only hosts in foreman.trusted_hosts")
    assert "is revoked" in await looked(gate, shown_by(OURS, "anna", under=trust, serial=66))
    assert (await looked(gate, NO_CERTIFICATE)).startswith("No client SSL certificate supplied; muster certs issue")
    # Over HTTP nobody shows who he is: neither Foreman by its address' name, nor an account of this host.
    for address in (CLIENT, "127.0.0.1", "::1"):
        assert (await looked(gate, Peer(address), "http")).startswith("Only clients with a certificate")


@pytest.mark.parametrize("shared", ["foreman's", "the members' Puppet CA"])
async def test_where_hosts_have_certificates_of_the_clusters_own_ca_names_decide(shared: str) -> None:
    trust = Trust((OURS.certificate,), (OURS.certificate,) if shared == "foreman's" else ())
    gate = Gate(Callers.of(cluster(f"trusted_hosts: [{FOREMAN}, anna]")), names=KNOWN, trust=trust)
    if shared != "foreman's":
        # Or one above it, by which older hosts' were issued.
        gate.hosts_cas = lambda: (THEIRS.certificate, OURS.certificate)
    assert await looked(gate, shown_by(OURS, "agent.example.com", under=trust)) != "admitted"
    assert await looked(gate, shown_by(OURS, FOREMAN, under=trust)) == "admitted"


async def test_while_the_hosts_ca_is_not_known_names_decide_too() -> None:
    trust = Trust((OURS.certificate,), ())
    gate = Gate(Callers.of(cluster(URL)), names=KNOWN, trust=trust, hosts_cas=lambda: None)
    text = await looked(gate, shown_by(OURS, "agent.example.com", under=trust))
    assert text.startswith("The members' Puppet CA could not be opened yet")
    assert await looked(gate, shown_by(OURS, FOREMAN, under=trust)) == "admitted"
    gate.hosts_cas = lambda: (THEIRS.certificate,)
    assert await looked(gate, shown_by(OURS, "anna", under=trust)) == "admitted"


async def test_on_a_port_that_shows_a_rooms_certificate_nobody_is_an_operator() -> None:
    gate = Gate(Callers.of(cluster("")), names=KNOWN)
    assert (await looked(gate, shown_by(OURS, "anna"))).startswith("Only hosts in foreman.trusted_hosts")


def judged(gate: Gate, by: Peer) -> str | None:
    try:
        gate.judge(by)
    except Denied as e:
        return str(e)
    return None


def test_a_certificate_that_ended_counts_no_longer_on_a_connection_from_before() -> None:
    clock = FakeClock(at=datetime.now(UTC))
    gate, by = Gate(Callers(), trust=TRUST, clock=clock), shown_by(THEIRS, FOREMAN)
    assert judged(gate, by) is None
    clock.advance(2 * 86400)
    assert (judged(gate, by) or "").startswith("The certificate of CN=foreman.example.com ended on ")
    clock.advance(-9 * 86400)
    assert "is valid only from" in (judged(gate, by) or "")
    assert judged(gate, NO_CERTIFICATE) is None


def test_a_ca_that_was_removed_is_trusted_no_longer() -> None:
    gate, by, other = Gate(Callers(), trust=TRUST), shown_by(THEIRS, FOREMAN), shown_by(OURS, FOREMAN)
    assert judged(gate, by) is None
    gate.trust = Trust((OURS.certificate,))
    assert "is trusted no longer" in (judged(gate, by) or "")
    assert judged(gate, other) is None
    gate.trust = TRUST
    assert judged(gate, by) is None


def test_what_came_through_an_intermediate_counts_until_the_cas_change() -> None:
    """The client sent the intermediate along: the handshake knew it, and nobody here does."""
    strangers = CA("intermediate")
    gate, by = Gate(Callers(), trust=TRUST), shown_by(strangers, FOREMAN)
    assert judged(gate, by) is None
    gate.trust = Trust((OURS.certificate,))
    assert "is trusted no longer" in (judged(gate, by) or "")
    assert judged(gate, shown_by(strangers, FOREMAN, under=gate.trust)) is None


async def test_a_revoked_certificate_is_refused_on_protected_calls() -> None:
    asked: list[int] = []

    async def revoked(certificate: x509.Certificate) -> bool:
        asked.append(certificate.serial_number)
        return certificate.serial_number == 77

    gate = Gate(TRUSTED, names=KNOWN, trust=TRUST, revoked=revoked)
    gate.lists = RevocationLists({THEIRS.name: frozenset({55})})
    for serial, reason in ((77, "is revoked"), (55, "is revoked"), (66, None)):
        text = await refused(gate, shown_by(THEIRS, FOREMAN, serial=serial))
        assert (text is None) if reason is None else (reason in (text or ""))
    text = await refused(gate, shown_by(THEIRS, FOREMAN, serial=77), access=Access.CLUSTER)
    assert "is revoked" in (text or "")
    # The store is asked for nobody who would be refused anyway, nor for an open route.
    assert asked == [77, 66, 77]
    assert await refused(gate, shown_by(THEIRS, "agent.example.com", serial=77)) == untrusted("agent.example.com")
    assert await refused(gate, shown_by(THEIRS, FOREMAN, serial=77), access=Access.OPEN) is None
    assert asked == [77, 66, 77]
