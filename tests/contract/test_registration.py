"""Hosts register, and fetch templates, through a real member, before a stand-in for Foreman that says what it was asked."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.servers import foreman_for_hosts, member
from tests.servers.client import Answer, Connection, Place, ask, request
from tests.servers.foreman_for_hosts import ForemanForHosts
from tests.servers.member import Member

FAILED = b'echo "Internal Server Error"\nexit 1\n'
TOKEN = {"Authorization": f"Bearer {'t0ken' * 10}"}
FORGED = {"X-Forwarded-For": "192.0.2.66", "Forwarded": "for=192.0.2.66", "Remote-User": "admin", "X-Client-Cert": "x"}


def proxy_header(source: str, to: Place) -> bytes:
    """Return what a balancer writes in front of a connection (PROXY protocol, version 2)."""
    addresses = socket.inet_aton(source) + socket.inet_aton(to.address) + struct.pack("!HH", 4711, to.port)
    return b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses


@pytest.fixture(scope="module")
def foreman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForemanForHosts]:
    with foreman_for_hosts.running(tmp_path_factory.mktemp("foreman")) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(foreman: ForemanForHosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Member]:
    with member.running(
        tmp_path_factory.mktemp("proxy"),
        features={
            "templates": {"foreman_timeout_s": 3},
            "registration": {"enabled": True, "foreman_timeout_s": 3},
        },
        foreman={"url": foreman.url, "ca_file": str(foreman.ca_file), "trusted_hosts": [member.TRUSTED]},
        balancers=["127.0.0.9"],
    ) as running:
        foreman.believe(running.ca)
        yield running


@pytest.fixture(autouse=True)
def _as_before(foreman: ForemanForHosts) -> Iterator[None]:
    foreman.asked.clear()
    yield
    foreman.may_answer.set()
    foreman.cut, foreman.script, foreman.delay_s, foreman.hangs_up = None, None, 0.0, False
    foreman.is_unframed = False
    foreman.headers.clear()


def asked(proxy: Member, path: str, method: str = "GET", *, plain: bool = False, **more: Any) -> Answer:
    """Ask as a host does, which shows no certificate."""
    return ask(proxy.http if plain else proxy.https, method, path, tls=None if plain else proxy.tls(None), **more)


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_foreman_is_told_both_urls_at_the_cluster_s_address(proxy: Member, foreman: ForemanForHosts) -> None:
    told = json.loads(proxy.ask("GET", "/v2/features").body)
    https, http = proxy.https.port, proxy.http.port
    # Balancers offer the services on their usual ports.
    assert (https, http) != (9090, 8000)
    assert told["templates"] == {
        "http_enabled": True, "https_enabled": True, "settings": {"template_url": "http://proxy.example.com:8000"},
        "state": "running", "capabilities": [],
    }  # fmt: skip
    assert told["registration"]["settings"] == {"registration_url": "https://proxy.example.com:9090"}
    assert json.loads(asked(proxy, "/unattended/templateServer", plain=True).body) == {
        "templateServer": "http://proxy.example.com:8000"
    }
    assert not foreman.asked


def test_foreman_is_asked_by_its_own_name_and_shown_the_member_s_certificate(
    proxy: Member, foreman: ForemanForHosts
) -> None:
    assert asked(proxy, "/unattended/provision", headers={"Host": "other.test"}).status == 200
    assert asked(proxy, "/register", headers={"Host": "other.test", **TOKEN}).status == 200
    for one in foreman.asked:
        assert (one.headers["host"], one.client) == (foreman.url.removeprefix("https://"), proxy.name)


@pytest.mark.parametrize("plain", [True, False], ids=["http", "https"])
def test_a_host_s_address_is_the_balancer_s_word_or_the_connection_s(
    proxy: Member, foreman: ForemanForHosts, *, plain: bool
) -> None:
    told = proxy_header("192.0.2.7", proxy.http if plain else proxy.https)
    behind: dict[str, Any] = {"source": "127.0.0.9", "first": told}
    for more, expected in (({"source": "127.0.0.77"}, "127.0.0.77"), (behind, "192.0.2.7")):
        foreman.asked.clear()
        assert asked(proxy, "/unattended/provision", plain=plain, headers=FORGED, **more).status == 200
        (one,) = foreman.asked
        assert one.headers["x-forwarded-for"] == expected
        assert not {"forwarded", "remote-user", "x-client-cert"} & one.headers.keys()


def test_a_registration_says_nothing_of_a_host_s_address(proxy: Member, foreman: ForemanForHosts) -> None:
    asked(proxy, "/register?forged", headers={**FORGED, **TOKEN})
    asked(proxy, "/register", "POST", headers={**FORGED, **TOKEN}, body=b"a=b")
    assert len(foreman.asked) == 2
    for one in foreman.asked:
        assert not {"x-forwarded-for", "forwarded", "remote-user", "x-client-cert"} & one.headers.keys()
        assert one.headers["authorization"] == TOKEN["Authorization"]


def test_two_hundred_hosts_at_once_are_one_question(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.may_answer.clear()
    with ThreadPoolExecutor(40) as threads:
        first = [threads.submit(asked, proxy, "/register?storm=1&b=2", headers=TOKEN) for _ in range(40)]
        until(lambda: len(foreman.asked) == 1)
        time.sleep(0.2)
        foreman.may_answer.set()
        rest = [threads.submit(asked, proxy, "/register?b=2&storm=1", headers=TOKEN) for _ in range(160)]
        found = {(f.result().status, f.result().body) for f in (*first, *rest)}
    assert found == {(200, b"#!/bin/sh\n# registration script GET\n")}
    assert foreman.counted() == {"GET /register": 1}
    asked(proxy, "/register?b=2&storm=1", headers={"Authorization": f"Bearer {'other' * 10}"})
    assert foreman.counted() == {"GET /register": 2}


def test_a_host_that_leaves_takes_the_script_from_nobody(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.may_answer.clear()
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(Connection(proxy.https, tls=proxy.tls(None)))
        first.send(request("GET", "/register?leaving", TOKEN))
        until(lambda: len(foreman.asked) == 1)
        second = stack.enter_context(Connection(proxy.https, tls=proxy.tls(None)))
        second.send(request("GET", "/register?leaving", TOKEN))
        first.socket.close()
        time.sleep(0.2)
        foreman.may_answer.set()
        assert second.answer().status == 200
    assert foreman.counted() == {"GET /register": 1}


def test_a_host_that_leaves_costs_foreman_no_more(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.may_answer.clear()
    with Connection(proxy.http) as connection:
        connection.send(request("GET", "/unattended/provision"))
        until(lambda: len(foreman.asked) == 1)
    until(lambda: any("/unattended/provision with 400" in line for line in proxy.access_lines[-3:]))


@pytest.mark.parametrize("cut", [0, 9])
def test_what_breaks_off_is_no_script_and_no_template(proxy: Member, foreman: ForemanForHosts, cut: int) -> None:
    foreman.cut = cut
    for method in ("GET", "POST"):
        got = asked(proxy, f"/register?cut={cut}", method, headers=TOKEN)
        assert (got.status, got.body, got.headers["retry-after"]) == (503, FAILED, "5")
    got = asked(proxy, "/unattended/provision", plain=True)
    assert (got.status, got.headers["retry-after"]) == (503, "5")
    assert got.text.startswith("Failed to proxy /provision: Foreman broke off its answer")


def test_a_script_longer_than_any_is_none(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.script = b"#" * ((1 << 20) + 1)
    got = asked(proxy, "/register?long", headers=TOKEN)
    assert (got.status, got.body) == (502, FAILED)


def test_a_foreman_that_does_not_answer_is_said_so(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.may_answer.clear()
    got = asked(proxy, "/register?hung", headers=TOKEN)
    assert (got.status, got.body) == (504, FAILED)
    assert asked(proxy, "/userdata/user-data").text == (
        "Failed to retrieve user-data userdata template: Foreman did not begin to answer within 3 s"
    )


def test_a_foreman_that_is_away_and_returns(proxy: Member, foreman: ForemanForHosts) -> None:
    # Members keep the connection, and it is of no use a moment later.
    assert asked(proxy, "/unattended/provision").status == 200
    foreman.stop()
    try:
        got = asked(proxy, "/register?away", headers=TOKEN)
        assert (got.status, got.body, got.headers["retry-after"]) == (503, FAILED, "5")
        got = asked(proxy, "/unattended/provision?token=secret")
        assert (got.status, got.headers["retry-after"]) == (503, "5")
        assert "Foreman cannot be reached" in got.text
        assert "secret" not in got.text
    finally:
        foreman.start()
    assert asked(proxy, "/register?away", headers=TOKEN).status == 200


def test_a_long_report_goes_on_while_it_comes(proxy: Member, foreman: ForemanForHosts) -> None:
    log = b"100% of anaconda.log & more\n" * 20_000
    got = asked(
        proxy,
        "/unattended/failed?token=t",
        "POST",
        body=log,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert got.status == 200
    (one,) = foreman.asked
    assert (one.body, one.headers["content-type"]) == (log, "text/plain")
    assert [k for k, _ in one.query] == ["token", "Content-Type", "url"]
    assert asked(proxy, "/unattended/failed", "POST", body=b"x" * ((16 << 20) + 1)).status == 413
    assert len(foreman.asked) == 1


def test_a_report_without_a_length_goes_on_in_pieces(proxy: Member, foreman: ForemanForHosts) -> None:
    with Connection(proxy.http) as connection:
        connection.send(request("POST", "/unattended/built", {"Transfer-Encoding": "chunked"}))
        connection.send(b"5\r\nbuilt\r\n")
        connection.send(b"4\r\n now\r\n0\r\n\r\n")
        assert connection.answer("POST").status == 200
    assert foreman.asked[0].body == b"built now"


def test_head_is_what_get_is_without_a_body(proxy: Member, foreman: ForemanForHosts) -> None:
    for path in ("/unattended/provision", "/register"):
        got = asked(proxy, path, "HEAD", headers=TOKEN)
        assert (got.status, got.body) == (200, b"")
        assert int(got.headers["content-length"]) > 20
    assert {one.method for one in foreman.asked} == {"GET"}


def test_neither_tokens_nor_queries_are_in_a_log(proxy: Member, foreman: ForemanForHosts) -> None:
    secret = {"Authorization": f"Bearer {'s3cret' * 10}"}
    for want in (200, 401, 500):
        asked(proxy, f"/register?activation_keys=s3cret&want={want}", headers=secret)
        asked(proxy, f"/unattended/provision?token=s3cret&want={want}", headers=secret)
    logged = proxy.ask("GET", "/logs").text + "".join(proxy.access_lines)
    assert "Foreman answers 401" in logged
    assert "s3cret" not in logged
    store = (proxy.directory / "store.db").read_bytes() + (proxy.directory / "store.db-wal").read_bytes()
    assert b"registration_scripts" in store
    assert b"s3cret" not in store
    assert b"bin/sh" not in store


def test_registration_without_templates_failed_in_ruby_s_words(foreman: ForemanForHosts, tmp_path: Path) -> None:
    with member.running(
        tmp_path, features={"registration": {}}, foreman={"url": foreman.url, "trusted_hosts": [member.TRUSTED]}
    ) as other:
        told = json.loads(other.ask("GET", "/v2/features").body)
        assert (told["registration"]["state"], told["templates"]["state"]) == ("failed", "disabled")
        assert told["templates"]["settings"] == {"template_url": None}
        failed = json.loads(other.ask("GET", "/logs").body)["info"]["failed_modules"]
        assert failed == {"registration": "'templates' required by 'registration' could not be found."}
        got = other.ask("GET", "/register")
        assert got.status == 503
        assert "'templates' required by" in got.text


def test_a_foreman_that_knows_itself_by_another_name_refuses(proxy: Member, foreman: ForemanForHosts) -> None:
    """As one in containers does where ``foreman.url`` has an alias that it was not told of."""
    port, foreman.port = foreman.port, 1
    try:
        got = asked(proxy, "/unattended/provision")
        assert (got.status, got.text) == (
            403,
            "Failed to proxy /provision: Foreman answers 403 to GET /unattended/provision",
        )
    finally:
        foreman.port = port


def test_a_foreman_that_closes_kept_connections_costs_no_host_what_it_says(
    proxy: Member, foreman: ForemanForHosts
) -> None:
    foreman.hangs_up = True
    with ThreadPoolExecutor(20) as threads:
        said = [threads.submit(asked, proxy, "/unattended/built", "POST", body=b"a=b") for _ in range(60)]
        assert {f.result().status for f in said} == {200}
    assert foreman.counted() == {"POST /unattended/built": 60}


def test_a_long_script_is_whole_when_foreman_hangs_up_behind_it(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.hangs_up, foreman.script = True, b"#" * 1_000_000
    for n in range(5):
        got = asked(proxy, f"/register?long={n}", headers=TOKEN)
        assert (got.status, got.body == foreman.script) == (200, True)


def test_a_script_that_only_the_connection_s_end_ends_is_none(proxy: Member, foreman: ForemanForHosts) -> None:
    foreman.is_unframed, foreman.cut = True, 12
    for method in ("GET", "POST"):
        got = asked(proxy, "/register?unframed", method, headers=TOKEN)
        assert (got.status, got.body) == (502, FAILED)
