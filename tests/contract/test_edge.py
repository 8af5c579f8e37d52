"""What the edge promises to clients that mean well, played by clients that do not: real sockets, a real member."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from muster.edge import server as edge_server
from muster.edge.proxy_protocol import SIGNATURE
from muster.pki import bundles
from muster.pki.authority import ClusterCA
from muster.pki.bundles import BundleRequest
from tests.servers import member
from tests.servers.client import PATIENCE_S, Answer, Connection, Place, ask, innocent, request, tls_client
from tests.servers.member import CLUSTER_ADDRESS, TRUSTED, FixedNames, Member

BALANCER = "127.0.2.200"
INNOCENT = "127.0.2.1"
PER_ADDRESS = 8
LONG_IDLE_S = 20.0
LIMITS: dict[str, Any] = {
    "handshake_timeout_s": 1.0,
    "header_timeout_s": 1.2,
    "body_timeout_s": 1.2,
    "idle_timeout_s": 1.0,
    "connections_per_address": PER_ADDRESS,
    "connections": 200,
    "body_limit_bytes": 4096,
}
NAMES = FixedNames(
    {"203.0.113.9": "nine.example.com", "2001:db8::9": "six.example.com", BALANCER: "lb.example.com"},
    {"nine.example.com": ["203.0.113.9"], "six.example.com": ["2001:db8::9"], "lb.example.com": [BALANCER]},
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    directory = tmp_path_factory.mktemp("member")
    features = {"dns": {"provider": "memory"}}
    with member.running(directory, features=features, edge=LIMITS, balancers=[BALANCER], names=NAMES) as running:
        yield running


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Member]:
    """A member for one test, which may spoil it."""
    edge = {**LIMITS, "idle_timeout_s": LONG_IDLE_S, "body_timeout_s": 20.0, "connections_per_address": 64}
    with member.running(tmp_path, features={"dns": {"provider": "memory"}}, edge=edge) as running:
        yield running


@pytest.fixture
def source() -> str:
    """An address that no other test's connections count against."""
    return f"127.0.3.{next(_numbers)}"


@pytest.fixture(params=["http", "https"])
def listener(request: pytest.FixtureRequest, proxy: Member) -> tuple[Place, ssl.SSLContext | None]:
    return (proxy.https, proxy.tls()) if request.param == "https" else (proxy.http, None)


Listener = tuple[Place, ssl.SSLContext | None]


def until(what: str, holds: Callable[[], bool]) -> None:
    """Wait for something that other threads bring about."""
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.05)


def dripped(connection: Connection, raw: bytes) -> bytes:
    """Send a byte every 0.3 s until the server answers or closes, and return what it said."""
    connection.socket.settimeout(0.3)
    end = time.monotonic() + PATIENCE_S
    for byte in itertools.chain(raw, itertools.repeat(ord("a"))):
        assert time.monotonic() < end, "the slow client was served for ever"
        try:
            connection.send(bytes([byte]))
            said = connection.socket.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            return b""
        connection.socket.settimeout(PATIENCE_S)
        return said + connection.remainder() if said else b""
    raise AssertionError("unreachable")


def proxy_header(client: str, port: int = 40000, *, command: int = 1) -> bytes:
    """Return a PROXY v2 header as a balancer sends it; ``command`` 0 is LOCAL."""
    address = ip_address(client)
    body = address.packed + bytes(len(address.packed)) + port.to_bytes(2, "big") + (9090).to_bytes(2, "big")
    family = 0 if command == 0 else 0x11 if address.version == 4 else 0x21
    return SIGNATURE + bytes([0x20 | command, family]) + len(body).to_bytes(2, "big") + body


def form(body: str) -> bytes:
    return request("POST", "/dns/", FORM, body.encode())


# Clients that take their time.


def test_headers_that_drip_in_are_cut(listener: Listener, source: str, proxy: Member) -> None:
    place, tls = listener
    with innocent(proxy.https, proxy.tls(), INNOCENT), Connection(place, tls=tls, source=source) as slow:
        assert not dripped(slow, b"GET /version HTTP/1.1\r\nX-Slow: ")


def test_headers_that_drip_in_on_a_kept_connection_are_cut(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as slow:
        slow.send(request("GET", "/version"))
        assert slow.answer().status == 200
        assert not dripped(slow, b"GET /version HTTP/1.1\r\nX-Slow: ")


def test_a_connection_without_a_request_is_closed(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as idle:
        assert idle.remainder() == b""


@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], ids=["silent", "half-hello"])
def test_a_peer_that_never_finishes_its_handshake_is_closed(hello: bytes, source: str, proxy: Member) -> None:
    with innocent(proxy.https, proxy.tls(), INNOCENT), Connection(proxy.https, source=source) as silent:
        silent.send(hello)
        assert silent.remainder() == b""


def test_a_crowd_of_silent_peers_harms_nobody(proxy: Member) -> None:
    with contextlib.ExitStack() as crowd:
        for i in range(80):
            crowd.enter_context(Connection(proxy.https, source=f"127.0.4.{1 + i // 5}"))
        with innocent(proxy.https, proxy.tls(), INNOCENT) as probe:
            until("ten calls beside the crowd", lambda: probe.good >= 10 or bool(probe.bad))


def test_lone_line_ends_do_not_keep_a_connection(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as slow:
        assert not dripped(slow, b"\r\n" * 200)


def test_a_kept_connection_is_closed_when_it_stays_silent(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as kept:
        kept.send(request("GET", "/version"))
        assert kept.answer().status == 200
        assert kept.remainder() == b""


def test_a_kept_connection_that_is_used_stays_open(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as kept:
        end = time.monotonic() + 3 * LIMITS["idle_timeout_s"]
        while time.monotonic() < end:
            kept.send(request("GET", "/version"))
            assert kept.answer().status == 200
            time.sleep(0.3)


def test_a_body_that_drips_in_is_answered_408_and_closed(source: str, proxy: Member) -> None:
    with Connection(proxy.https, tls=proxy.tls(TRUSTED), source=source) as slow:
        slow.send(request("POST", "/dns/", {**FORM, "Content-Length": "500"}))
        said = dripped(slow, b"fqdn=")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in said
    assert said.endswith(b"the body did not arrive within 1.2 s")


# Clients that say too much.


def _too_long(size: int) -> bytes:
    return b"GET /version HTTP/1.1\r\nHost: x\r\nX-Big: " + b"a" * size


def test_headers_over_64_kib_are_refused(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as long:
        long.send(_too_long(64 * 1024))
        answer = long.answer()
        assert (answer.status, answer.headers["connection"]) == (431, "close")
        assert long.remainder() == b""


def test_many_small_headers_over_64_kib_are_refused(source: str, proxy: Member) -> None:
    with Connection(proxy.https, tls=proxy.tls(), source=source) as long:
        long.send(b"GET /version HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(7000)))
        assert long.answer().status == 431


def test_headers_under_64_kib_are_read(listener: Listener, source: str) -> None:
    place, tls = listener
    with Connection(place, tls=tls, source=source) as long:
        long.send(_too_long(60 * 1024) + b"\r\n\r\n")
        assert long.answer().status == 200


def test_the_second_request_of_a_connection_has_its_own_64_kib(source: str, proxy: Member) -> None:
    with Connection(proxy.https, tls=proxy.tls(), source=source) as kept:
        for _ in range(3):
            kept.send(_too_long(40 * 1024) + b"\r\n\r\n")
            assert kept.answer().status == 200
        kept.send(_too_long(64 * 1024))
        assert kept.answer().status == 431


def test_endless_headers_end(listener: Listener, source: str, proxy: Member) -> None:
    place, tls = listener
    with innocent(proxy.https, proxy.tls(), INNOCENT), Connection(place, tls=tls, source=source) as long:
        long.send(b"GET /version HTTP/1.1\r\n")
        assert _is_cut(long, b"X-More: " + b"a" * 65536 + b"\r\n")


def _is_cut(connection: Connection, endlessly: bytes) -> bool:
    """Send the same again and again, until the server no longer takes it."""
    end = time.monotonic() + PATIENCE_S
    try:
        while time.monotonic() < end:
            connection.send(endlessly)
    except TimeoutError:
        return False
    except OSError:
        return True
    return False


@pytest.mark.parametrize("announced", [True, False], ids=["content-length", "chunked"])
def test_a_body_over_the_limit_is_413(announced: bool, source: str, proxy: Member) -> None:
    body = b"fqdn=" + b"a" * LIMITS["body_limit_bytes"]
    size = {"Content-Length": str(len(body))} if announced else {"Transfer-Encoding": "chunked"}
    raw = body if announced else b"%x\r\n%s\r\n" % (len(body), body)
    with Connection(proxy.https, tls=proxy.tls(TRUSTED), source=source) as large:
        large.send(request("POST", "/dns/", {**FORM, **size}) + raw)
        answer = large.answer()
        assert (answer.status, answer.text) == (413, "the body is larger than 4096 bytes")
        assert announced or answer.headers["connection"] == "close"


def test_a_body_under_the_limit_is_read_in_chunks_too(source: str, proxy: Member) -> None:
    with Connection(proxy.https, tls=proxy.tls(TRUSTED), source=source) as chunked:
        chunked.send(request("POST", "/dns/", {**FORM, "Transfer-Encoding": "chunked"}))
        for part in (b"fqdn=chunked.example.com", b"&value=192.0.2.1&type=A"):
            chunked.send(b"%x\r\n%s\r\n" % (len(part), part))
        chunked.send(b"0\r\n\r\n")
        assert (chunked.answer().status) == 200


def test_who_may_not_call_is_refused_before_the_body_came(source: str, proxy: Member) -> None:
    with Connection(proxy.https, tls=proxy.tls("other.example.com"), source=source) as stranger:
        stranger.send(request("POST", "/dns/", {**FORM, "Content-Length": "4000"}))
        answer = stranger.answer()
        assert (answer.status, answer.headers["connection"]) == (403, "close")
        assert stranger.remainder() == b""


def test_a_client_that_waits_for_100_continue_gets_it(source: str, proxy: Member) -> None:
    body = b"fqdn=continue.example.com&value=192.0.2.1&type=A"
    with Connection(proxy.https, tls=proxy.tls(TRUSTED), source=source) as waiting:
        waiting.send(request("POST", "/dns/", {**FORM, "Content-Length": str(len(body)), "Expect": "100-continue"}))
        assert waiting.socket.recv(65536).startswith(b"HTTP/1.1 100 ")
        waiting.send(body)
        assert waiting.answer().status == 200


# Clients that say it oddly.


def test_pipelined_requests_are_answered_in_order(listener: Listener, source: str) -> None:
    place, tls = listener
    paths = ["/version", "/features", "/nonexistent", "/health/live", "/version"] * 4
    with Connection(place, tls=tls, source=source) as eager:
        eager.send(b"".join(request("GET", p) for p in paths))
        answers = [eager.answer() for _ in paths]
    shapes = {
        "/version": (200, b'{"v'),
        "/features": (200, b'["d'),
        "/nonexistent": (404, b"Req"),
        "/health/live": (200, b'{"l'),
    }
    assert [(a.status, a.body[:3]) for a in answers] == [shapes[p] for p in paths]


def test_pipelined_bodies_stay_with_their_requests(source: str, proxy: Member) -> None:
    names = [f"pipe{i}.example.com" for i in range(5)]
    with Connection(proxy.https, tls=proxy.tls(TRUSTED), source=source) as eager:
        eager.send(b"".join(form(f"fqdn={n}&value=192.0.2.1&type=A") for n in names))
        assert [eager.answer().status for _ in names] == [200] * 5
        eager.send(form("fqdn=pipe0.example.com&value=192.0.2.2&type=A"))
        assert eager.answer().status == 409


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "5", "Transfer-Encoding": "chunked"},
        {"Content-Length": "5, 6"},
        {"Content-Length": "+5"},
        {"Transfer-Encoding": "chunked, identity"},
        {"Transfer-Encoding": "xchunked"},
        {"X-Broken\r\n GET /health/live": "x"},
        {"X-Nul": "a\x00b"},
    ],
    ids=["both-lengths", "two-lengths", "signed-length", "chunked-not-last", "unknown-coding", "folded", "nul"],
)
def test_a_request_that_two_servers_could_read_differently_is_refused(
    headers: Mapping[str, str], source: str, proxy: Member
) -> None:
    smuggled = request("GET", "/health/live")
    with Connection(proxy.http, source=source) as odd:
        odd.send(request("POST", "/version", headers) + b"0\r\n\r\n" + smuggled)
        said = odd.remainder()
    assert b'{"live":true}' not in said
    assert said.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("protocol", ["websocket", "h2c"])
def test_an_upgrade_nobody_offered_is_ignored(protocol: str, source: str, proxy: Member) -> None:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": protocol,
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
    }
    with Connection(proxy.http, source=source) as odd:
        odd.send(request("GET", "/version", headers))
        assert odd.answer().status == 200


@pytest.mark.parametrize("raw", [b"\x00" * 100, b"NONSENSE\r\n\r\n", b"GET\r\n\r\n", b"GET /version HTTP/9.9\r\n\r\n"])
def test_what_is_no_request_is_refused_and_closed(raw: bytes, source: str, proxy: Member) -> None:
    with Connection(proxy.http, source=source) as odd:
        odd.send(raw)
        assert odd.remainder().startswith(b"HTTP/1.1 400 ")


def test_plain_http_on_the_tls_port_is_closed(source: str, proxy: Member) -> None:
    with Connection(proxy.https, source=source) as lost:
        lost.send(request("GET", "/version"))
        assert b"200" not in lost.remainder()


# Balancers, and those who pretend to be one.


@pytest.mark.parametrize(
    ("header", "name", "address"),
    [
        (proxy_header("203.0.113.9"), "nine.example.com", "203.0.113.9"),
        (proxy_header("2001:db8::9"), "six.example.com", "2001:db8::9"),
        (proxy_header("::ffff:203.0.113.9"), "nine.example.com", "203.0.113.9"),
        (proxy_header("203.0.113.9", command=0), "lb.example.com", BALANCER),
        (b"", "lb.example.com", BALANCER),
    ],
    ids=["TCP4", "TCP6", "mapped", "LOCAL", "none"],
)
def test_the_client_behind_a_balancer_is_the_one_that_counts(
    header: bytes, name: str, address: str, proxy: Member
) -> None:
    answer = ask(proxy.http, "GET", "/v2/features", source=BALANCER, first=header)
    assert (answer.status, answer.text.split(" attempted")[0]) == (403, f"Untrusted client {name}")
    tls = ask(proxy.https, "GET", f"/version?{address}", tls=proxy.tls(), source=BALANCER, first=header)
    assert tls.status == 200
    until("the access log's line", lambda: f"client={address} " in proxy.access_lines[-1])


def test_the_certificate_counts_behind_a_balancer_as_without(proxy: Member) -> None:
    header = proxy_header("203.0.113.9")
    assert ask(proxy.https, "GET", "/v2/features", tls=proxy.tls(TRUSTED), source=BALANCER, first=header).status == 200
    assert ask(proxy.https, "GET", "/v2/features", tls=proxy.tls(), source=BALANCER, first=header).status == 403


def test_a_proxy_header_of_a_stranger_is_not_believed(listener: Listener, source: str, proxy: Member) -> None:
    place, tls = listener
    header = proxy_header("203.0.113.250")
    with innocent(proxy.https, proxy.tls(), INNOCENT):
        assert _status(place, tls=tls, source=source, first=header) in (0, 400)
    assert not [line for line in proxy.access_lines if "client=203.0.113.250 " in line]


def _status(place: Place, **how: Any) -> int:
    """Return the status of one call, 0 when the connection was closed instead."""
    try:
        with Connection(place, **how) as one:
            one.send(request("GET", "/version"))
            return one.answer().status
    except TimeoutError:
        raise
    except OSError:
        return 0


@pytest.mark.parametrize("length", [1, 12, 15, 16, 20])
def test_half_a_proxy_header_is_not_waited_for(length: int, proxy: Member) -> None:
    with Connection(proxy.https, source=BALANCER) as half:
        half.send(proxy_header("203.0.113.9")[:length])
        assert half.remainder() == b""


@pytest.mark.parametrize(
    "header",
    [
        b"\r\n\r\n\x00\r\nQUIX\n\x21\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x11\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x25\x11\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\x00\x04" + bytes(4),
        SIGNATURE + b"\x21\x21\x00\x0c" + bytes(12),
        SIGNATURE + b"\x21\x11\xff\xff" + bytes(65535),
    ],
    ids=["signature", "version", "command", "short", "short6", "huge"],
)
def test_a_malformed_proxy_header_is_closed(header: bytes, proxy: Member) -> None:
    with Connection(proxy.http, source=BALANCER) as odd:
        with contextlib.suppress(OSError):
            odd.send(header + request("GET", "/version"))
        assert odd.remainder() == b""


def test_a_proxy_header_that_comes_in_pieces_is_read(proxy: Member) -> None:
    with Connection(proxy.http, source=BALANCER) as slow:
        for byte in proxy_header("203.0.113.9"):
            slow.send(bytes([byte]))
            time.sleep(0.005)
        slow.send(request("GET", "/v2/features"))
        assert "nine.example.com" in slow.answer().text


# Clients that are too many.


def _held(stack: contextlib.ExitStack, place: Place, count: int, **how: Any) -> list[Connection]:
    """Open connections and prove each alive by one call."""
    found = [stack.enter_context(Connection(place, **how)) for _ in range(count)]
    for one in found:
        one.send(request("GET", "/version"))
        assert one.answer().status == 200
    return found


def _is_refused(place: Place, **how: Any) -> bool:
    return _status(place, **how) == 0


def test_one_address_holds_its_share_and_no_more(own_limits: Member, source: str) -> None:
    tls = own_limits.tls()
    with contextlib.ExitStack() as stack, innocent(own_limits.https, tls, INNOCENT):
        held = _held(stack, own_limits.https, PER_ADDRESS, tls=tls, source=source)
        assert _is_refused(own_limits.https, tls=tls, source=source)
        held[0].close()
        until("a place for another", lambda: not _is_refused(own_limits.https, tls=tls, source=source))


def test_clients_behind_a_balancer_are_counted_one_by_one(own_limits: Member) -> None:
    greedy = {"source": BALANCER, "first": proxy_header("203.0.113.9")}
    with contextlib.ExitStack() as stack:
        _held(stack, own_limits.http, PER_ADDRESS, **greedy)
        assert _is_refused(own_limits.http, **greedy)
        assert (
            ask(own_limits.http, "GET", "/version", source=BALANCER, first=proxy_header("203.0.113.10")).status == 200
        )
        # The balancer's own connections, its health checks, have no limit but the one for all.
        _held(stack, own_limits.http, PER_ADDRESS + 2, source=BALANCER)


def test_all_together_hold_their_number_and_no_more(own_limits: Member) -> None:
    with contextlib.ExitStack() as stack:
        held = [c for i in range(5) for c in _held(stack, own_limits.http, PER_ADDRESS, source=f"127.0.5.{i + 1}")]
        assert len(held) == own_limits.process.cluster.edge.connections
        assert _is_refused(own_limits.http, source="127.0.5.100")
        held[0].close()
        until("a place for another", lambda: not _is_refused(own_limits.http, source="127.0.5.100"))


def test_balancers_and_this_host_have_places_of_their_own(own_limits: Member) -> None:
    everybody = own_limits.process.cluster.edge.connections
    with contextlib.ExitStack() as stack:
        for i in range(5):
            _held(stack, own_limits.http, PER_ADDRESS, source=f"127.0.5.{i + 1}")
        assert own_limits.process.server.listeners[1].open == everybody
        assert _is_refused(own_limits.http, source="127.0.5.100")
        assert ask(own_limits.http, "GET", "/version", source=BALANCER).status == 200
        assert ask(own_limits.http, "GET", "/version", source="127.0.0.1").status == 200


def test_clients_behind_a_balancer_take_none_of_its_places(own_limits: Member) -> None:
    everybody, tls = own_limits.process.cluster.edge.connections, own_limits.tls()
    listener = own_limits.process.server.listeners[0]
    with contextlib.ExitStack() as stack:
        for i in range(5):
            behind = proxy_header(f"203.0.113.{i + 1}")
            _held(stack, own_limits.http, PER_ADDRESS, source=BALANCER, first=behind)
        assert _is_refused(own_limits.http, source=BALANCER, first=proxy_header("203.0.113.100"))
        assert ask(own_limits.http, "GET", "/version", source=BALANCER).status == 200
    with contextlib.ExitStack() as stack:
        for i in range(everybody):
            silent = stack.enter_context(Connection(own_limits.https, source=BALANCER))
            silent.send(proxy_header(f"203.0.113.{i // PER_ADDRESS + 1}"))
        until("all of them", lambda: listener.open == everybody)
        until("their names", lambda: listener._by_address.total() == everybody)
        behind = proxy_header("203.0.113.100")
        assert ask(own_limits.https, "GET", "/version", tls=tls, source=BALANCER, first=behind).status == 200
        assert listener.open <= everybody
    until("every connection's end", lambda: listener.open == 0)
    assert not listener._by_address


def test_unfinished_handshakes_make_room_for_who_comes(own_limits: Member) -> None:
    everybody, tls = own_limits.process.cluster.edge.connections, own_limits.tls()
    listener = own_limits.process.server.listeners[0]
    with contextlib.ExitStack() as stack:
        # They say nothing at all; the deadline for that is longer than this test.
        silent = [
            stack.enter_context(Connection(own_limits.https, source=f"127.0.5.{i // PER_ADDRESS + 1}"))
            for i in range(everybody)
        ]

        def is_full() -> bool:
            # A member asks itself now and then, as it asks the others, and one of them may have made room for that.
            if everybody - PER_ADDRESS < listener.open < everybody:
                silent.append(stack.enter_context(Connection(own_limits.https, source="127.0.5.1")))
            return listener.open == everybody

        until("all of them", is_full)
        why = {"listener": "https", "why": "an unfinished handshake made room"}
        counted = own_limits.process.metrics.registry.get_sample_value
        before = counted("muster_connections_refused_total", why) or 0
        for _ in range(3):
            assert ask(own_limits.https, "GET", "/version", tls=tls, source="127.0.5.100").status == 200
        ended = counted("muster_connections_refused_total", why)
        assert ended is not None
        assert 1 <= ended - before <= 3
        assert len(silent) >= everybody
    until("every connection's end", lambda: listener.open == 0)
    assert not listener._by_address


def test_a_network_of_ipv6_counts_as_one_client(own_limits: Member) -> None:
    greedy = [{"source": BALANCER, "first": proxy_header(f"2001:db8::{n:x}")} for n in range(1, PER_ADDRESS + 2)]
    with contextlib.ExitStack() as stack:
        for one in greedy[:PER_ADDRESS]:
            _held(stack, own_limits.http, 1, **one)
        assert _is_refused(own_limits.http, **greedy[-1])
        assert (
            ask(own_limits.http, "GET", "/version", source=BALANCER, first=proxy_header("2001:db8:0:1::1")).status
            == 200
        )


def test_no_connection_is_forgotten_in_the_count(own_limits: Member) -> None:
    for i in range(30):
        with contextlib.suppress(OSError), Connection(own_limits.https, source=f"127.0.6.{i + 1}") as odd:
            odd.send([b"", b"\x16\x03", b"GET / HTTP/1.1\r\n\r\n", b"\x00"][i % 4])
    until("every connection's end", lambda: all(one.open == 0 for one in own_limits.process.server.listeners))
    assert not any(one._by_address for one in own_limits.process.server.listeners)


@pytest.fixture
def own_limits(tmp_path: Path) -> Iterator[Member]:
    """A member with small numbers and long deadlines: what closes a connection here is its number."""
    edge = {"connections_per_address": PER_ADDRESS, "connections": 5 * PER_ADDRESS, "handshake_timeout_s": 20.0}
    with member.running(tmp_path, edge=edge, balancers=[BALANCER], names=NAMES) as running:
        yield running


# Certificates that change.


def _serial_served(proxy: Member, tls: ssl.SSLContext) -> int:
    with Connection(proxy.https, tls=tls) as c:
        assert isinstance(c.socket, ssl.SSLSocket)
        found = c.socket.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)


def _serves(proxy: Member, serial: int) -> bool:
    return _serial_served(proxy, proxy.tls()) == serial


def _failed_modules(proxy: Member) -> dict[str, str]:
    found: dict[str, str] = json.loads(proxy.ask("GET", "/logs").body)["info"]["failed_modules"]
    return found


def test_a_new_certificate_and_ca_are_taken_up_without_a_failed_call(own: Member) -> None:
    new_ca = ClusterCA.create(own.directory / "new-ca", "new", now=datetime.now(UTC))
    client = new_ca.issue(BundleRequest("client", TRUSTED), now=datetime.now(UTC))
    pem = own.directory / "new-client.pem"
    pem.write_text(client.certificate_pem + client.key_pem.reveal())
    of_new_ca = tls_client(own.ca, pem)
    with pytest.raises(OSError):
        ask(own.https, "GET", "/v2/features", tls=of_new_ca)

    stop, failures, calls = threading.Event(), [], itertools.count()

    def call_for_ever(number: int) -> None:
        while not stop.is_set():
            try:
                answer = ask(own.https, "GET", "/v2/features", tls=own.tls(TRUSTED), source=f"127.0.7.{number + 1}")
            except OSError as e:
                failures.append(repr(e))
            else:
                next(calls)
                if answer.status != 200:
                    failures.append(f"{answer.status} {answer.text}")

    own.client(TRUSTED)
    threads = [threading.Thread(target=call_for_ever, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            bundle = own.issue()
            bundles.write(dataclasses.replace(bundle, chain_pem=own.authority.chain_pem + new_ca.chain_pem), own.pki)
            until("the new certificate", partial(_serves, own, bundle.serial))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert next(calls) > 40
    assert ask(own.https, "GET", "/v2/features", tls=of_new_ca).status == 200
    assert _failed_modules(own) == {}


def test_alarms_sound_as_the_certificates_end_comes_near(own: Member) -> None:
    def alarms() -> dict[str, float]:
        lines = own.ask("GET", "/metrics").text.splitlines()
        found = (line.partition('muster_certificate_alarm{days="')[2] for line in lines)
        return {line.split('"')[0]: float(line.split()[-1]) for line in found if line}

    assert alarms() == {"30": 0, "7": 0, "1": 0}
    wanted = BundleRequest("member", own.name, (CLUSTER_ADDRESS,), (own.https.address,))
    soon = own.authority.issue(wanted, now=datetime.now(UTC), valid_days=5)
    bundles.write(soon, own.pki)
    until("the new certificate", partial(_serves, own, soon.serial))
    assert alarms() == {"30": 1, "7": 1, "1": 0}
    again = own.issue()
    bundles.write(again, own.pki)
    until("the certificate after it", partial(_serves, own, again.serial))
    assert alarms() == {"30": 0, "7": 0, "1": 0}


def test_a_connection_in_progress_outlives_a_new_certificate(own: Member) -> None:
    with Connection(own.https, tls=own.tls(TRUSTED)) as kept:
        kept.send(request("GET", "/v2/features"))
        assert kept.answer().status == 200
        bundle = own.issue()
        bundles.write(bundle, own.pki)
        until("the new certificate", partial(_serves, own, bundle.serial))
        kept.send(request("GET", "/v2/features"))
        assert kept.answer().status == 200


@pytest.mark.parametrize("file", ["cert.pem", "key.pem", "ca.pem"])
@pytest.mark.parametrize(
    "content",
    [b"garbage", b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"],
    ids=["garbage", "empty", "pem-of-nothing"],
)
def test_garbage_is_refused_and_the_old_certificate_keeps_serving(file: str, content: bytes, own: Member) -> None:
    path = bundles.paths(own.pki, "member", own.name).directory / file
    before, good = _serial_served(own, own.tls()), path.read_bytes()
    path.write_bytes(content)
    own.tell(own.process.certificates.reload)
    assert _serial_served(own, own.tls()) == before
    assert f"/{file} " in _failed_modules(own)["certificate"]
    path.write_bytes(good)
    own.tell(own.process.certificates.reload)
    assert _failed_modules(own) == {}


def test_a_key_of_another_certificate_is_refused(own: Member) -> None:
    path = bundles.paths(own.pki, "member", own.name).key
    path.write_text(own.issue().key_pem.reveal())
    until("the refusal, unasked", lambda: "does not belong" in _failed_modules(own).get("certificate", ""))
    assert own.ask("GET", "/v2/features").status == 200


# Who may call at all.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_of_a_foreign_ca_gets_nothing(
    version: ssl.TLSVersion, source: str, proxy: Member, tmp_path: Path
) -> None:
    foreign = ClusterCA.create(tmp_path, "foreign", now=datetime.now(UTC))
    bundle = foreign.issue(BundleRequest("client", TRUSTED), now=datetime.now(UTC))
    pem = tmp_path / "client.pem"
    pem.write_text(bundle.certificate_pem + bundle.key_pem.reveal())
    tls = tls_client(proxy.ca, pem)
    tls.minimum_version = tls.maximum_version = version
    assert _is_refused(proxy.https, tls=tls, source=source)


def test_a_client_without_certificate_gets_open_routes_only(source: str, proxy: Member) -> None:
    tls = proxy.tls()
    answers = {p: ask(proxy.https, "GET", p, tls=tls, source=source) for p in ("/version", "/v2/features", "/logs/")}
    assert {p: a.status for p, a in answers.items()} == {"/version": 200, "/v2/features": 403, "/logs/": 403}
    assert answers["/logs/"].text == "could not read client cert from environment"


@pytest.mark.parametrize("header", ["X-Forwarded-Proto", "X-Forwarded-For", "Forwarded", "X-Forwarded-Ssl"])
def test_no_header_makes_a_tls_call_a_plain_one_or_another_client(header: str, source: str, proxy: Member) -> None:
    value = {"X-Forwarded-Proto": "http", "X-Forwarded-For": "203.0.113.9", "X-Forwarded-Ssl": "off"}.get(header, "")
    headers = {header: value or "for=203.0.113.9;proto=http"}
    before = len(proxy.access_lines)
    # From loopback: the one address whose word uvicorn takes by default.
    for address in (source, "127.0.0.1"):
        answer = ask(proxy.https, "GET", "/v2/features", tls=proxy.tls(), source=address, headers=headers)
        assert (answer.status, answer.text) == (403, "could not read client cert from environment")
    assert "client=203.0.113.9" not in "".join(proxy.access_lines[before:])


def test_the_members_certificate_carries_the_names_clients_use(proxy: Member) -> None:
    for name in (CLUSTER_ADDRESS, proxy.name, proxy.https.address):
        with Connection(proxy.https, tls=proxy.tls(), server_name=name) as c:
            c.send(request("GET", "/version"))
            assert c.answer().status == 200
    with pytest.raises(ssl.SSLCertVerificationError):
        Connection(proxy.https, tls=proxy.tls(), server_name="elsewhere.example.com")


# Members that leave.


def _ready(proxy: Member) -> Answer:
    return ask(proxy.https, "GET", "/health/ready?service=smartproxy", tls=proxy.tls())


def test_a_draining_member_says_404_and_asks_everybody_to_leave(own: Member) -> None:
    with Connection(own.https, tls=own.tls(TRUSTED)) as kept:
        kept.send(request("GET", "/version"))
        assert kept.answer().headers.get("connection") != "close"
        own.tell(own.process.standing.drain, "a test wants it")
        assert (_ready(own).status, json.loads(_ready(own).body)["reason"]) == (404, "a test wants it")
        kept.send(request("GET", "/version"))
        answer = kept.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert kept.remainder() == b""
    own.tell(own.process.standing.readmit)
    assert _ready(own).status == 200


def test_a_client_that_asks_nothing_does_not_hold_up_a_drain(own: Member, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge_server, "_PARTING_S", 0.3)
    with Connection(own.https, tls=own.tls(TRUSTED)) as idle, Connection(own.https, tls=own.tls(TRUSTED)) as silent:
        idle.send(request("GET", "/version"))
        idle.answer()
        begun = time.monotonic()
        own.tell(own.process.standing.drain, "a test wants it")
        assert (idle.remainder(), silent.remainder()) == (b"", b"")
        assert time.monotonic() - begun < LONG_IDLE_S, "they were closed by the idle timeout, not by the drain"


@pytest.mark.parametrize("readiness", ["essential", "functional"])
def test_an_unreachable_provider_takes_the_member_out_or_only_shows(readiness: str, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server = {"server": "127.0.0.1", "port": closed.getsockname()[1]}
        features = {"dns": {"provider": "nsupdate", "readiness": readiness, "nsupdate": server}}
        with member.running(tmp_path, features=features) as one:
            limit = time.monotonic() + PATIENCE_S
            said: dict[str, Any] = {}
            while time.monotonic() < limit and not (said.get("reason") or said.get("notes")):
                said = json.loads(one.ask("GET", "/health/ready?service=smartproxy").text)
            assert said["ready"] is (readiness == "functional")
            sentence = said["notes"][0] if readiness == "functional" else said["reason"]
            assert sentence.startswith(f"feature dns: 127.0.0.1#{server['port']} cannot be reached")
            assert one.ask("GET", "/version").status == 200


def test_a_call_in_flight_is_finished_while_the_member_stops(own: Member) -> None:
    body = b"fqdn=late.example.com&value=192.0.2.1&type=A"
    with Connection(own.https, tls=own.tls(TRUSTED)) as slow, Connection(own.https, tls=own.tls(TRUSTED)) as idle:
        idle.send(request("GET", "/version"))
        idle.answer()
        slow.send(request("POST", "/dns/", {**FORM, "Content-Length": str(len(body))}) + body[:10])
        until("the call's start", lambda: len(own.process.server._state.tasks) == 1)
        stopping = threading.Thread(target=own.stop)
        stopping.start()
        assert idle.remainder() == b""
        idle.close()
        until("the closed door", lambda: _connection_refused(own.https))
        slow.send(body[10:])
        answer = slow.answer()
    stopping.join(PATIENCE_S)
    assert (answer.status, answer.headers["connection"]) == (200, "close")


def _connection_refused(place: Place) -> bool:
    try:
        socket.create_connection(place, 1).close()
    except ConnectionRefusedError:
        return True
    return False


@contextlib.contextmanager
def _process(proxy: Member) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``muster serve`` for a member that is not started."""
    script = shutil.which("muster", path=str(Path(sys.executable).parent))
    assert script is not None, "muster is not installed beside this Python"
    arguments = [script, "serve", "--cluster", str(proxy.cluster_file), "--pki", str(proxy.pki), "--member", proxy.name]
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    with (
        (proxy.directory / "serve.log").open("wb") as log,
        subprocess.Popen(arguments, stdout=log, stderr=log, env=environment) as running,
    ):
        try:
            until("an answer", lambda: not _connection_refused(proxy.https) or running.poll() is not None)
            assert running.poll() is None, (proxy.directory / "serve.log").read_text()
            yield running
        finally:
            if running.poll() is None:
                running.kill()


def test_a_terminated_process_drains_finishes_and_ends_well(tmp_path: Path) -> None:
    proxy = member.made(tmp_path, features={"dns": {"provider": "memory"}}, balancers=[BALANCER], edge={"drain_s": 1.0})
    body = b"fqdn=late.example.com&value=192.0.2.1&type=A"
    with _process(proxy) as running:
        with Connection(proxy.https, tls=proxy.tls(TRUSTED)) as slow:
            slow.send(request("POST", "/dns/", {**FORM, "Content-Length": str(len(body))}) + body[:10])
            assert proxy.ask("GET", "/v2/features").status == 200
            running.send_signal(signal.SIGTERM)
            # Balancers keep sending clients until they have asked for readiness once more; those are served.
            until("404 for readiness", lambda: _ready(proxy).status == 404)
            assert proxy.ask("GET", "/v2/features").headers["connection"] == "close"
            until("the closed door", lambda: _connection_refused(proxy.https))
            slow.send(body[10:])
            answer = slow.answer()
        assert running.wait(PATIENCE_S) == 0
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert "Finished POST /dns/ with 200" in (tmp_path / "serve.log").read_text()


def test_a_hung_up_process_takes_a_new_certificate(tmp_path: Path) -> None:
    proxy = member.made(tmp_path)
    with _process(proxy) as running:
        bundle = proxy.issue()
        bundles.write(bundle, proxy.pki)
        running.send_signal(signal.SIGHUP)
        until("the new certificate", partial(_serves, proxy, bundle.serial))
        running.send_signal(signal.SIGTERM)
        assert running.wait(PATIENCE_S) == 0
