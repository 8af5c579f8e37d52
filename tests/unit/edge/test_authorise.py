from __future__ import annotations

import asyncio
import socket

import pytest

from muster.edge.authorise import Gate, SystemNames
from muster.edge.request import Peer
from muster.edge.routes import Access
from muster.kernel.errors import Denied
from tests.unit.edge.calls import CLIENT, FOREMAN, FakeNames, peer, request

TRUSTED = frozenset({FOREMAN})
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
        (peer("foreman.example.com/emailAddress=x"), None),
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
    assert await refused(Gate(frozenset({"fe80::1%eth0"}), names=names), by, scheme="http") is None
    assert await refused(Gate(TRUSTED, names=names), by, scheme="http") == untrusted("fe80::1%eth0")
    assert names.asked == []


async def test_addresses_match_by_value_however_they_are_written() -> None:
    by = Peer("2001:db8::1")
    names = FakeNames({"2001:db8::1": FOREMAN}, {FOREMAN: ["nonsense", "2001:0db8:0:0::1"]})
    assert await refused(Gate(TRUSTED, names=names), by, scheme="http") is None


async def test_without_a_list_any_certificate_is_enough_over_tls_and_nothing_is_needed_over_http() -> None:
    gate = Gate(None, names=FakeNames())
    assert await refused(gate, peer("anybody.example.com")) is None
    assert await refused(gate, peer(None)) is None
    assert await refused(gate, NO_CERTIFICATE) == "No client SSL certificate supplied"
    assert await refused(gate, NO_CERTIFICATE, scheme="http") is None


async def test_an_empty_list_refuses_everybody() -> None:
    gate = Gate(frozenset(), names=KNOWN)
    assert await refused(gate, peer(FOREMAN)) == untrusted(FOREMAN)
    assert await refused(gate, NO_CERTIFICATE, scheme="http") == untrusted(FOREMAN)


async def test_the_path_in_a_refusal_is_relative_to_the_mount() -> None:
    assert await refused(Gate(frozenset(), names=KNOWN), peer(FOREMAN), path="/") == untrusted(FOREMAN, "/")


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
    assert await refused(Gate(frozenset(), names=names), NO_CERTIFICATE, scheme=scheme, access=Access.OPEN) is None
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
    gate = Gate(frozenset(), names=FakeNames())
    assert await refused(gate, by, scheme=scheme, access=Access.CLUSTER) == text


async def test_a_resolver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    names = SystemNames(timeout_s=0.01)
    loop = asyncio.get_running_loop()
    # The resolver is a C function in a thread: it cannot be replaced by an argument, and must not ask the network here.
    monkeypatch.setattr(loop, "run_in_executor", lambda *_: asyncio.Event().wait(), raising=False)
    with pytest.raises(OSError, match=r"the resolver did not answer within 0\.01 s"):
        await names.reverse(CLIENT)


async def test_the_resolvers_answers_become_names_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyaddr", lambda a: ("a.example.com", [], [a]))
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", (CLIENT, 0)), (10, 1, 6, "", ("::1", 0, 0, 0))]
    )
    assert await SystemNames().reverse(CLIENT) == "a.example.com"
    assert await SystemNames().forward("a.example.com") == [CLIENT, "::1"]


async def test_a_name_the_resolver_cannot_even_read_is_an_oserror(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(*_: object) -> None:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", unreadable)
    with pytest.raises(OSError, match="not a host name: label too long"):
        await SystemNames().forward("a" * 70)
